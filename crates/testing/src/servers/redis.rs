//! Redis: how it is started, and just enough of its protocol to see that it serves.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::error::ServerError;
use super::program::REDIS_SERVER;
use super::system::{Site, System};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest reply that is read, in bytes.
const LONGEST_REPLY: usize = 1024 * 1024;

/// Redis with an append-only file, so that it keeps its data over a restart.
pub static REDIS: System = System {
    name: "redis",
    program: &REDIS_SERVER,
    ports: 1,
    ready_within: Duration::from_secs(20),
    stop_within: Duration::from_secs(10),
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
    command.args([
        "--bind",
        "127.0.0.1",
        "--protected-mode",
        "yes",
        "--daemonize",
        "no",
    ]);
    command.args(["--appendonly", "yes", "--save", ""]);
    command.args(["--port", &site.port().to_string()]);
    command.arg("--dir").arg(site.data());
}

fn probe(site: &Site) -> Result<(), String> {
    match call(site.address(), &["PING"]) {
        Ok(Some(reply)) if reply == "PONG" => Ok(()),
        Ok(reply) => Err(format!("PING was answered with {reply:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn url(site: &Site) -> String {
    format!("redis://{}", site.address())
}

/// Sends one command on a connection of its own and returns the reply as text; `None` is Redis' nil.
///
/// Enough to see what a server holds, without a driver. Arrays are not understood.
///
/// # Errors
/// `TimedOut` or `WouldBlock` if nothing answers within five seconds, `InvalidData` for what is not
/// a reply, `Other` with the message of an error reply, and whatever the connection fails with.
pub fn call(address: SocketAddr, words: &[&str]) -> io::Result<Option<String>> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(&encode(words))?;
    read_reply(&mut BufReader::new(stream))
}

fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

fn read_reply(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    reader.take(LONGEST_REPLY as u64).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "closed before a reply",
        ));
    }
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {line:?}"));
    let line = line.strip_suffix("\r\n").ok_or_else(invalid)?;
    let mut letters = line.chars();
    let kind = letters.next().ok_or_else(invalid)?;
    let rest = letters.as_str();
    match kind {
        '+' | ':' => Ok(Some(rest.to_owned())),
        '-' => Err(io::Error::other(rest.to_owned())),
        '$' if rest == "-1" => Ok(None),
        '$' => {
            let length: usize = rest.parse().map_err(|_| invalid())?;
            if length > LONGEST_REPLY {
                return Err(invalid());
            }
            let mut body = vec![0; length + 2];
            reader.read_exact(&mut body)?;
            body.truncate(length);
            String::from_utf8(body)
                .map(Some)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        }
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(bytes: &[u8]) -> io::Result<Option<String>> {
        read_reply(&mut BufReader::new(bytes))
    }

    #[test]
    fn command_is_an_array_of_bulk_strings() {
        assert_eq!(
            encode(&["SET", "k", "é"]),
            "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\né\r\n".as_bytes()
        );
    }

    #[test]
    fn replies_are_read() {
        assert_eq!(reply(b"+OK\r\n").unwrap().as_deref(), Some("OK"));
        assert_eq!(reply(b":42\r\n").unwrap().as_deref(), Some("42"));
        assert_eq!(
            reply(b"$5\r\na\r\nbc\r\n").unwrap().as_deref(),
            Some("a\r\nbc")
        );
        assert_eq!(reply(b"$-1\r\n").unwrap(), None);
        assert_eq!(
            reply(b"-LOADING not yet\r\n").unwrap_err().to_string(),
            "LOADING not yet"
        );
    }

    #[test]
    fn what_is_not_a_reply_is_an_error() {
        for bytes in [
            &b""[..],
            b"\r\n",
            b"+OK",
            b"hello\r\n",
            b"$x\r\n",
            b"$99999999999\r\n",
            b"$9\r\nab",
        ] {
            assert!(reply(bytes).is_err(), "{bytes:?}");
        }
    }
}
