//! Checks of single endpoints stand beside those of the health path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_core::{Error, Result};
use trunkline_discovery::{
    Discovery, EndpointCheck, HealthCheckConfig, Instances, PickRequest, Probe, ServiceInstance,
};

use crate::balance::{instance, name};
use crate::scripted::Scripted;

/// Fails at the instance `a` while told to.
#[derive(Clone, Default)]
struct AtA {
    ill: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl AtA {
    fn set_ill(&self, ill: bool) {
        self.ill.store(ill, Ordering::Relaxed);
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Probe for AtA {
    async fn probe(&self, instance: &ServiceInstance) -> Result<()> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match instance.id == "a" && self.ill.load(Ordering::Relaxed) {
            true => Err(Error::unavailable("503")),
            false => Ok(()),
        }
    }
}

fn every(seconds: u64) -> HealthCheckConfig {
    HealthCheckConfig::default()
        .with_interval(Duration::from_secs(seconds))
        .with_failure_threshold(2)
}

fn check(probe: &AtA) -> EndpointCheck {
    EndpointCheck::new("GET /search", probe.clone(), every(10))
}

async fn discovery(health_path: &AtA) -> Discovery {
    let registry = Scripted::with(["a", "b"].map(instance).into());
    let discovery = Discovery::builder()
        .resolver(registry)
        .probe(health_path.clone())
        .health_check(every(10))
        .build();
    discovery.discover_services(&name()).await.unwrap();
    discovery
}

fn in_rotation(instances: &Instances) -> Vec<String> {
    let set = instances.snapshot();
    set.in_rotation().map(|it| it.id.clone()).collect()
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_instance_is_out_while_any_of_its_checks_fails() {
    let (health_path, endpoint) = (AtA::default(), AtA::default());
    let discovery = discovery(&health_path).await;
    let instances = discovery.instances(&name());
    instances.check_endpoint(&check(&endpoint)).unwrap();
    sleep(LONG).await;
    assert_eq!(in_rotation(&instances), ["a", "b"]);
    for (at_endpoint, at_health_path, left) in [
        (true, false, 1),
        (true, true, 1),
        (false, true, 1),
        (true, true, 1),
        (true, false, 1),
        (false, false, 2),
    ] {
        endpoint.set_ill(at_endpoint);
        health_path.set_ill(at_health_path);
        sleep(LONG).await;
        assert_eq!(
            in_rotation(&instances).len(),
            left,
            "{at_endpoint} {at_health_path}"
        );
        let health = discovery.service_health(&name()).await.unwrap();
        let a = &health.instances[0];
        assert_eq!(a.endpoints["GET /search"].error.is_some(), at_endpoint);
        assert_eq!(a.check.as_ref().unwrap().error.is_some(), at_health_path);
        assert_eq!(a.healthy, left == 2);
    }
}

#[tokio::test(start_paused = true)]
async fn it_runs_once_and_with_the_settings_given_last() {
    let endpoint = AtA::default();
    let discovery = discovery(&AtA::default()).await;
    let instances = discovery.instances(&name());
    for _ in 0..3 {
        instances.check_endpoint(&check(&endpoint)).unwrap();
    }
    sleep(Duration::from_secs(101)).await;
    // Two instances every ten seconds, give or take the spread between checks.
    assert!(
        (14..=24).contains(&endpoint.asked()),
        "{}",
        endpoint.asked()
    );
    let faster = EndpointCheck::new("GET /search", endpoint.clone(), every(1));
    instances.check_endpoint(&faster).unwrap();
    let before = endpoint.asked();
    sleep(Duration::from_secs(100)).await;
    assert!(endpoint.asked() - before > 150);
    let mut off = every(1);
    off.enabled = false;
    let other = EndpointCheck::new("GET /other", endpoint.clone(), off);
    instances.check_endpoint(&other).unwrap();
    let health = instances.health();
    assert_eq!(health.instances[0].endpoints.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn asked_now_a_service_has_to_answer_at_its_endpoints_too() {
    let registry = Scripted::with(vec![instance("a")]);
    let discovery = Discovery::builder().resolver(registry).build();
    let endpoint = AtA::default();
    let instances = discovery.instances(&name());
    instances.check_endpoint(&check(&endpoint)).unwrap();
    assert!(discovery.health_check_service(&name()).await.unwrap());
    endpoint.set_ill(true);
    assert!(!discovery.health_check_service(&name()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn instances_that_are_known_are_checked_and_still_picked_when_all_fail() {
    let endpoint = AtA::default();
    endpoint.set_ill(true);
    let instances = Instances::fixed(name(), vec![instance("a")]);
    instances.check_endpoint(&check(&endpoint)).unwrap();
    sleep(LONG).await;
    assert!(!instances.health().is_healthy());
    let picked = instances.pick(&PickRequest::any()).unwrap();
    assert_eq!(picked.instance().id, "a");
    drop((picked, instances));
    sleep(LONG).await;
    let before = endpoint.asked();
    sleep(LONG).await;
    assert_eq!(endpoint.asked(), before, "nobody is left to know of it");
}

#[tokio::test(start_paused = true)]
async fn they_end_with_discovery_and_keep_a_service_awake_until_then() {
    let endpoint = AtA::default();
    let discovery = discovery(&AtA::default()).await;
    let instances = discovery.instances(&name());
    instances.check_endpoint(&check(&endpoint)).unwrap();
    drop(instances);
    let day = Duration::from_secs(24 * 3600);
    sleep(day).await;
    let before = endpoint.asked();
    sleep(LONG).await;
    assert!(endpoint.asked() > before, "nobody else uses the service");
    let soon = Instant::now() + Duration::from_secs(1);
    discovery.shutdown(soon).await.unwrap();
    let before = endpoint.asked();
    sleep(LONG).await;
    assert_eq!(endpoint.asked(), before);
}

#[tokio::test(start_paused = true)]
async fn there_is_an_end_to_their_number() {
    let instances = Instances::fixed(name(), vec![instance("a")]);
    let endpoint = AtA::default();
    let each = |number| EndpointCheck::new(format!("GET /{number}"), endpoint.clone(), every(10));
    for number in 0..63 {
        instances.check_endpoint(&each(number)).unwrap();
    }
    let error = instances.check_endpoint(&each(63)).unwrap_err();
    assert!(error.to_string().contains("GET /63"), "{error}");
    instances.check_endpoint(&each(62)).unwrap();
}
