//! etcd: one member with its data on disk.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::error::ServerError;
use super::program::ETCD_SERVER;
use super::system::{Site, System};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 1024 * 1024;

/// etcd without authentication, reached at `etcd://host:port`. Its ports: clients, peers.
pub static ETCD: System = System {
    name: "etcd",
    program: &ETCD_SERVER,
    ports: 2,
    ready_within: Duration::from_secs(60),
    stop_within: Duration::from_secs(20),
    prepare,
    command,
    probe,
    url,
};

#[expect(clippy::unnecessary_wraps, reason = "the signature every system has")]
fn prepare(_site: &Site) -> Result<(), ServerError> {
    Ok(())
}

fn command(site: &Site, command: &mut Command) {
    let at = |n: usize| {
        let port = site.ports().get(n).copied().unwrap_or(0);
        format!("http://127.0.0.1:{port}")
    };
    command
        .args(["--name", "member-1"])
        .arg("--data-dir")
        .arg(site.data().join("member"));
    command.args([
        "--listen-client-urls",
        &at(0),
        "--advertise-client-urls",
        &at(0),
    ]);
    command.args([
        "--listen-peer-urls",
        &at(1),
        "--initial-advertise-peer-urls",
        &at(1),
    ]);
    command.args(["--initial-cluster", &format!("member-1={}", at(1))]);
    command.args(["--initial-cluster-state", "new"]);
}

fn probe(site: &Site) -> Result<(), String> {
    let health = call(site.address(), "GET", "/health", "").map_err(|error| error.to_string())?;
    if health.contains("\"health\":\"true\"") {
        Ok(())
    } else {
        Err(format!("it says {health}"))
    }
}

fn url(site: &Site) -> String {
    format!("etcd://{}", site.address())
}

/// Sends one message to the JSON gateway on a connection of its own and returns the body of the answer. Enough to change
/// what a server holds behind the back of who is tested.
///
/// # Errors
/// `Other` when the answer is not 200, with what it says; `TimedOut` or `WouldBlock` if nothing answers within five
/// seconds; whatever the connection fails with.
pub fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let length = body.len();
    // HTTP/1.0: the answer ends with the connection and comes in one piece.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no answer of HTTP"))?;
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(io::Error::other(format!(
            "{method} {path}: {first}: {body}"
        )))
    }
}
