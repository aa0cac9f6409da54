//! What records say.

use std::net::SocketAddr;

use trunkline_core::ErrorKind;
use trunkline_discovery::{Registry, Resolver, ServiceDiscoveryConfig, ServiceName};
use trunkline_dns::{DnsConfig, DnsRegistry, IpFamilies};
use trunkline_testing::servers::knot::{Change, Data, ZONE};
use trunkline_testing::servers::{self, KNOT};

use crate::zone::{a, below_zone, quick, registry, srv_name, update};

async fn server() -> Option<SocketAddr> {
    let url = tokio::task::spawn_blocking(|| servers::shared(&KNOT))
        .await
        .unwrap()?;
    Some(url.split('/').nth(2).unwrap().parse().unwrap())
}

fn unique(what: &str) -> ServiceName {
    ServiceName::new(format!("{what}-{}", trunkline_core::Id::new())).unwrap()
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Data {
    Data::Srv(priority, weight, port, target.to_owned())
}

#[tokio::test]
async fn addresses_alone_share_a_port() {
    let Some(server) = server().await else { return };
    let users = unique("users");
    let name = below_zone(users.as_str());
    let changes = vec![a(&name, [10, 0, 0, 1]), a(&name, [10, 0, 0, 2])];
    update(server, changes).await;
    let mut config = quick(server, DnsConfig::addresses(below_zone("{service}"), 8080));
    config.ip = IpFamilies::V4;
    config.services = vec![users.clone(), unique("nobody")];
    let dns = DnsRegistry::new(&config).unwrap();
    let found = dns.resolve(&users).await.unwrap().instances;
    let shown: Vec<String> = found
        .iter()
        .map(trunkline_discovery::ServiceInstance::base_url)
        .collect();
    assert_eq!(shown, ["http://10.0.0.1:8080", "http://10.0.0.2:8080"]);
    assert_eq!(found[0].metadata["dns.name"], name);
    assert_eq!(dns.services().await.unwrap(), [users]);
}

#[tokio::test]
async fn weights_and_priorities_count_and_the_root_says_that_there_is_none() {
    let Some(server) = server().await else { return };
    let users = unique("users");
    let (name, one, two) = (srv_name(&users), unique("one"), unique("two"));
    let (one, two) = (below_zone(one.as_str()), below_zone(two.as_str()));
    let record = |data: Data| Change::Add(name.clone(), 1, data);
    let changes = vec![
        a(&one, [10, 0, 0, 1]),
        a(&two, [10, 0, 0, 2]),
        record(srv(1, 5, 80, &one)),
        record(srv(1, 0, 81, &one)),
        record(srv(2, 7, 80, &two)),
        // A target that is nowhere takes nobody out.
        record(srv(0, 9, 80, &below_zone("nowhere"))),
    ];
    update(server, changes).await;
    let dns = registry(server);
    let found = dns.resolve(&users).await.unwrap().instances;
    let shown = found
        .iter()
        .map(|it| (it.authority(), it.weight, it.priority()));
    let shown: Vec<(String, u32, u32)> = shown.collect();
    let wanted = [
        ("10.0.0.1:80", 5, 1),
        ("10.0.0.1:81", 1, 1),
        ("10.0.0.2:80", 7, 2),
    ];
    let wanted: Vec<_> = wanted
        .map(|(place, weight, priority)| (place.to_owned(), weight, priority))
        .into();
    assert_eq!(shown, wanted);
    // The one behind is called when those before it cannot be reached.
    let instances = trunkline_discovery::Instances::fixed(users.clone(), found);
    let mut called = Vec::new();
    for _ in 0..3 {
        let request = trunkline_discovery::PickRequest::excluding(&called);
        let instance = std::sync::Arc::clone(instances.pick(&request).unwrap().instance());
        called.push(instance);
    }
    assert_eq!(called[2].authority(), "10.0.0.2:80");
    let none = vec![Change::Clear(name.clone()), record(srv(0, 0, 0, ""))];
    update(server, none).await;
    assert!(dns.resolve(&users).await.unwrap().instances.is_empty());
}

#[tokio::test]
async fn who_refuses_does_not_say_that_there_is_nobody() {
    let Some(server) = server().await else { return };
    let config = quick(
        server,
        DnsConfig::srv("_http._tcp.{service}.not-served.example"),
    );
    let dns = DnsRegistry::new(&config).unwrap();
    let users = unique("users");
    let refused = dns.resolve(&users).await.unwrap_err();
    assert_eq!(
        refused.kind(),
        ErrorKind::Unavailable,
        "{}",
        refused.report()
    );
    assert!(
        refused.message().contains("not-served.example"),
        "{refused}"
    );
    let mut watch = dns.watch(&users).await.unwrap();
    assert!(watch.next().await.unwrap().is_err());
    assert!(dns.health_check().await.is_err());
    registry(server).health_check().await.unwrap();
}

#[tokio::test]
async fn names_that_cannot_be_are_refused() {
    let Some(server) = server().await else { return };
    let long = ServiceName::new("a".repeat(70)).unwrap();
    let error = registry(server).resolve(&long).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn the_url_of_the_configuration_does() {
    let Some(server) = server().await else { return };
    let users = unique("users");
    let name = below_zone(&format!("_{users}._tcp"));
    let host = below_zone(unique("host").as_str());
    let record = Change::Add(name, 1, srv(0, 1, 9000, &host));
    update(server, vec![a(&host, [10, 0, 0, 7]), record]).await;
    let url = format!("dns://{server}/{ZONE}");
    let neutral = ServiceDiscoveryConfig::from_url(&url).unwrap();
    let dns = DnsRegistry::new(&DnsConfig::from_neutral(&neutral).unwrap()).unwrap();
    let found = dns.resolve(&users).await.unwrap().instances;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].authority(), "10.0.0.7:9000");
}
