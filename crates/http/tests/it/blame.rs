//! Which instance is blamed for what, and which is not.

use std::time::Duration;

use futures_util::future::pending;
use trunkline_core::Context;
use trunkline_discovery::{
    BalanceStrategy, EjectionConfig, Instances, LoadBalancerConfig, ServiceName,
};
use trunkline_http::{EnhancedHttpClient, HttpClientConfig};
use trunkline_telemetry::{Format, Metrics};

use trunkline_resilience::breaker::State;

use crate::rig::{Raw, Server, eventually, in_time, instance, spawn, status, text};

/// One failure is enough to leave the rotation.
fn strict(servers: &[&Server]) -> Instances {
    let ejection = EjectionConfig::default()
        .with_consecutive_failures(1)
        .with_max_percent(50);
    let balance = LoadBalancerConfig::new(BalanceStrategy::RoundRobin).with_ejection(ejection);
    let list = servers.iter().map(|server| instance("users", server));
    Instances::fixed_with(ServiceName::new("users").unwrap(), list.collect(), &balance)
}

fn client(instances: &Instances, metrics: &Metrics) -> EnhancedHttpClient {
    let mut config = HttpClientConfig::default();
    config.request_timeout = Some(Duration::from_secs(1));
    config.retry.delay = Some(Duration::from_millis(1));
    EnhancedHttpClient::builder()
        .config(config)
        .instances(instances.clone())
        .metrics(metrics)
        .build()
        .unwrap()
}

fn in_rotation(instances: &Instances) -> Vec<u16> {
    let snapshot = instances.snapshot();
    snapshot.in_rotation().map(|one| one.port).collect()
}

#[tokio::test]
async fn an_instance_that_lets_an_attempt_run_out_of_time_is_left_and_ejected() {
    let hung = Server::start(|_| pending()).await;
    let good = Server::start(|_| async { text("hello") }).await;
    let (instances, metrics) = (strict(&[&hung, &good]), Metrics::new());
    metrics.set_detailed(true);
    let client = client(&instances, &metrics);
    for _ in 0..4 {
        let answer = in_time(client.get("/").send()).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(hung.count.requests(), 1);
    assert_eq!(in_rotation(&instances), [good.address.port()]);
    let text = metrics.render(Format::Prometheus).unwrap();
    let failed = format!(
        r#"instance="127.0.0.1:{}",outcome="failure"}} 1"#,
        hung.address.port()
    );
    assert!(text.contains(&failed), "{failed} is not in\n{text}");
}

#[tokio::test]
async fn callers_in_a_hurry_take_no_instance_from_the_others() {
    let slow = Server::start(|_| async { status(504) }).await;
    let slower = Server::start(|_| async { status(504) }).await;
    let (instances, metrics) = (strict(&[&slow, &slower]), Metrics::new());
    let client = client(&instances, &metrics);
    let hurry = Context::new().with_timeout(Duration::from_millis(400));
    drop(hurry.scope(in_time(client.get("/").send())).await);
    assert_eq!(in_rotation(&instances).len(), 2);
    drop(in_time(client.get("/").send()).await);
    assert_eq!(in_rotation(&instances).len(), 1);
}

/// Many requests are under way at one instance when it dies.
async fn dies_under_load(others: &[&Server]) -> (EnhancedHttpClient, usize) {
    const MANY: usize = 12;
    let dying = Server::start(|_| pending()).await;
    let mut servers = vec![&dying];
    servers.extend(others);
    let list = servers.iter().map(|server| instance("users", server));
    let balance = LoadBalancerConfig::new(BalanceStrategy::RoundRobin);
    let name = ServiceName::new("users").unwrap();
    let instances = Instances::fixed_with(name, list.collect(), &balance);
    let client = EnhancedHttpClient::builder()
        .instances(instances)
        .build()
        .unwrap();
    let calls: Vec<_> = (0..MANY * servers.len())
        .map(|_| {
            let client = client.clone();
            spawn(async move { client.post("/").send().await })
        })
        .collect();
    eventually("requests under way", || dying.count.requests() == MANY).await;
    dying.stop().await;
    let mut failed = 0;
    for call in calls {
        failed += usize::from(in_time(call).await.unwrap().is_err());
    }
    assert_eq!(failed, MANY, "what was there, and may have been processed");
    (client, failed)
}

#[tokio::test]
async fn requests_that_die_with_one_instance_do_not_open_the_circuit_of_all() {
    let good = Server::start(|_| async { text("hello") }).await;
    let (client, _) = dies_under_load(&[&good]).await;
    for _ in 0..4 {
        in_time(client.post("/").send()).await.unwrap();
    }
    assert_eq!(client.circuit_states()[0].circuit.state, State::Closed);
}

#[tokio::test]
async fn requests_that_die_with_the_only_instance_open_its_circuit() {
    let (client, failed) = dies_under_load(&[]).await;
    assert!(failed >= 5);
    let error = in_time(client.post("/").send()).await.unwrap_err();
    assert!(error.circuit_open().is_some(), "{error}");
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_opens_its_circuit() {
    let all = [
        Server::start(|_| async { text("hello") }).await,
        Server::start(|_| async { text("hello") }).await,
        Server::start(|_| async { text("hello") }).await,
    ];
    let list = all.iter().map(|server| instance("users", server));
    let name = ServiceName::new("users").unwrap();
    let client = EnhancedHttpClient::builder()
        .instances(Instances::fixed(name, list.collect()))
        .build()
        .unwrap();
    for server in &all {
        server.stop().await;
    }
    let mut refused = false;
    for _ in 0..20 {
        let error = in_time(client.post("/").send()).await.unwrap_err();
        refused |= error.circuit_open().is_some();
    }
    assert!(refused);
}

#[tokio::test]
async fn a_hung_instance_does_not_open_the_circuit_of_all() {
    let hung = Server::start(|_| pending()).await;
    let good = Server::start(|_| async { text("hello") }).await;
    let mut config = HttpClientConfig::default();
    config.request_timeout = Some(Duration::from_secs(2));
    let list = [&hung, &good].map(|server| instance("users", server));
    let balance = LoadBalancerConfig::new(BalanceStrategy::RoundRobin);
    let name = ServiceName::new("users").unwrap();
    let client = EnhancedHttpClient::builder()
        .config(config)
        .instances(Instances::fixed_with(name, list.to_vec(), &balance))
        .build()
        .unwrap();
    let calls: Vec<_> = (0..24)
        .map(|_| {
            let client = client.clone();
            spawn(async move { client.post("/").send().await })
        })
        .collect();
    let mut failed = 0;
    for call in calls {
        failed += usize::from(in_time(call).await.unwrap().is_err());
    }
    assert_eq!(failed, 12);
    in_time(client.post("/").send()).await.unwrap();
    assert_eq!(client.circuit_states()[0].circuit.state, State::Closed);
}

#[tokio::test]
async fn instances_that_all_break_off_open_the_circuit() {
    let broken = || {
        Server::scripted(async |_, mut raw: Raw| {
            raw.request().await;
            raw.reset();
        })
    };
    let all = [broken().await, broken().await, broken().await];
    let list = all.iter().map(|server| instance("users", server));
    let name = ServiceName::new("users").unwrap();
    let client = EnhancedHttpClient::builder()
        .instances(Instances::fixed(name, list.collect()))
        .build()
        .unwrap();
    let mut refused = false;
    for _ in 0..60 {
        let error = in_time(client.post("/").send()).await.unwrap_err();
        refused |= error.circuit_open().is_some();
    }
    assert!(refused);
}
