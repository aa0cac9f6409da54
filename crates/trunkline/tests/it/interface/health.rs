//! `health_check` at a method: an active check of its endpoint, past everything that stands in the way of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use trunkline::discovery::{Discovery, ServiceInstance, ServiceName};
use trunkline::http::{EnhancedHttpClient, ServiceError};
use trunkline::resilience::CircuitOpen;
use trunkline::server::Json;
use trunkline::service_interface;

use super::policy::manager;
use super::server::Server;

const SEARCH: &str = "GET /api/v1/orders/search";

#[service_interface("order-service", "/api/v1")]
trait Orders {
    #[get("/orders/search")]
    #[health_check(interval = "20ms", timeout = "5s", failure_threshold = 3)]
    #[circuit_breaker(failure_threshold = 1, recovery_timeout = "1h")]
    #[retry(enabled = false)]
    async fn search(
        &self,
        user_id: Option<u64>,
        #[query(default = 20)] limit: Option<u32>,
        #[header("X-Tenant", default = "all")] tenant: Option<&str>,
        tags: &[&str],
    ) -> Result<Vec<u64>, ServiceError>;

    #[get("/orders/{id}")]
    async fn order(&self, id: u64) -> Result<u64, ServiceError>;
}

/// Whether the search of a server works.
#[derive(Clone, Default)]
struct Ill(Arc<AtomicBool>);

impl Ill {
    fn set(&self, ill: bool) {
        self.0.store(ill, Ordering::Relaxed);
    }

    async fn server(&self) -> Server {
        let ill = Arc::clone(&self.0);
        Server::start(move |seen, _| {
            let search = seen.uri.contains("/search");
            match (search, search && ill.load(Ordering::Relaxed)) {
                (_, true) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                (true, false) => Json(vec![1]).into_response(),
                (false, false) => Json(7).into_response(),
            }
        })
        .await
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

fn checks(server: &Server) -> usize {
    let seen = server.seen();
    let by_check = seen
        .iter()
        .filter(|seen| seen.header("user-agent") == Some("trunkline-health-check"));
    by_check.count()
}

fn instance(server: &Server, name: &str) -> ServiceInstance {
    let port = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let service = ServiceName::new("order-service").unwrap();
    ServiceInstance::new(service, "127.0.0.1", port).with_id(name)
}

#[tokio::test]
async fn x_37_an_instance_whose_endpoint_fails_gets_no_calls_until_it_is_well() {
    let (ill, well) = (Ill::default(), Ill::default());
    let (one, other) = (ill.server().await, well.server().await);
    let discovery = Discovery::builder().build();
    for (server, name) in [(&one, "one"), (&other, "other")] {
        let instance = instance(server, name);
        discovery.register_external_service(instance).unwrap();
    }
    let client = EnhancedHttpClient::builder()
        .service("order-service")
        .discovery(&discovery);
    let orders = OrdersClient::new(client.build().unwrap());
    until("both are checked", || {
        checks(&one) > 3 && checks(&other) > 3
    })
    .await;
    let check = one.seen().remove(0);
    assert_eq!(check.line(), "GET /api/v1/orders/search?limit=20");
    assert_eq!(check.header("x-tenant"), Some("all"));
    let healthy = || -> Vec<bool> {
        let health = orders.service_health().unwrap();
        health.instances.iter().map(|it| it.healthy).collect()
    };
    assert_eq!(healthy(), [true, true]);

    ill.set(true);
    until("it is taken out", || healthy() == [false, true]).await;
    let all = discovery.all_service_health().await.unwrap();
    let of_orders = &all[&ServiceName::new("order-service").unwrap()];
    let said = &of_orders.instances[0].endpoints[SEARCH];
    // It says itself that it is not well: nothing has to be confirmed.
    assert!(said.failures >= 1, "{said:?}");
    assert!(said.error.as_deref().unwrap().contains("503"), "{said:?}");
    assert!(of_orders.is_healthy(), "another one is");
    let asked = |server: &Server| {
        let lines = server.lines();
        lines.iter().filter(|line| line.ends_with("/7")).count()
    };
    for _ in 0..20 {
        assert_eq!(orders.order(7).await.unwrap(), 7);
    }
    assert_eq!((asked(&one), asked(&other)), (0, 20));

    // With no other one left, all are used: checks alone never leave a service without instances.
    well.set(true);
    until("none is well", || healthy() == [false, false]).await;
    let name = ServiceName::new("order-service").unwrap();
    assert!(!discovery.health_check_service(&name).await.unwrap());
    assert_eq!(orders.order(7).await.unwrap(), 7);
    let circuits = orders.circuit_states();
    let failures = circuits.iter().map(|one| one.circuit.failure_count);
    assert_eq!(
        failures.sum::<u32>(),
        0,
        "checks are no calls: {circuits:?}"
    );

    ill.set(false);
    well.set(false);
    until("both are back", || healthy() == [true, true]).await;
}

#[tokio::test]
async fn x_37_neither_circuits_nor_calls_and_checks_stand_in_each_others_way() {
    let ill = Ill::default();
    ill.set(true);
    let server = ill.server().await;
    let orders = OrdersClient::new(server.client());
    let healthy = || orders.service_health().unwrap().is_healthy();
    until("it is found to be ill", || !healthy()).await;
    // Many failed checks later the circuit is closed, and calls go through.
    let error = orders.search(None, None, None, &[]).await.unwrap_err();
    assert_eq!(
        error.status_code(),
        Some(StatusCode::SERVICE_UNAVAILABLE),
        "{error}"
    );
    // That failure opens it, and checks go on.
    let error = orders.search(None, None, None, &[]).await.unwrap_err();
    let error = trunkline::Error::from(error);
    assert!(error.find::<CircuitOpen>().is_some(), "{error}");
    ill.set(false);
    until("it is found to be well", healthy).await;
    let error = trunkline::Error::from(orders.search(None, None, None, &[]).await.unwrap_err());
    assert!(error.find::<CircuitOpen>().is_some(), "{error}");
    assert_eq!(orders.order(7).await.unwrap(), 7);
    drop(orders);
}

#[tokio::test]
async fn x_37_configuration_decides_over_the_attribute() {
    let server = Ill::default().server().await;
    let port = server.url.rsplit(':').next().unwrap();
    let service = |settings: &str| {
        format!(
            "services:\n  order-service:\n    host: 127.0.0.1\n    port: {port}\n    {settings}\n"
        )
    };
    let off = manager(&service(
        "endpoints: { \"GET /orders/search\": { health_check: { enabled: false } } }",
    ))
    .await;
    let orders: OrdersClient = off.client();
    assert_eq!(orders.order(7).await.unwrap(), 7);
    off.shutdown().await.unwrap();

    let on = manager(&service("health_check: { failure_threshold: 8 }")).await;
    let orders: OrdersClient = on.client();
    let explained = on.explain_policy("order-service", Some(SEARCH)).unwrap();
    let of = |path: &str| {
        let all = &explained.settings;
        let one = all.iter().find(|setting| setting.path == path).unwrap();
        (one.value.clone(), one.layer.clone())
    };
    let (value, layer) = of("health_check.failure_threshold");
    assert_eq!(
        (value.as_str(), layer.as_str()),
        ("8", "services.order-service")
    );
    let (value, layer) = of("health_check.interval");
    assert_eq!((value.as_str(), layer.as_str()), ("20ms", "Orders::search"));
    assert_eq!(checks(&server), 0, "the other one was switched off");
    until("it is checked", || checks(&server) > 0).await;
    assert_eq!(orders.order(7).await.unwrap(), 7);
    let sdk = on.service_sdk();
    assert!(sdk.health_check_service("order-service").await.unwrap());
    on.shutdown().await.unwrap();
    let before = checks(&server);
    assert!(orders.order(7).await.is_err());
    // One may have been on its way.
    assert!(checks(&server) <= before + 1, "checks end with the manager");
}
