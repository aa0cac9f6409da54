//! The link that fails on demand does what it is told.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use trunkline_testing::faults::Relay;

/// A server that sends back what it gets, as long as the test runs.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                // Ends with an error when the connection is reset, as it should be.
                drop(std::io::copy(&mut stream, &mut back));
            });
        }
    });
    address
}

fn connect(relay: &Relay) -> TcpStream {
    let stream = TcpStream::connect(relay.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

fn answered(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(text)?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[test]
fn everything_passes_both_ways_and_ends_are_passed_on() {
    let relay = Relay::to(echo()).unwrap();
    let mut stream = connect(&relay);
    let large = vec![7; 100_000];
    let mut writer = stream.try_clone().unwrap();
    let sent = large.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert_eq!(back, large);
    assert_eq!(relay.accepted(), 1);
}

#[test]
fn resetting_breaks_what_is_there_and_nothing_else() {
    let relay = Relay::to(echo()).unwrap();
    let mut first = connect(&relay);
    answered(&mut first, b"one").unwrap();
    relay.reset_all();
    let error = answered(&mut first, b"two").unwrap_err();
    let broken = [
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
        ErrorKind::UnexpectedEof,
    ];
    assert!(broken.contains(&error.kind()), "{error}");
    let mut second = connect(&relay);
    assert_eq!(answered(&mut second, b"three").unwrap(), b"three");
    assert_eq!(relay.accepted(), 2);
}

#[test]
fn what_is_stalled_passes_afterwards() {
    let relay = Relay::to(echo()).unwrap();
    let mut stream = connect(&relay);
    answered(&mut stream, b"one").unwrap();
    relay.stall(true);
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let error = answered(&mut stream, b"two").unwrap_err();
    let silent = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
    assert!(silent.contains(&error.kind()), "{error}");
    relay.stall(false);
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"two");
}

#[test]
fn refused_connections_end_at_once_and_those_that_are_there_stay() {
    let relay = Relay::to(echo()).unwrap();
    let mut old = connect(&relay);
    answered(&mut old, b"one").unwrap();
    relay.refuse(true);
    let mut new = connect(&relay);
    answered(&mut new, b"two").unwrap_err();
    answered(&mut old, b"three").unwrap();
    relay.refuse(false);
    answered(&mut connect(&relay), b"four").unwrap();
}

#[test]
fn a_server_that_is_not_there_is_a_reset() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let relay = Relay::to(nobody).unwrap();
    answered(&mut connect(&relay), b"one").unwrap_err();
}

#[test]
fn dropping_it_resets_everything() {
    let relay = Relay::to(echo()).unwrap();
    let mut stream = connect(&relay);
    answered(&mut stream, b"one").unwrap();
    assert_eq!(relay.open(), 1);
    drop(relay);
    answered(&mut stream, b"two").unwrap_err();
}
