//! Who listens on a port.
//!
//! A readiness probe alone proves nothing: our server may have died on a port that was taken, and
//! somebody else's server answers. Only the kernel's tables say whose listener it is.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::process;

/// State `LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Who holds the listening sockets of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The process or one of its descendants.
    Ours,
    /// Somebody else.
    Other,
    /// Nobody listens.
    Nobody,
    /// This operating system does not tell.
    Unknown,
}

/// Who holds `port`, seen from `pid`.
pub(super) fn holder(pid: i32, port: u16) -> Holder {
    let tables: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    if tables.is_empty() {
        return Holder::Unknown;
    }
    let listening: HashSet<u64> = tables
        .iter()
        .flat_map(|table| listening_inodes(table, port))
        .collect();
    if listening.is_empty() {
        return Holder::Nobody;
    }
    let ours = process::family(pid)
        .into_iter()
        .any(|member| holds(member, &listening));
    if ours { Holder::Ours } else { Holder::Other }
}

/// Inodes of the sockets that listen on `port`.
///
/// A line reads `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`, the
/// address being `hex:hex`.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
            let local_port = u16::from_str_radix(local_port, 16).ok()?;
            let listens = fields.get(3) == Some(&LISTEN);
            let inode = fields.get(9)?.parse().ok()?;
            (listens && local_port == port).then_some(inode)
        })
        .collect()
}

/// Whether the process has one of the sockets open.
fn holds(pid: i32, sockets: &HashSet<u64>) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path())
            .is_ok_and(|target| socket_inode(&target).is_some_and(|inode| sockets.contains(&inode)))
    })
}

/// The number in `socket:[12345]`.
fn socket_inode(target: &Path) -> Option<u64> {
    target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
    use std::process::Command;

    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3F46 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41730 1 0
   1: 0100007F:3F46 0100007F:C3AA 01 00000000:00000000 00:00000000 00000000  1000        0 41999 1 0
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0
   3: broken
";

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        assert_eq!(listening_inodes(TABLE, 0x3F46), [41730]);
        assert_eq!(listening_inodes(TABLE, 22), [12]);
        assert_eq!(listening_inodes(TABLE, 80), [] as [u64; 0]);
    }

    #[test]
    fn socket_links_are_read() {
        assert_eq!(socket_inode(Path::new("socket:[41730]")), Some(41730));
        assert_eq!(socket_inode(Path::new("pipe:[41730]")), None);
        assert_eq!(socket_inode(Path::new("/dev/null")), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn listener_of_another_process_is_not_ours() {
        let me = i32::try_from(std::process::id()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(holder(me, port), Holder::Ours);
        let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
        let seen = holder(i32::try_from(stranger.id()).unwrap(), port);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert_eq!(seen, Holder::Other);
        drop(listener);
        assert_eq!(holder(me, port), Holder::Nobody);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn listener_on_ipv6_is_seen() {
        let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
            return; // a machine without IPv6
        };
        let port = listener.local_addr().unwrap().port();
        assert_eq!(
            holder(i32::try_from(std::process::id()).unwrap(), port),
            Holder::Ours
        );
    }
}
