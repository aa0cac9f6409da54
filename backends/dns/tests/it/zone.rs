//! The zone of a real server, as tests write it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use trunkline_core::BoxFuture;
use trunkline_discovery::ServiceName;
use trunkline_dns::{DnsConfig, DnsRegistry};
use trunkline_testing::resolver::{Editor, Place};
use trunkline_testing::servers::knot::{self, Change, Data, ZONE};

/// Changes the zone.
pub(crate) async fn update(server: SocketAddr, changes: Vec<Change>) {
    let updated = tokio::task::spawn_blocking(move || knot::update(server, &changes));
    updated.await.unwrap().unwrap();
}

pub(crate) fn below_zone(name: &str) -> String {
    format!("{name}.{ZONE}")
}

/// What SRV records of a service are called.
pub(crate) fn srv_name(service: &ServiceName) -> String {
    below_zone(&format!("_http._tcp.{service}"))
}

pub(crate) fn a(name: &str, address: [u8; 4]) -> Change {
    Change::Add(name.to_owned(), 1, Data::A(Ipv4Addr::from(address)))
}

/// Settings by which changes are seen soon.
pub(crate) fn config(server: SocketAddr) -> DnsConfig {
    quick(server, DnsConfig::srv(below_zone("_http._tcp.{service}")))
}

pub(crate) fn quick(server: SocketAddr, mut config: DnsConfig) -> DnsConfig {
    config.servers = vec![server];
    config.refresh_min = Duration::from_millis(50);
    config
}

pub(crate) fn registry(server: SocketAddr) -> DnsRegistry {
    DnsRegistry::new(&config(server)).unwrap()
}

/// Writes instances as SRV records of hosts that are called by their addresses.
pub(crate) struct Zone(pub(crate) SocketAddr);

impl Editor for Zone {
    fn write<'a>(&'a self, service: &'a ServiceName, places: &'a [Place]) -> BoxFuture<'a, ()> {
        let name = srv_name(service);
        let mut changes = vec![Change::Clear(name.clone())];
        for place in places {
            let host = below_zone(&place.host.replace('.', "-"));
            let address: Ipv4Addr = place.host.parse().unwrap();
            changes.push(a(&host, address.octets()));
            let srv = Data::Srv(0, 1, place.port, host);
            changes.push(Change::Add(name.clone(), 0, srv));
        }
        Box::pin(update(self.0, changes))
    }
}
