//! Free ports on loopback.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Below this, ports belong to well-known services.
const LOWEST: u16 = 15_000;
/// Where the kernel's own choices begin if it does not say.
const USUAL_EPHEMERAL: u16 = 32_768;
const TRIES: u32 = 64;

/// A port that nothing listens on right now.
///
/// It lies below the range the kernel takes ports of outgoing connections from, so that no
/// connection can occupy it while the server is down and about to be restarted. Another process may
/// still take it before the server does: the caller checks who holds it and tries again.
pub(super) fn free(not: &[u16]) -> io::Result<u16> {
    let end = ephemeral_start();
    if end > LOWEST + 1_000 {
        for _ in 0..TRIES {
            let port = LOWEST + below(end - LOWEST);
            if !not.contains(&port) && is_free(port) {
                return Ok(port);
            }
        }
    }
    loop {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        if !not.contains(&port) {
            return Ok(port);
        }
    }
}

/// Whether a server could listen on `port` now.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn ephemeral_start() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| {
            range
                .split_whitespace()
                .next()
                .and_then(|low| low.parse().ok())
        })
        .unwrap_or(USUAL_EPHEMERAL)
}

/// A random number below `bound`, different in every process: `RandomState` is seeded by the
/// operating system.
fn below(bound: u16) -> u16 {
    let random = RandomState::new().build_hasher().finish() % u64::from(bound.max(1));
    u16::try_from(random).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_port_is_not_free() {
        let port = free(&[]).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
        drop(listener);
        assert!(is_free(port));
    }

    #[test]
    fn given_ports_are_avoided() {
        let mut chosen = Vec::new();
        for _ in 0..20 {
            let port = free(&chosen).unwrap();
            assert!(!chosen.contains(&port));
            chosen.push(port);
        }
    }
}
