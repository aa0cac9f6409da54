//! Consul: one server that is its own agent, with its data on disk so that registrations survive a restart.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::error::ServerError;
use super::program::CONSUL_AGENT;
use super::system::{Site, System};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 1024 * 1024;
/// The node that every test server is.
const NODE: &str = "node-1";

/// Consul without access control, reached at `consul://host:port`. Its ports: HTTP, server, serf.
pub static CONSUL: System = System {
    name: "consul",
    program: &CONSUL_AGENT,
    ports: 3,
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
    let port = |n: usize| site.ports().get(n).copied().unwrap_or(0).to_string();
    command.args(["agent", "-server", "-bootstrap-expect=1"]);
    command
        .arg(format!("-node={NODE}"))
        .arg("-disable-host-node-id");
    command.args([
        "-bind=127.0.0.1",
        "-client=127.0.0.1",
        "-advertise=127.0.0.1",
    ]);
    command.arg("-data-dir").arg(site.data());
    command.arg(format!("-http-port={}", port(0)));
    command.arg(format!("-server-port={}", port(1)));
    command.arg(format!("-serf-lan-port={}", port(2)));
    command.args(["-serf-wan-port=-1", "-dns-port=-1", "-grpc-port=-1"]);
    if CONSUL_AGENT
        .version()
        .is_some_and(|version| has_grpc_tls(&version))
    {
        command.arg("-grpc-tls-port=-1");
    }
    // A leader of one: found at once. All tests are one client. What went is seen to be gone within the shortest time
    // that Consul allows.
    command.arg("-hcl=disable_update_check = true");
    command.arg("-hcl=performance { raft_multiplier = 1 }");
    command.arg("-hcl=limits { http_max_conns_per_client = 5000 }");
    command.arg("-hcl=leave_on_terminate = false");
}

/// 1.14 opened another port.
fn has_grpc_tls(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (1, 14),
        _ => false,
    }
}

/// Ready is: there is a leader, and the node is in its catalog.
fn probe(site: &Site) -> Result<(), String> {
    let leader = get(site.address(), "/v1/status/leader").map_err(|error| error.to_string())?;
    if !leader.contains(':') {
        return Err("there is no leader".to_owned());
    }
    let nodes = get(site.address(), "/v1/catalog/nodes").map_err(|error| error.to_string())?;
    if nodes.contains(NODE) {
        Ok(())
    } else {
        Err(format!("the catalog has other nodes: {nodes}"))
    }
}

fn url(site: &Site) -> String {
    format!("consul://{}", site.address())
}

/// Asks for a path and returns the body of the answer.
///
/// # Errors
/// `Other` when the answer is not 200; whatever the connection fails with.
pub fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    call(address, "GET", path, "")
}

/// Sends one request on a connection of its own and returns the body of the answer. Enough to see what a server holds,
/// and to change it behind the back of who is tested, without a client.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_newer_releases_is_known() {
        assert!(!has_grpc_tls("1.8.7"));
        assert!(has_grpc_tls("1.14.0") && has_grpc_tls("1.22.7") && has_grpc_tls("2.0.1"));
        assert!(!has_grpc_tls("unknown"));
    }
}
