//! Opens a socket: every address of a host gets its chance, and one that does not answer holds nobody up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::sleep;
use trunkline_core::{Error, Result};

use super::error::{ConnectFailed, ConnectStage};
use super::guard::{self, AddressDenied};

/// When the next address is tried although the last one has not failed yet (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses of one host that are tried; more come from a mistake in the zone.
const MOST_ADDRESSES: usize = 16;

/// Connects to a host, if need be to a public address alone. The caller bounds the time.
pub(super) async fn tcp(host: &str, port: u16, public_only: bool) -> Result<TcpStream> {
    let addresses = addresses(host, port, public_only).await?;
    let authority = format!("{host}:{port}");
    let mut addresses = interleave(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last: Option<io::Error> = None;
    loop {
        match addresses.next() {
            Some(address) => attempts.push(connect(address)),
            None if attempts.is_empty() => break,
            None => {}
        }
        let more = addresses.len() > 0;
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some(error),
            },
            () = sleep(HEAD_START), if more => {}
        }
    }
    let cause = last.unwrap_or_else(|| io::Error::other("the host has no address"));
    Err(ConnectFailed::error(
        authority,
        ConnectStage::Connect,
        cause,
    ))
}

/// The addresses of a host that may be dialled; at least one.
pub(super) async fn addresses(host: &str, port: u16, public_only: bool) -> Result<Vec<SocketAddr>> {
    let mut found = resolve(host, port).await?;
    if public_only {
        let first = found.first().map(SocketAddr::ip);
        found.retain(|address| guard::is_public(address.ip()));
        if let (true, Some(first)) = (found.is_empty(), first) {
            return Err(AddressDenied::error(&format!("{host}:{port}"), &first));
        }
    }
    Ok(found)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed =
        |cause| ConnectFailed::error(format!("{host}:{port}"), ConnectStage::Resolve, cause);
    let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(failed)?.collect();
    if found.is_empty() {
        return Err(failed(io::Error::new(
            io::ErrorKind::NotFound,
            "the host has no address",
        )));
    }
    Ok(found)
}

/// Turns between the families, beginning with the one that the system prefers: if one family leads nowhere, the second
/// attempt already takes the other.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut mixed = Vec::with_capacity(preferred.len() + other.len());
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    loop {
        let before = mixed.len();
        mixed.extend(preferred.next());
        mixed.extend(other.next());
        if mixed.len() == before || mixed.len() >= MOST_ADDRESSES {
            mixed.truncate(MOST_ADDRESSES);
            return mixed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[&str]) -> Vec<SocketAddr> {
        text.iter()
            .map(|one| SocketAddr::new(one.parse().unwrap(), 80))
            .collect()
    }

    #[test]
    fn families_take_turns() {
        let mixed = interleave(parsed(&["::1", "::2", "::3", "127.0.0.1", "127.0.0.2"]));
        assert_eq!(
            mixed,
            parsed(&["::1", "127.0.0.1", "::2", "127.0.0.2", "::3"])
        );
        assert!(interleave(Vec::new()).is_empty());
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let many: Vec<String> = (0..100).map(|last| format!("10.0.0.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(interleave(parsed(&many)).len(), MOST_ADDRESSES);
    }
}
