//! Which addresses may be dialled at all: for clients whose URLs come from outside (server-side request forgery).
//!
//! Checked on the address that is dialled, not on the name: what a name leads to can change between two look-ups.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use trunkline_core::{Error, Retry};

/// The address of a host is one that this client does not call. A typed cause of errors of this crate; nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not a public address, and deny_private_addresses is on")]
#[non_exhaustive]
pub struct AddressDenied {
    /// The address.
    pub address: String,
}

impl AddressDenied {
    pub(super) fn error(authority: &str, address: &dyn std::fmt::Display) -> Error {
        let address = address.to_string();
        Error::rejected(format!("{authority} may not be called"))
            .with_retry(Retry::Never)
            .with_source(Self { address })
    }
}

/// Whether an address is one of the public internet. Everything that is set aside for another purpose is not: private,
/// shared, loopback, link-local (which holds the metadata services of clouds), documentation, multicast and so on.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(embedded) => is_public_v4(embedded),
            None => is_public_v6(address),
        },
    }
}

/// Blocks of RFC 6890 and its successors that are not globally reachable.
fn is_public_v4(address: Ipv4Addr) -> bool {
    const ASIDE: &[(Ipv4Addr, u32)] = &[
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 0, 0, 0), 24),
        (Ipv4Addr::new(192, 0, 2, 0), 24),
        (Ipv4Addr::new(192, 88, 99, 0), 24),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
        (Ipv4Addr::new(198, 51, 100, 0), 24),
        (Ipv4Addr::new(203, 0, 113, 0), 24),
        (Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    let bits = address.to_bits();
    let inside = |(block, length): &(Ipv4Addr, u32)| (bits ^ block.to_bits()) >> (32 - length) == 0;
    // The metadata service of one cloud has a public address.
    !ASIDE.iter().any(inside) && address != Ipv4Addr::new(168, 63, 129, 16)
}

/// Of IPv6 only 2000::/3 is handed out, and not all of that to the public.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, ..] = address.segments();
    let unicast = first >> 13 == 0b001;
    let documentation =
        (first, second) == (0x2001, 0x0db8) || (first == 0x3fff && second >> 12 == 0);
    // 2001::/23 is for protocols, Teredo among them.
    let protocols = first == 0x2001 && second >> 9 == 0;
    let benchmark = (first, second, third) == (0x2001, 2, 0);
    unicast && !documentation && !protocols && !benchmark
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, behind NAT64, 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] => Some(of(high, low)),
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(of(high, low)),
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }
}
