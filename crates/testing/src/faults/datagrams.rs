//! Datagrams on their way to a server and back. They have no connections: what does not pass is lost.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use trunkline_core::task;

use super::weather::Weather;

/// The most that a datagram holds.
const LARGEST: usize = 65_535;
/// How long answers are waited for.
const IDLE: Duration = Duration::from_secs(10);

/// Passes datagrams on until the relay is stopped.
pub(super) async fn run(
    socket: UdpSocket,
    server: SocketAddr,
    weather: watch::Receiver<Weather>,
    answering: &TaskTracker,
) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut piece = vec![0; LARGEST];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut piece).await else {
            // What was sent to a client that is gone.
            continue;
        };
        let now = *weather.borrow();
        if now.stalls || now.refuses {
            continue;
        }
        // Those whose task has ended are held here alone.
        clients.retain(|_, upstream| Arc::strong_count(upstream) > 1);
        let upstream = match clients.get(&client) {
            Some(upstream) => Arc::clone(upstream),
            None => match connect(server).await {
                Ok(upstream) => {
                    let upstream = Arc::new(upstream);
                    clients.insert(client, Arc::clone(&upstream));
                    let (socket, weather) = (Arc::clone(&socket), weather.clone());
                    let back = answers(Arc::clone(&upstream), socket, client, weather);
                    drop(task::spawn("fault datagrams", answering.track_future(back)));
                    upstream
                }
                Err(_) => continue,
            },
        };
        if now.delay > Duration::ZERO {
            sleep(now.delay).await;
        }
        // Nobody listens there: lost, as on any link.
        drop(upstream.send(piece.get(..length).unwrap_or_default()).await);
    }
}

async fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// Passes back to one client what the server says to it, until it has said nothing for long.
async fn answers(
    upstream: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    mut weather: watch::Receiver<Weather>,
) {
    let mut piece = vec![0; LARGEST];
    let resets = weather.borrow().resets;
    loop {
        let answer = tokio::select! {
            answer = timeout(IDLE, upstream.recv(&mut piece)) => answer,
            // Told to end, or the relay is gone.
            _ = weather.wait_for(|weather| weather.resets != resets) => return,
        };
        let length = match answer {
            Ok(Ok(length)) => length,
            // The server is down; it may come back.
            Ok(Err(_)) => continue,
            Err(_) => return,
        };
        let now = *weather.borrow();
        if now.stalls || now.refuses {
            continue;
        }
        drop(
            socket
                .send_to(piece.get(..length).unwrap_or_default(), client)
                .await,
        );
    }
}
