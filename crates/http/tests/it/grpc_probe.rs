//! Health checks by gRPC and TCP on real sockets: a gRPC server of others is asked, and who fails leaves the rotation.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Server as TonicServer;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use trunkline_core::Result;
use trunkline_discovery::{
    CheckKind, Discovery, HealthCheckConfig, Instances, Probe, ServiceConfig, ServiceInstance,
    ServiceName,
};
use trunkline_http::HttpProbe;

use crate::rig::{SOON, Server, eventually, spawn, text, transport};

/// A server by tonic.
struct Grpc {
    address: SocketAddr,
    health: HealthReporter,
    running: JoinHandle<()>,
}

impl Grpc {
    async fn start() -> Self {
        let (health, service) = health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = TonicServer::builder().add_service(service);
        let served = server.serve_with_incoming(TcpIncoming::from(listener));
        let running = spawn(async move { served.await.unwrap() });
        Self {
            address,
            health,
            running,
        }
    }

    async fn says(&self, service: &str, status: ServingStatus) {
        self.health.set_service_status(service, status).await;
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn name() -> ServiceName {
    ServiceName::new("orders").unwrap()
}

fn at(address: SocketAddr) -> ServiceInstance {
    ServiceInstance::new(name(), "127.0.0.1", address.port())
}

fn grpc(service: Option<&str>) -> HealthCheckConfig {
    let config = HealthCheckConfig::new(CheckKind::Grpc);
    match service {
        Some(service) => config.with_grpc_service(service),
        None => config,
    }
}

/// What the probe says: nothing, or why not.
async fn asked(probe: &HttpProbe, instance: &ServiceInstance, how: &HealthCheckConfig) -> String {
    let said: Result<()> = probe.probe_by(instance, how).await;
    said.err()
        .map_or_else(String::new, |error| error.report().to_string())
}

#[tokio::test]
async fn a_grpc_server_says_how_it_is_and_how_its_services_are() {
    let server = Grpc::start().await;
    let probe = HttpProbe::new(transport());
    server.says("shop.Orders", ServingStatus::Serving).await;
    server.says("shop.Stock", ServingStatus::NotServing).await;
    let ask = async |service| asked(&probe, &at(server.address), &grpc(service)).await;
    assert_eq!(ask(None).await, "");
    assert_eq!(ask(Some("shop.Orders")).await, "");
    let stock = ask(Some("shop.Stock")).await;
    assert!(stock.contains("NOT_SERVING"), "{stock}");
    let unknown = ask(Some("shop.Nobody")).await;
    assert!(unknown.contains("no service `shop.Nobody`"), "{unknown}");
    server.says("", ServingStatus::NotServing).await;
    assert!(ask(None).await.contains("NOT_SERVING"));
}

#[tokio::test]
async fn a_server_that_does_not_speak_the_health_protocol_is_not_well() {
    let probe = HttpProbe::new(transport());
    // Something of HTTP, something that answers gRPC without that service, nobody.
    let web = Server::start(async |_| text("hello")).await;
    let said = asked(&probe, &at(web.address), &grpc(None)).await;
    assert!(said.contains("no status"), "{said}");
    let without = Server::start_with(async |_| {
        let answer = http::Response::builder().header("content-type", "application/grpc");
        let answer = answer.header("grpc-status", "12");
        answer.body(trunkline_http::Body::empty()).unwrap()
    })
    .await;
    let said = asked(&probe, &at(without.address), &grpc(None)).await;
    assert!(said.contains("does not serve grpc.health.v1"), "{said}");
    without.stop().await;
    let said = asked(&probe, &at(without.address), &grpc(None)).await;
    assert!(!said.is_empty());
}

/// Checks as configuration asks for them, of two addresses.
async fn checked(check: HealthCheckConfig, addresses: [SocketAddr; 2]) -> (Discovery, Instances) {
    let config = serde_json::json!({
        "instance_check": check.with_interval(Duration::from_millis(20)).with_failure_threshold(1)
    });
    let service: ServiceConfig = serde_json::from_value(config).unwrap();
    let discovery = Discovery::builder()
        .services([("orders", service)])
        .unwrap()
        .probe(HttpProbe::new(transport()))
        .build();
    for address in addresses {
        // Nobody says where it answers HTTP: that is not what is asked.
        let instance = at(address).with_health_check_path("");
        discovery.register_external_service(instance).unwrap();
    }
    let orders = discovery.instances(&name());
    orders.ready(Instant::now() + SOON).await.unwrap();
    (discovery, orders)
}

fn ports(orders: &Instances) -> Vec<u16> {
    let set = orders.snapshot();
    let mut ports: Vec<u16> = set.in_rotation().map(|it| it.port).collect();
    ports.sort_unstable();
    ports
}

#[tokio::test]
async fn one_that_stops_serving_by_grpc_leaves_the_rotation_with_one_check_and_comes_back() {
    let (one, other) = (Grpc::start().await, Grpc::start().await);
    let (_discovery, orders) = checked(grpc(None), [one.address, other.address]).await;
    assert_eq!(ports(&orders).len(), 2);
    one.says("", ServingStatus::NotServing).await;
    let left = [other.address.port()];
    eventually("it is left out", || ports(&orders) == left).await;
    let health = orders.health();
    let of_one = |it: &&trunkline_discovery::InstanceHealth| it.instance.port == one.address.port();
    let said = health.instances.iter().find(of_one).unwrap();
    let error = said.check.as_ref().unwrap().error.as_ref().unwrap();
    assert!(error.contains("NOT_SERVING"), "{error}");
    one.says("", ServingStatus::Serving).await;
    eventually("it is back", || ports(&orders).len() == 2).await;
}

#[tokio::test]
async fn one_that_cannot_be_connected_to_leaves_the_rotation_with_one_check_and_comes_back() {
    let listen = async |at: &str| TcpListener::bind(at).await.unwrap();
    let (one, other) = (listen("127.0.0.1:0").await, listen("127.0.0.1:0").await);
    let addresses = [&one, &other].map(|it| it.local_addr().unwrap());
    let tcp = HealthCheckConfig::new(CheckKind::Tcp);
    let (_discovery, orders) = checked(tcp, addresses).await;
    drop(one);
    let left = [addresses[1].port()];
    eventually("it is left out", || ports(&orders) == left).await;
    let _again = listen(&addresses[0].to_string()).await;
    eventually("it is back", || ports(&orders).len() == 2).await;
}
