//! A link that fails on demand: a relay between a client and a real server.
//!
//! Killing a server shows only one way in which connections end. The others — a reset in the middle of a message, a
//! link on which nothing passes any more though nobody says so, one that is slow — need somebody in between. The relay runs
//! on a thread of its own, so that a test may block or pause its own clock.

mod datagrams;
mod pipe;
mod weather;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_core::task;

use weather::{Counters, Weather};

/// Ports that are tried.
const TRIES: usize = 32;

/// Passes TCP connections on to a server, as well or as badly as it is told. Dropping it resets all of them.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// use trunkline_testing::faults::Relay;
///
/// let link = Relay::to("127.0.0.1:6379".parse().expect("an address"))?;
/// let url = format!("redis://{}", link.address());
/// link.stall(true); // nothing passes, and nobody says so
/// link.stall(false);
/// link.reset_all(); // every connection is reset, new ones pass
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Begins to pass connections on to a server, whether that is there yet or not.
    ///
    /// # Errors
    /// When no port can be had, or no thread.
    pub fn to(server: SocketAddr) -> io::Result<Self> {
        Self::between(StdListener::bind(("127.0.0.1", 0))?, None, server)
    }

    /// As [`Relay::to`], and passes datagrams of UDP on as well, at the same port. Those that do not pass are lost, as
    /// datagrams are.
    ///
    /// # Errors
    /// When no port can be had, or no thread.
    pub fn with_datagrams(server: SocketAddr) -> io::Result<Self> {
        let (listener, socket) = both()?;
        Self::between(listener, Some(socket), server)
    }

    fn between(
        listener: StdListener,
        socket: Option<StdUdpSocket>,
        server: SocketAddr,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        if let Some(socket) = &socket {
            socket.set_nonblocking(true)?;
        }
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (weather, stop) = (
            watch::Sender::new(Weather::default()),
            CancellationToken::new(),
        );
        let counters = Arc::<Counters>::default();
        let relayed = Relayed {
            server,
            weather: weather.clone(),
            counters: Arc::clone(&counters),
            stop: stop.clone(),
            pipes: TaskTracker::new(),
        };
        let thread = std::thread::Builder::new()
            .name("fault-relay".to_owned())
            .spawn(move || runtime.block_on(relayed.run(listener, socket)))?;
        Ok(Self {
            address,
            weather,
            counters,
            stop,
            thread: Some(thread),
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection there is; new ones pass.
    pub fn reset_all(&self) {
        self.weather.send_modify(|weather| weather.resets += 1);
    }

    /// Resets every new connection at once, as long as it is told so. Those that there are stay.
    pub fn refuse(&self, refuse: bool) {
        self.weather.send_modify(|weather| weather.refuses = refuse);
    }

    /// Lets nothing pass, in either direction, as long as it is told so; connections stay, new ones are accepted. Nothing is
    /// lost: it passes afterwards.
    pub fn stall(&self, stall: bool) {
        self.weather.send_modify(|weather| weather.stalls = stall);
    }

    /// Delays whatever passes by so long, each way; zero for not at all.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.counters.open()
    }

    /// Connections accepted since the beginning.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.counters.accepted()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its thread.
            drop(thread.join());
        }
    }
}

/// A port of TCP and of UDP. The system gives one of TCP that another program may have of UDP.
fn both() -> io::Result<(StdListener, StdUdpSocket)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let listener = StdListener::bind(("127.0.0.1", 0))?;
        match StdUdpSocket::bind(listener.local_addr()?) {
            Ok(socket) => return Ok((listener, socket)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What the thread has.
struct Relayed {
    server: SocketAddr,
    weather: watch::Sender<Weather>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    pipes: TaskTracker,
}

impl Relayed {
    async fn run(self, listener: StdListener, socket: Option<StdUdpSocket>) {
        let listener = TcpListener::from_std(listener).expect("made on this machine, not blocking");
        let datagrams = async {
            let Some(socket) = socket else {
                return std::future::pending().await;
            };
            let socket = UdpSocket::from_std(socket).expect("made on this machine, not blocking");
            let weather = self.weather.subscribe();
            datagrams::run(socket, self.server, weather, &self.pipes).await;
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.accept(listener) => {}
            () = datagrams => {}
        }
        self.weather.send_modify(|weather| weather.resets += 1);
        self.pipes.close();
        self.pipes.wait().await;
    }

    async fn accept(&self, listener: TcpListener) {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                // Out of descriptors, most likely: those that end give theirs back.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let weather = self.weather.subscribe();
            if weather.borrow().refuses {
                pipe::reset(&client);
                continue;
            }
            let (server, counted) = (self.server, self.counters.count());
            let piping = async move {
                match TcpStream::connect(server).await {
                    Ok(server) => pipe::run(client, server, weather).await,
                    Err(_) => pipe::reset(&client),
                }
                drop(counted);
            };
            drop(task::spawn("fault pipe", self.pipes.track_future(piping)));
        }
    }
}
