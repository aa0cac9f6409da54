//! Knot DNS: one zone that tests change while it is served.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::error::ServerError;
use super::program::KNOT_SERVER;
use super::system::{Site, System};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The zone that is served, without the dot at its end.
pub const ZONE: &str = "trunkline.test";

/// Numbers of the protocol.
mod number {
    pub(super) const A: u16 = 1;
    pub(super) const AAAA: u16 = 28;
    pub(super) const SOA: u16 = 6;
    pub(super) const SRV: u16 = 33;
    pub(super) const IN: u16 = 1;
    pub(super) const ANY: u16 = 255;
    /// The operation is an update (RFC 2136).
    pub(super) const UPDATE: u16 = 5 << 11;
}

/// Knot DNS with the zone [`ZONE`], reached at `dns://host:port/zone`, by UDP and TCP. Answers by UDP have at most 1232
/// bytes.
pub static KNOT: System = System {
    name: "knot",
    program: &KNOT_SERVER,
    ports: 1,
    ready_within: Duration::from_secs(30),
    stop_within: Duration::from_secs(15),
    prepare,
    command,
    probe,
    url,
};

fn prepare(site: &Site) -> Result<(), ServerError> {
    let run = site.directory().join("run");
    fs::create_dir_all(&run).map_err(ServerError::io("create", &run))?;
    let data = site.data();
    write_zone(site)?;
    let path = site.directory().join("knot.conf");
    let port = site.port();
    let text = format!(
        "server:\n    rundir: {run:?}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
         log:\n  - target: stderr\n    any: warning\n\
         database:\n    storage: {data:?}\n\
         acl:\n  - id: tests\n    address: 127.0.0.1\n    action: update\n\
         zone:\n  - domain: {ZONE}\n    storage: {data:?}\n    file: zone\n    acl: tests\n    zonefile-sync: 0\n"
    );
    fs::write(&path, text).map_err(ServerError::io("write", &path))
}

/// Writes the zone with nothing in it, for a server that is down.
///
/// # Errors
/// When it cannot be written.
pub fn write_zone(site: &Site) -> Result<(), ServerError> {
    let data = site.data();
    fs::create_dir_all(&data).map_err(ServerError::io("create", &data))?;
    let zone = data.join("zone");
    // What is not there may be asked for again after a second.
    let text = format!(
        "$ORIGIN {ZONE}.\n@ 1 SOA ns admin 1 3600 600 86400 1\n@ 1 NS ns\nns 1 A 127.0.0.1\n"
    );
    fs::write(&zone, text).map_err(ServerError::io("write", &zone))
}

fn command(site: &Site, command: &mut Command) {
    command.arg("-c").arg(site.directory().join("knot.conf"));
}

/// Ready is: the zone is served.
fn probe(site: &Site) -> Result<(), String> {
    let mut question = header(0, [1, 0, 0, 0]);
    question_of(&mut question, ZONE, number::SOA);
    match exchange(site.address(), &question) {
        Ok(answer) if answer.get(7).is_some_and(|answers| *answers > 0) => Ok(()),
        Ok(_) => Err("it does not know its zone".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn url(site: &Site) -> String {
    format!("dns://{}/{ZONE}", site.address())
}

/// A change of the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Takes all records of a name out.
    Clear(String),
    /// Adds a record, with its time to live in seconds.
    Add(String, u32, Data),
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An address of IPv4.
    A(Ipv4Addr),
    /// An address of IPv6.
    Aaaa(Ipv6Addr),
    /// Where a service is: priority, weight, port, target.
    Srv(u16, u16, u16, String),
}

/// Changes the zone, all or nothing; served from the moment on that this returns. Names are whole, without the dot at
/// their end.
///
/// # Errors
/// `Other` when the server refuses; whatever the connection fails with.
pub fn update(address: SocketAddr, changes: &[Change]) -> io::Result<()> {
    let count = u16::try_from(changes.len()).map_err(|_| io::Error::other("too many changes"))?;
    let mut message = header(number::UPDATE, [1, 0, count, 0]);
    question_of(&mut message, ZONE, number::SOA);
    for change in changes {
        match change {
            Change::Clear(name) => {
                name_of(&mut message, name);
                for part in [number::ANY, number::ANY, 0, 0, 0] {
                    message.extend(part.to_be_bytes());
                }
            }
            Change::Add(name, ttl, data) => {
                name_of(&mut message, name);
                let mut body = Vec::new();
                let kind = match data {
                    Data::A(address) => {
                        body.extend(address.octets());
                        number::A
                    }
                    Data::Aaaa(address) => {
                        body.extend(address.octets());
                        number::AAAA
                    }
                    Data::Srv(priority, weight, port, target) => {
                        for part in [priority, weight, port] {
                            body.extend(part.to_be_bytes());
                        }
                        name_of(&mut body, target);
                        number::SRV
                    }
                };
                message.extend(kind.to_be_bytes());
                message.extend(number::IN.to_be_bytes());
                message.extend(ttl.to_be_bytes());
                let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
                message.extend(length.to_be_bytes());
                message.extend(body);
            }
        }
    }
    exchange(address, &message).map(drop)
}

fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut message = Vec::with_capacity(512);
    message.extend(0x7477_u16.to_be_bytes());
    message.extend(flags.to_be_bytes());
    for count in counts {
        message.extend(count.to_be_bytes());
    }
    message
}

fn question_of(message: &mut Vec<u8>, name: &str, kind: u16) {
    name_of(message, name);
    message.extend(kind.to_be_bytes());
    message.extend(number::IN.to_be_bytes());
}

fn name_of(message: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        message.extend(label.as_bytes());
    }
    message.push(0);
}

/// Sends one message by TCP and takes the answer, which says that all is well.
fn exchange(address: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let length = u16::try_from(message.len()).map_err(|_| io::Error::other("too long"))?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    match answer.get(3).map(|flags| flags & 0x0f) {
        Some(0) => Ok(answer),
        Some(code) => Err(io::Error::other(format!(
            "the server answered with code {code}"
        ))),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no answer of DNS",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_label_by_label() {
        let mut message = Vec::new();
        name_of(&mut message, "a.bc.");
        assert_eq!(message, b"\x01a\x02bc\x00");
    }
}
