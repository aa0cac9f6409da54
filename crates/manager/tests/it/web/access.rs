//! The access log of services and gateways, and what a gateway shows of itself.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::post;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing_subscriber::layer::SubscriberExt as _;
use trunkline_discovery::ServiceConfig;
use trunkline_gateway::{GatewayConfig, RouteConfig};
use trunkline_manager::CommunicationManager;

use super::{KEYED, PATIENCE, ask, ask_with, free_port, served};
use crate::scripted::{Log, config};

/// What is logged about requests, by a process of its own: a subscriber of one thread is seen reliably only there.
#[tokio::test]
#[ignore = "a process that another test starts"]
async fn the_process_that_logs() {
    let captured = Accesses::default();
    let _guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(captured.clone()));
    let directory = tempfile::tempdir().unwrap();
    let config = config().server(free_port()).embedded_path(directory.path());
    let manager = CommunicationManager::new(config.build().unwrap());
    let pay = post(async || "paid");
    let once = manager.idempotency("payments");
    let router = Router::new().route("/pay/{id}", pay).route_layer(once);
    served(&manager, router, async |users| {
        ask_with(users, "POST /pay/1", KEYED, "{}").await;
        ask_with(users, "POST /pay/1", KEYED, "{}").await;
        ask(users, "GET /nowhere", "").await;
        for shown in [false, true] {
            let (manager, address) = before(users, shown);
            manager.initialize().await.unwrap();
            let asks = async {
                let listening = async {
                    while TcpStream::connect(address).await.is_err() {
                        tokio::task::yield_now().await;
                    }
                };
                timeout(PATIENCE, listening).await.unwrap();
                assert_eq!(ask(address, "POST /api/v1/users/1", "").await.status, 404);
                assert_eq!(ask(address, "PUT /people", "").await.status, 405);
                let circuits = ask(address, "GET /circuits", "").await.status;
                assert_eq!(circuits, if shown { 200 } else { 404 });
                assert_eq!(ask(address, "GET /metrics", "").await.status, 200);
                manager.request_shutdown();
            };
            let (ended, ()) = tokio::join!(manager.serve_gateway(), asks);
            ended.unwrap();
            manager.shutdown().await.unwrap();
        }
    })
    .await;
    let lines = captured.0.lines();
    let gateway = ["unmatched 404", "/api/v1/users 404", "/people 405"];
    let mut expected = vec!["/pay/{id} 200", "/pay/{id} 200", "unmatched 404"];
    // The service behind knows no such path; the gateway's own route is none of the router's.
    expected.extend(gateway);
    expected.push("unmatched 404");
    expected.extend(gateway);
    expected.push("/circuits 200");
    assert_eq!(lines, expected);
}

#[test]
fn man10_the_access_log_names_the_route_of_services_and_gateways() {
    crate::alone::play("web::access::the_process_that_logs", "logs");
}

/// A gateway before this service, and where it listens.
pub(super) fn before(users: SocketAddr, circuits: bool) -> (CommunicationManager, SocketAddr) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let place = ServiceConfig::at("127.0.0.1", users.port());
    let gateway = GatewayConfig::default()
        .with_listen("127.0.0.1", address.port())
        .with_circuits(circuits)
        .with_service_at("user-service", place)
        .unwrap()
        .with_route(RouteConfig::new("/people", "user-service").with_methods(["GET"]));
    let config = config().gateway(gateway).build().unwrap();
    (CommunicationManager::new(config), address)
}

/// Route and status of every line of the access log.
#[derive(Clone, Default)]
struct Accesses(Log);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Accesses {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == "trunkline::access" {
            let mut access = Access::default();
            event.record(&mut access);
            self.0.add(format!("{} {}", access.route, access.status));
        }
    }
}

#[derive(Default)]
struct Access {
    route: String,
    status: u64,
}

impl tracing::field::Visit for Access {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "route" {
            value.clone_into(&mut self.route);
        }
    }

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        if field.name() == "status" {
            self.status = value;
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}
