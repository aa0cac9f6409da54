//! NATS: how it is started, and what its monitoring port says.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::error::ServerError;
use super::program::NATS_SERVER;
use super::system::{Site, System};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest answer of the monitoring port that is read, in bytes.
const LONGEST_ANSWER: u64 = 16 * 1024 * 1024;

/// User and password of the account that tests work in.
pub const USER: (&str, &str) = ("app", "app");
/// User and password of the server's own account, which may ask it to do things: `$SYS.REQ.SERVER.<id>.KICK`.
pub const SYSTEM_USER: (&str, &str) = ("sys", "sys");
/// The seed of an nkey that may log in to the account that tests work in.
pub const NKEY_SEED: &str = "SUAIBELZZFCHXVBX5MRNYPULMJIQNL236NDJAFIFHV5RKZ73WFWN276X4I";
/// The public half of [`NKEY_SEED`].
const NKEY: &str = "UCFAYTGRZ2ROCM7XJKBQM7YIDOKA3YKSBDFP3QUMVCOWKRGZGHAU6YJK";

/// NATS with JetStream on disk. The first port is for clients, the second for [`monitor`].
pub static NATS: System = System {
    name: "nats",
    program: &NATS_SERVER,
    ports: 2,
    ready_within: Duration::from_secs(30),
    stop_within: Duration::from_secs(15),
    prepare,
    command,
    probe,
    url,
};

fn prepare(site: &Site) -> Result<(), ServerError> {
    let path = site.directory().join("nats.conf");
    fs::write(&path, configuration(site)).map_err(ServerError::io("write", &path))
}

fn configuration(site: &Site) -> String {
    let [client, monitor] = [0, 1].map(|at| site.ports().get(at).copied().unwrap_or_default());
    let store = site.data().join("jetstream");
    let ((user, password), (system, secret)) = (USER, SYSTEM_USER);
    format!(
        "server_name: trunkline-{client}\n\
         listen: \"127.0.0.1:{client}\"\n\
         http: \"127.0.0.1:{monitor}\"\n\
         jetstream {{ store_dir: {store:?}, max_mem: 256M, max_file: 8G }}\n\
         accounts {{\n\
         APP {{ jetstream: enabled, users: [{{user: {user}, password: {password}}}, {{nkey: {NKEY}}}] }}\n\
         SYS {{ users: [{{user: {system}, password: {secret}}}] }}\n\
         }}\n\
         system_account: SYS\n\
         ping_interval: \"10s\"\n"
    )
}

fn command(site: &Site, command: &mut Command) {
    command.arg("-c").arg(site.directory().join("nats.conf"));
}

/// JetStream is ready when `/healthz` says so; the client port is open before.
fn probe(site: &Site) -> Result<(), String> {
    match monitor(site, "/healthz") {
        Ok(body) if body.contains("\"ok\"") => Ok(()),
        Ok(body) => Err(format!("/healthz was answered with {body}")),
        Err(error) => Err(error.to_string()),
    }
}

fn url(site: &Site) -> String {
    let (user, password) = USER;
    format!("nats://{user}:{password}@{}", site.address())
}

/// Asks the monitoring port, such as `/connz?subs=1` or `/jsz?consumers=1`, and returns the body.
///
/// # Errors
/// `TimedOut` or `WouldBlock` if nothing answers within five seconds, `InvalidData` for what is no answer, and whatever
/// the connection fails with.
pub fn monitor(site: &Site, path: &str) -> io::Result<String> {
    let port = site.ports().get(1).copied().unwrap_or_default();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    // HTTP/1.0: the body ends with the connection, and is in no chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    body(&answer)
}

fn body(answer: &str) -> io::Result<String> {
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("no answer: {answer:?}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_an_answer_is_found() {
        assert_eq!(body("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}").unwrap(), "{}");
        assert!(body("HTTP/1.0 200 OK\r\n").is_err());
    }
}
