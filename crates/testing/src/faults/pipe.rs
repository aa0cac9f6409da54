//! One connection of a client, and the one to the server behind it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::weather::Weather;

/// Bytes that pass at a time.
const PIECE: usize = 16 * 1024;

/// Passes on both ways until both sides have ended, one of them breaks, or it is told to reset.
pub(super) async fn run(
    mut client: TcpStream,
    mut server: TcpStream,
    weather: watch::Receiver<Weather>,
) {
    // Small messages are not to wait for each other here: the link is to be as slow as it is told, not slower.
    let eager = client
        .set_nodelay(true)
        .and_then(|()| server.set_nodelay(true));
    let resets = weather.borrow().resets;
    let broken = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = pass(from_client, to_server, weather.clone());
        let back = pass(from_server, to_client, weather.clone());
        let mut told = weather;
        tokio::select! {
            both = async { tokio::try_join!(there, back) } => both.is_err(),
            _ = told.wait_for(|weather| weather.resets != resets) => true,
        }
    };
    if broken || eager.is_err() {
        reset(&client);
        reset(&server);
    }
}

/// Makes the end of this connection a reset, whatever was on its way.
pub(super) fn reset(stream: &TcpStream) {
    // One that is closed already needs none.
    drop(stream.set_zero_linger());
}

async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        let delay = weather.borrow().delay;
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        // The relay itself has gone: whoever dropped it resets.
        if weather.wait_for(|weather| !weather.stalls).await.is_err() {
            return Ok(());
        }
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(piece.get(..length).unwrap_or_default())
            .await?;
    }
}
