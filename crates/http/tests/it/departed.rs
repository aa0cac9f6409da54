//! Connections to instances that leave are closed; what is under way there ends first.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::time::Instant;
use trunkline_discovery::{
    BalanceStrategy, Discovery, MemoryRegistry, Registry, ServiceDiscoveryConfig,
};
use trunkline_http::EnhancedHttpClient;

use crate::rig::{SOON, Server, eventually, in_time, instance, spawn, text};

#[tokio::test]
async fn idle_connections_to_who_left_are_closed_and_requests_in_flight_finish() {
    let finish = Arc::new(Notify::new());
    let start = async || {
        let finish = Arc::clone(&finish);
        Server::start(move |request: Request<Incoming>| {
            let finish = Arc::clone(&finish);
            async move {
                if request.uri().path() == "/slow" {
                    finish.notified().await;
                }
                text("done")
            }
        })
        .await
    };
    let (leaves, stays) = (start().await, start().await);
    let registry = MemoryRegistry::new();
    let ttl = Duration::from_secs(600);
    let lease = registry.register(instance("users", &leaves), ttl).await;
    let lease = lease.unwrap();
    let config = ServiceDiscoveryConfig::default().with_strategy(BalanceStrategy::RoundRobin);
    let discovery = Discovery::builder()
        .registry(registry.clone())
        .resolver(registry.clone())
        .config(&config)
        .build();
    let client = EnhancedHttpClient::builder()
        .service("users")
        .discovery(&discovery)
        .build()
        .unwrap();
    let call = |path: &'static str| {
        let client = client.clone();
        spawn(async move { client.get(path).send().await?.text().await })
    };

    // One that is under way, and one that has no request any more.
    let slow = call("/slow");
    eventually("it is asked", || leaves.count.requests() == 1).await;
    in_time(call("/")).await.unwrap().unwrap();
    assert_eq!(leaves.count.open(), 2);

    registry
        .register(instance("users", &stays), ttl)
        .await
        .unwrap();
    registry.deregister(&lease).await.unwrap();
    eventually("only what is in use is open", || leaves.count.open() == 1).await;
    finish.notify_one();
    assert_eq!(in_time(slow).await.unwrap().unwrap(), "done");
    eventually("nothing is open", || leaves.count.open() == 0).await;

    in_time(call("/")).await.unwrap().unwrap();
    in_time(call("/")).await.unwrap().unwrap();
    assert_eq!(stays.count.open(), 1, "others keep theirs");
    discovery.shutdown(Instant::now() + SOON).await.unwrap();
}
