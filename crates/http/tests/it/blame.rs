//! Which instance is blamed for what, and which is not.

use std::time::Duration;

use futures_util::future::pending;
use trunkline_core::Context;
use trunkline_discovery::{
    BalanceStrategy, EjectionConfig, Instances, LoadBalancerConfig, ServiceName,
};
use trunkline_http::{EnhancedHttpClient, HttpClientConfig};
use trunkline_telemetry::{Format, Metrics};

use crate::rig::{Server, in_time, instance, status, text};

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
