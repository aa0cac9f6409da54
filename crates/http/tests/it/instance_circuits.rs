//! `circuit_breaker.per: instance`: each instance has a circuit of its own, and calls pass over those that are open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_discovery::{
    BalanceStrategy, Discovery, EjectionConfig, Instances, LoadBalancerConfig, MemoryRegistry,
    Registry, ServiceDiscoveryConfig, ServiceName,
};
use trunkline_http::{ClientBuilder, EnhancedHttpClient, HttpClientConfig};
use trunkline_resilience::CircuitOpen;
use trunkline_resilience::breaker::{CircuitPer, State};
use trunkline_telemetry::{Format, Metrics};

use crate::rig::{SOON, Server, eventually, in_time, instance, status, text};

const LONG: Duration = Duration::from_secs(600);

/// Only the circuits decide.
fn balance(strategy: BalanceStrategy) -> LoadBalancerConfig {
    let mut ejection = EjectionConfig::default();
    ejection.enabled = false;
    LoadBalancerConfig::new(strategy).with_ejection(ejection)
}

fn instances(servers: &[&Server], strategy: BalanceStrategy) -> Instances {
    let list = servers.iter().map(|server| instance("users", server));
    let name = ServiceName::new("users").unwrap();
    Instances::fixed_with(name, list.collect(), &balance(strategy))
}

/// Two failures open a circuit, one success closes it.
fn builder(recovery: Duration) -> ClientBuilder<EnhancedHttpClient> {
    let mut config = HttpClientConfig::default();
    config.retry.enabled = Some(false);
    config.circuit_breaker.per = Some(CircuitPer::Instance);
    config.circuit_breaker.failure_threshold = Some(2);
    config.circuit_breaker.success_threshold = Some(1);
    config.circuit_breaker.recovery_timeout = Some(recovery);
    EnhancedHttpClient::builder().config(config)
}

/// Every instance that has a circuit, and how that is.
fn circuits(client: &EnhancedHttpClient) -> Vec<(String, State)> {
    let states = client.circuit_states().into_iter();
    let instance = |target: trunkline_resilience::Target| target.instance.unwrap().to_string();
    states
        .map(|it| (instance(it.target), it.circuit.state))
        .collect()
}

fn state_at(client: &EnhancedHttpClient, server: &Server) -> Option<State> {
    let address = server.address.to_string();
    let known = circuits(client).into_iter();
    known.filter(|it| it.0 == address).map(|it| it.1).next()
}

#[tokio::test]
async fn an_instance_whose_circuit_is_open_is_passed_over() {
    for strategy in [
        BalanceStrategy::RoundRobin,
        BalanceStrategy::Random,
        BalanceStrategy::ConsistentHash,
    ] {
        let bad = Server::start(|_| async { status(500) }).await;
        let servers = [
            Server::start(|_| async { text("1") }).await,
            Server::start(|_| async { text("2") }).await,
        ];
        let all = [&bad, &servers[0], &servers[1]];
        let client = builder(LONG).instances(instances(&all, strategy));
        let client = client.build().unwrap();
        let mut failed = 0;
        for user in 0..90 {
            let call = client.get("/").affinity(format!("user-{user}"));
            failed += usize::from(call.send().await.unwrap().status() == 500);
        }
        assert_eq!(failed, 2, "{strategy:?}");
        assert_eq!(bad.count.requests(), 2);
        assert_eq!(state_at(&client, &bad), Some(State::Open));
        for server in &servers {
            assert_eq!(state_at(&client, server), Some(State::Closed));
            assert!(server.count.requests() > 0);
        }
        assert_eq!(circuits(&client).len(), 3, "there is none beside them");
    }
}

#[tokio::test]
async fn the_one_that_was_tried_is_asked_again_rather_than_one_whose_circuit_is_open() {
    let open = Server::start(|_| async { status(500) }).await;
    let fails_once = AtomicBool::new(false);
    let fails_once = Arc::new(fails_once);
    let fails = Arc::clone(&fails_once);
    let good = Server::start(move |_| {
        let failed = fails.swap(false, Ordering::SeqCst);
        async move { if failed { status(503) } else { text("hello") } }
    })
    .await;
    let client = builder(LONG)
        .instances(instances(&[&open, &good], BalanceStrategy::RoundRobin))
        .retry_enabled(true)
        .build()
        .unwrap();
    while state_at(&client, &open) != Some(State::Open) {
        client.get("/").await.unwrap();
    }
    let before = open.count.requests();
    for _ in 0..10 {
        fails_once.store(true, Ordering::SeqCst);
        assert_eq!(client.get("/").await.unwrap().status(), 200);
    }
    assert_eq!(open.count.requests(), before);
}

#[tokio::test]
async fn where_all_circuits_are_open_the_call_is_refused_here() {
    let servers = [
        Server::start(|_| async { status(500) }).await,
        Server::start(|_| async { status(500) }).await,
    ];
    let metrics = Metrics::new();
    let all = [&servers[0], &servers[1]];
    let client = builder(LONG)
        .instances(instances(&all, BalanceStrategy::RoundRobin))
        .metrics(&metrics)
        .build()
        .unwrap();
    for _ in 0..4 {
        assert_eq!(client.get("/").await.unwrap().status(), 500);
    }
    for _ in 0..3 {
        let error = client.get("/").await.unwrap_err();
        let open = error.error().unwrap().find::<CircuitOpen>().unwrap();
        assert_eq!((&*open.service, &open.instance), ("users", &None));
        assert!(open.retry_after > Duration::ZERO);
    }
    assert_eq!(servers[0].count.requests() + servers[1].count.requests(), 4);
    let shown = metrics.render(Format::Prometheus).unwrap();
    assert!(shown.contains(r#"reason="circuit_open"} 3"#), "{shown}");
    assert!(shown.contains(r#"state="open"} 2"#), "{shown}");
}

#[tokio::test]
async fn a_probe_goes_to_the_instance_itself_and_closes_its_circuit() {
    let well = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&well);
    let sick = Server::start(move |_| {
        let well = mended.load(Ordering::SeqCst);
        async move { if well { text("hello") } else { status(500) } }
    })
    .await;
    let good = Server::start(|_| async { text("hello") }).await;
    let client = builder(Duration::from_millis(20))
        .instances(instances(&[&sick, &good], BalanceStrategy::RoundRobin))
        .build()
        .unwrap();
    while state_at(&client, &sick) != Some(State::Open) {
        client.get("/").await.unwrap();
    }
    well.store(true, Ordering::SeqCst);
    let before = sick.count.requests();
    let until = Instant::now() + SOON;
    while state_at(&client, &sick) != Some(State::Closed) {
        assert!(Instant::now() < until, "it never closes");
        assert_eq!(client.get("/").await.unwrap().status(), 200);
    }
    assert!(sick.count.requests() > before);
    assert_eq!(state_at(&client, &good), Some(State::Closed));
}

#[tokio::test]
async fn one_address_has_one_circuit() {
    let server = Server::start(|_| async { status(500) }).await;
    let mut config = HttpClientConfig::new(server.url());
    config.retry.enabled = Some(false);
    config.circuit_breaker.per = Some(CircuitPer::Instance);
    config.circuit_breaker.failure_threshold = Some(2);
    let client = EnhancedHttpClient::builder()
        .config(config)
        .build()
        .unwrap();
    for _ in 0..2 {
        assert_eq!(client.get("/").await.unwrap().status(), 500);
    }
    let error = client.get("/").await.unwrap_err();
    assert!(
        error.error().unwrap().find::<CircuitOpen>().is_some(),
        "{error}"
    );
    assert_eq!(server.count.requests(), 2);
    assert_eq!(state_at(&client, &server), Some(State::Open));
}

#[tokio::test]
async fn the_circuits_of_who_left_are_forgotten() {
    let leaves = Server::start(|_| async { status(500) }).await;
    let stays = Server::start(|_| async { text("hello") }).await;
    let registry = MemoryRegistry::new();
    let lease = registry.register(instance("users", &leaves), LONG).await;
    let lease = lease.unwrap();
    registry
        .register(instance("users", &stays), LONG)
        .await
        .unwrap();
    let config = ServiceDiscoveryConfig::default().with_strategy(BalanceStrategy::RoundRobin);
    let discovery = Discovery::builder()
        .registry(registry.clone())
        .resolver(registry.clone())
        .config(&config)
        .build();
    let client = builder(LONG).service("users").discovery(&discovery);
    let client = client.build().unwrap();
    while state_at(&client, &leaves) != Some(State::Open) {
        in_time(client.get("/").send()).await.unwrap();
    }
    registry.deregister(&lease).await.unwrap();
    eventually("it is forgotten", || state_at(&client, &leaves).is_none()).await;
    in_time(client.get("/").send()).await.unwrap();
    assert_eq!(circuits(&client).len(), 1);

    // Whoever comes to the same address begins anew.
    registry
        .register(instance("users", &leaves), LONG)
        .await
        .unwrap();
    let before = leaves.count.requests();
    let until = Instant::now() + SOON;
    while leaves.count.requests() == before {
        assert!(Instant::now() < until, "it is not asked");
        in_time(client.get("/").send()).await.unwrap();
    }
    discovery.shutdown(Instant::now() + SOON).await.unwrap();
}
