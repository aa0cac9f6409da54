//! The server that all clients ask.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use trunkline_core::task;

use super::ANSWER;
use super::measure::runtime;

/// A server of HTTP/1.1 on a thread of its own, which ends with this program.
pub(super) fn server() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = runtime()?;
    std::thread::Builder::new()
        .name("server".into())
        .spawn(move || {
            if let Err(error) = runtime.block_on(accept(listener)) {
                eprintln!("  the server ended: {error}");
            }
        })?;
    Ok(address)
}

async fn accept(listener: std::net::TcpListener) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        drop(task::spawn("connection", serve(socket)));
    }
}

async fn serve(socket: TcpStream) -> Result<()> {
    let service = service_fn(|_| async {
        let answer = Full::new(Bytes::from_static(ANSWER));
        let response = Response::builder().header("content-type", "application/json");
        response.body(answer)
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await?;
    Ok(())
}
