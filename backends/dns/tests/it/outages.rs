//! What happens to the server, and what comes of it.

use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};
use trunkline_core::{ErrorKind, Health, Status};
use trunkline_discovery::{Discovery, Instances, PickRequest, Registry, Resolver, ServiceName};
use trunkline_dns::DnsRegistry;
use trunkline_testing::resolver::{Editor, Place};
use trunkline_testing::servers::{self, KNOT, Server};

use crate::zone::{Zone, config, registry};

/// Longest that a test waits for something that must happen.
const SOON: Duration = Duration::from_secs(60);

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let look = async {
        while !is_so() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(SOON, look).await.is_ok(), "{what}");
}

async fn with(mut server: Server, work: impl FnOnce(&mut Server) + Send + 'static) -> Server {
    let worked = tokio::task::spawn_blocking(move || {
        work(&mut server);
        server
    });
    worked.await.unwrap()
}

fn places(instances: &Instances) -> Vec<String> {
    let set = instances.snapshot();
    set.instances().map(|it| it.authority()).collect()
}

#[tokio::test]
async fn what_was_known_is_used_while_the_server_is_killed_or_hangs() {
    let own = tokio::task::spawn_blocking(|| servers::own(&KNOT));
    let Some(mut server) = own.await.unwrap() else {
        return;
    };
    let users = ServiceName::new("users").unwrap();
    let zone = Zone(server.address());
    zone.write(&users, &[Place::number(1), Place::number(2)])
        .await;
    let mut settings = config(server.address());
    settings.request_timeout = Duration::from_secs(1);
    let dns = DnsRegistry::new(&settings).unwrap();
    let health = Health::default();
    let part = health.register("discovery", "discovery", "dns", true);
    let discovery = Discovery::builder()
        .resolver(dns.clone())
        .registry(dns.clone())
        .component(part.clone())
        .build();
    let found = discovery.instances(&users);
    found.ready(Instant::now() + SOON).await.unwrap();
    assert_eq!(places(&found), ["10.1.0.2:8000", "10.1.0.3:8000"]);

    for hangs in [false, true] {
        server = with(server, move |server| {
            if hangs {
                server.pause().unwrap();
            } else {
                server.kill().unwrap();
            }
        })
        .await;
        until("stale", || found.snapshot().is_stale()).await;
        assert_eq!(places(&found).len(), 2, "nobody is lost");
        assert!(found.pick(&PickRequest::any()).is_ok());
        assert_eq!(part.status().unwrap().status, Status::Degraded);
        server = with(server, move |server| {
            if hangs {
                server.resume().unwrap();
            } else {
                server.restart().unwrap();
            }
        })
        .await;
        until("fresh", || !found.snapshot().is_stale()).await;
    }
    zone.write(&users, &[Place::number(3)]).await;
    until("what is new is known", || {
        places(&found) == ["10.1.0.4:8000"]
    })
    .await;
    assert_eq!(part.status().unwrap().status, Status::Healthy);
    discovery.shutdown(Instant::now() + SOON).await.unwrap();
    dns.close();
    drop(server);
}

#[tokio::test]
async fn nobody_there_is_an_error_soon_and_not_an_empty_list() {
    // Bound, and never read from.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut settings = config(silent.local_addr().unwrap());
    settings.request_timeout = Duration::from_millis(300);
    let dns = DnsRegistry::new(&settings).unwrap();
    let users = ServiceName::new("users").unwrap();
    let asked = timeout(SOON, dns.resolve(&users)).await.unwrap();
    let kind = asked.unwrap_err().kind();
    assert!(
        matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable),
        "{kind}"
    );
    // Nobody listens there at all.
    let address = silent.local_addr().unwrap();
    drop(silent);
    let away = registry(address);
    let asked = timeout(SOON, away.health_check()).await.unwrap();
    assert!(asked.is_err());
    away.close();
    let closed = away.resolve(&users).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Cancelled);
}
