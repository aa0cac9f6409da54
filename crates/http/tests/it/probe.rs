//! Health checks over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use trunkline_core::{ErrorKind, Origin};
use trunkline_discovery::{
    Discovery, MemoryRegistry, Probe, Registry, ServiceInstance, ServiceName,
};
use trunkline_http::{EnhancedHttpClient, HttpProbe};

use crate::rig::{Server, eventually, status, text, transport};

#[tokio::test]
async fn an_instance_is_well_when_it_says_so() {
    let server = Server::start(async |request: Request<Incoming>| {
        assert_eq!(request.method(), http::Method::GET);
        match request.uri().path() {
            "/health" => text("fine"),
            "/moved" => status(302),
            "/ill" => status(503),
            _ => status(404),
        }
    })
    .await;
    let probe = HttpProbe::new(transport());
    let ask = async |path: &str| {
        let name = ServiceName::new("users").unwrap();
        let mut instance = ServiceInstance::new(name, "127.0.0.1", server.address.port());
        instance.health_check_path = path.to_owned();
        let asked = probe.probe(&instance).await;
        asked.map_err(|error| (error.kind(), error.origin()))
    };
    assert_eq!(ask("/health").await, Ok(()));
    assert_eq!(ask("/moved").await, Ok(()));
    assert_eq!(
        ask("/ill").await,
        Err((ErrorKind::Unavailable, Origin::Remote))
    );
    assert_eq!(
        ask("/missing").await,
        Err((ErrorKind::NotFound, Origin::Remote))
    );
    assert_eq!(
        ask("no path").await,
        Err((ErrorKind::Invalid, Origin::Local))
    );
    assert_eq!(server.count.total(), 1, "checks reuse their connection");
    server.stop().await;
    let refused = Err((ErrorKind::Unavailable, Origin::Remote));
    assert_eq!(ask("/health").await, refused, "nobody listens there");
}

#[tokio::test]
async fn one_failed_call_is_enough_where_the_instance_says_that_it_is_not_well() {
    let ill = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ill);
    let bad = Server::start(move |_| {
        let ill = told.load(Ordering::SeqCst);
        async move { if ill { status(500) } else { text("hello") } }
    })
    .await;
    let good = Server::start(|_| async { text("hello") }).await;
    let registry = MemoryRegistry::new();
    let name = ServiceName::new("users").unwrap();
    for server in [&bad, &good] {
        let instance = ServiceInstance::new(name.clone(), "127.0.0.1", server.address.port());
        registry
            .register(instance, Duration::from_secs(600))
            .await
            .unwrap();
    }
    let discovery = Discovery::builder()
        .resolver(registry.clone())
        .probe(HttpProbe::new(transport()))
        .build();
    let users = discovery.instances(&name);
    let client = EnhancedHttpClient::builder()
        .instances(users.clone())
        .retry_enabled(false)
        .build()
        .unwrap();
    let health = || users.health().instances;
    eventually("both were checked", || {
        health().len() == 2 && health().iter().all(|it| it.check.is_some())
    })
    .await;
    ill.store(true, Ordering::SeqCst);
    while client.get("/").await.unwrap().status() == 200 {}
    // The next checks are due in half a minute.
    eventually("it gets no more requests", || {
        users.snapshot().in_rotation().count() == 1
    })
    .await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().status(), 200);
    }
}
