//! Which instances of other services a manager calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};
use trunkline_core::task;
use trunkline_discovery::{
    Discovery, HealthCheckConfig, Registry as _, Resolver as _, ServiceConfig,
    ServiceDiscoveryConfig, ServiceInstance, ServiceName,
};
use trunkline_manager::backends::open_discovery;
use trunkline_manager::{CommunicationManager, ConfigBuilder};

use crate::scripted::config;

const PATIENCE: Duration = Duration::from_secs(20);

fn users() -> ServiceName {
    ServiceName::new("users").unwrap()
}

/// An instance whose requests work, and whose health path answers 500 while it is told to.
async fn instance(id: &str) -> (ServiceInstance, Arc<AtomicBool>) {
    let ill = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ill);
    let name = id.to_owned();
    let health = get(async move || match told.load(Ordering::SeqCst) {
        true => StatusCode::INTERNAL_SERVER_ERROR,
        false => StatusCode::OK,
    });
    let who = get(async move || name.clone());
    let router = Router::new().route("/health", health).route("/who", who);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    task::spawn("instance", axum::serve(listener, router).into_future());
    let instance = ServiceInstance::new(users(), address.ip().to_string(), address.port());
    (instance.with_id(id), ill)
}

async fn running(config: ConfigBuilder) -> CommunicationManager {
    let manager = CommunicationManager::new(config.build().unwrap());
    manager.initialize().await.unwrap();
    manager
}

fn in_rotation(discovery: &Discovery) -> Vec<String> {
    let set = discovery.instances(&users()).snapshot();
    set.in_rotation().map(|it| it.id.clone()).collect()
}

/// Waits until these and no others get requests.
async fn until(discovery: &Discovery, wanted: &[&str]) {
    let began = Instant::now();
    while in_rotation(discovery) != wanted {
        let now = in_rotation(discovery);
        assert!(began.elapsed() < PATIENCE, "{now:?} instead of {wanted:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn dsc8_an_instance_that_fails_its_checks_is_not_called_until_it_passes_one() {
    let check = HealthCheckConfig::default()
        .with_interval(Duration::from_millis(20))
        .with_failure_threshold(2);
    let discovery = ServiceDiscoveryConfig::new("memory").with_health_check(check);
    let manager = running(config().service_discovery(discovery)).await;
    let found = manager.service_discovery().unwrap();
    let (a, ill) = instance("a").await;
    let (b, _) = instance("b").await;
    let registered = [a, b].map(|instance| found.register(instance).unwrap());
    let client = manager.http_client("users").unwrap();
    until(&found, &["a", "b"]).await;
    ill.store(true, Ordering::SeqCst);
    until(&found, &["b"]).await;
    for _ in 0..20 {
        let answer = client.get("/who").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "b");
    }
    ill.store(false, Ordering::SeqCst);
    until(&found, &["a", "b"]).await;
    drop(registered);
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn dsc8_a_configured_host_without_a_health_path_is_left_alone() {
    let (asked, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let everything = Router::new().fallback(async move |uri: http::Uri| {
        asked.send(uri.path().to_owned()).unwrap();
        StatusCode::OK
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    task::spawn("instance", axum::serve(listener, everything).into_future());
    let check = HealthCheckConfig::default().with_interval(Duration::from_millis(1));
    let mut checked = ServiceConfig::at("127.0.0.1", port);
    checked.health_check_path = Some("/ready".to_owned());
    let settings = config()
        .service_discovery(ServiceDiscoveryConfig::static_only().with_health_check(check))
        .service("users", ServiceConfig::at("127.0.0.1", port))
        .service("stock", checked);
    let manager = running(settings).await;
    for service in ["users", "stock"] {
        let client = manager.http_client(service).unwrap();
        client.get("/call").send().await.unwrap();
    }
    let mut ready = 0;
    while ready < 20 {
        let path = requests.recv().await.unwrap();
        assert_ne!(path, "/health", "nobody said that there is such a path");
        ready += usize::from(path == "/ready");
    }
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_service_that_nobody_calls_any_more_is_not_watched_and_the_next_call_finds_who_is_there()
{
    let mut discovery = ServiceDiscoveryConfig::new("memory");
    discovery.cache.idle_expiry = Duration::from_millis(20);
    let manager = running(config().service_discovery(discovery)).await;
    let found = manager.service_discovery().unwrap();
    let (old, _) = instance("old").await;
    let (new, _) = instance("new").await;
    let old = found.register(old).unwrap();
    let client = manager.http_client("users").unwrap();
    let who = async || client.get("/who").send().await.unwrap().text().await;
    assert_eq!(who().await.unwrap(), "old");
    let mut looking = found.instances(&users()).onlooker();
    let asleep = async {
        // What is known is stale: nobody watches it.
        while !looking.next().await.unwrap().is_stale() {}
    };
    timeout(PATIENCE, asleep).await.expect("it is watched");
    let new = found.register(new).unwrap();
    new.registered(Instant::now() + PATIENCE).await.unwrap();
    old.deregister(Instant::now() + PATIENCE).await.unwrap();
    assert_eq!(who().await.unwrap(), "new");
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn dsc9_instances_of_the_own_zone_are_called_while_there_are_any() {
    let mut built = config().build().unwrap();
    built.service.zone = Some("eu-1".to_owned());
    let manager = CommunicationManager::new(built);
    manager.initialize().await.unwrap();
    let found = manager.service_discovery().unwrap();
    let of = async |id: &str, zone: &str| {
        let (instance, _) = instance(id).await;
        found.register(instance.with_zone(zone)).unwrap()
    };
    let near = of("near", "eu-1").await;
    let _far = of("far", "us-1").await;
    until(&found, &["near"]).await;
    near.deregister(Instant::now() + PATIENCE).await.unwrap();
    until(&found, &["far"]).await;
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn dsc2_static_discovery_is_the_configuration_and_what_this_process_announces() {
    let (registry, resolver) = open_discovery(&ServiceDiscoveryConfig::static_only()).unwrap();
    assert_eq!((registry.kind(), resolver.kind()), ("static", "static"));
    let settings = || {
        config()
            .service_discovery(ServiceDiscoveryConfig::static_only())
            .service("payments", ServiceConfig::at("payments.test", 8080))
    };
    let (one, other) = (running(settings()).await, running(settings()).await);
    let payments = ServiceName::new("payments").unwrap();
    let found = one.service_discovery().unwrap();
    let known = found.discover_services(&payments).await.unwrap();
    assert_eq!(known[0].authority(), "payments.test:8080");
    let own = found
        .register(ServiceInstance::new(users(), "127.0.0.1", 1))
        .unwrap();
    own.registered(Instant::now() + PATIENCE).await.unwrap();
    assert_eq!(found.services().await.unwrap(), [payments.clone(), users()]);
    let elsewhere = other.service_discovery().unwrap();
    assert_eq!(elsewhere.services().await.unwrap(), [payments]);
    one.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
}
