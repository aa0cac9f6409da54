//! Clients beside each other: whose circuit is whose, and what health says of each.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use trunkline_core::{Status, task};
use trunkline_discovery::{ServiceConfig, ServiceInstance, ServiceName};
use trunkline_http::HttpClientConfig;
use trunkline_manager::CommunicationManager;

use crate::scripted::config;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server that answers 500 to everything.
async fn failing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = task::spawn("failing-server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else {
                    break;
                };
                head.push(byte);
            }
            let answer = "HTTP/1.1 500 Failed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    drop(serving);
    address
}

/// A client whose circuit opens after so many failures.
fn opens_after(failures: u32, mut client: HttpClientConfig) -> HttpClientConfig {
    client.retry.enabled = Some(false);
    client.circuit_breaker.failure_threshold = Some(failures);
    client
}

async fn call(manager: &CommunicationManager, client: &str) {
    let client = manager.http_client(client).unwrap();
    drop(timeout(PATIENCE, client.get("/").send()).await.unwrap());
}

/// The state of the circuit of a target.
fn circuit(manager: &CommunicationManager, target: &str) -> &'static str {
    let circuits = manager.circuits();
    let found = circuits.iter().find(|circuit| circuit.service == target);
    found
        .unwrap_or_else(|| panic!("no circuit of {target} in {circuits:?}"))
        .state
}

fn health(manager: &CommunicationManager, client: &str) -> Status {
    manager.health_status().components[&format!("http_client_{client}")].status
}

#[tokio::test]
async fn clients_of_one_host_have_policies_and_circuits_of_their_own() {
    let url = format!("http://{}", failing().await);
    let config = config()
        .http_client("users", opens_after(1, HttpClientConfig::new(&url)))
        .http_client("mail", opens_after(2, HttpClientConfig::new(&url)));
    let manager = CommunicationManager::new(config.build().unwrap());
    for (client, after) in [("users", ["open", "closed"]), ("mail", ["open", "closed"])] {
        call(&manager, client).await;
        let states = ["users", "mail"].map(|client| {
            manager.http_client(client).unwrap();
            circuit(&manager, client)
        });
        assert_eq!(states, after, "after a call of {client}");
    }
    call(&manager, "mail").await;
    assert_eq!(circuit(&manager, "mail"), "open");
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_configured_client_of_a_service_is_not_counted_with_the_service() {
    let address = failing().await;
    let mut users = ServiceConfig::at("127.0.0.1", address.port());
    users.retry.enabled = Some(false);
    users.circuit_breaker.failure_threshold = Some(2);
    let own = opens_after(1, HttpClientConfig::for_service("user-service"));
    let config = config()
        .service("user-service", users)
        .http_client("users", own);
    let manager = CommunicationManager::new(config.build().unwrap());
    call(&manager, "users").await;
    call(&manager, "user-service").await;
    assert_eq!(circuit(&manager, "users"), "open");
    assert_eq!(circuit(&manager, "user-service"), "closed");
    call(&manager, "user-service").await;
    assert_eq!(circuit(&manager, "user-service"), "open");
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn health_shows_the_circuits_of_every_client_that_has_them() {
    let address = failing().await;
    let mut users = ServiceConfig::at("127.0.0.1", address.port());
    users.retry.enabled = Some(false);
    users.circuit_breaker.failure_threshold = Some(1);
    let url = format!("http://{address}");
    let config = config()
        .service("user-service", users)
        .http_client("mail", opens_after(1, HttpClientConfig::new(url)));
    let manager = CommunicationManager::new(config.build().unwrap());
    manager.http_client("user-service").unwrap();
    assert_eq!(health(&manager, "user-service"), Status::Healthy);
    // Another spelling is another client of the same service.
    call(&manager, "user_service").await;
    for client in ["user_service", "user-service"] {
        assert_eq!(health(&manager, client), Status::Degraded, "{client}");
    }
    // One that is asked for later is in the same trouble.
    manager.http_client("User-Service").unwrap();
    assert_eq!(health(&manager, "User-Service"), Status::Degraded);
    call(&manager, "mail").await;
    assert_eq!(health(&manager, "mail"), Status::Degraded);
    manager.shutdown().await.unwrap();
}

/// Waits until health says of a client that it is so.
async fn becomes(manager: &CommunicationManager, client: &str, status: Status) {
    let mut changes = manager.health().subscribe();
    while health(manager, client) != status {
        timeout(PATIENCE, changes.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_client_whose_service_has_no_instance_is_degraded() {
    let own = HttpClientConfig::for_service("mailer");
    let config = config().http_client("mail", own).build().unwrap();
    let manager = CommunicationManager::new(config);
    manager.initialize().await.unwrap();
    let discovery = manager.service_discovery().unwrap();
    manager.http_client("mail").unwrap();
    becomes(&manager, "mail", Status::Degraded).await;
    let why = manager.health_status().components["http_client_mail"].clone();
    assert_eq!(why.last_error.unwrap(), "there is no instance");

    let mailer = ServiceName::new("mailer").unwrap();
    let instance = ServiceInstance::new(mailer, "127.0.0.1", 9);
    let registration = discovery.register(instance).unwrap();
    becomes(&manager, "mail", Status::Healthy).await;
    let deadline = Instant::now() + PATIENCE;
    registration.deregister(deadline).await.unwrap();
    becomes(&manager, "mail", Status::Degraded).await;
    manager.shutdown().await.unwrap();
}

#[cfg(feature = "gateway")]
#[tokio::test]
async fn health_shows_what_is_behind_the_gateway() {
    let mut gateway = trunkline_gateway::GatewayConfig::default();
    gateway.port = 0;
    let users = "users".parse().unwrap();
    gateway
        .services
        .insert(users, ServiceConfig::at("127.0.0.1", 9));
    let config = config().gateway(gateway);
    let manager = CommunicationManager::new(config.build().unwrap());
    manager.initialize().await.unwrap();
    let asks = async {
        let began = Instant::now();
        let shown = || {
            let components = manager.health_status().components;
            components.contains_key("http_client_users")
        };
        while !shown() {
            assert!(began.elapsed() < PATIENCE, "it is not shown");
            tokio::task::yield_now().await;
        }
        manager.request_shutdown();
    };
    let (served, ()) = tokio::join!(manager.serve_gateway(), asks);
    served.unwrap();
    manager.shutdown().await.unwrap();
}

#[cfg(feature = "gateway")]
#[test]
fn a_rule_of_balancing_that_would_have_no_effect_is_refused() {
    let mut gateway = trunkline_gateway::GatewayConfig::default();
    let mut users = ServiceConfig::at("127.0.0.1", 9);
    users.load_balancer = Some(trunkline_discovery::LoadBalancerConfig::default());
    gateway.services.insert("users".parse().unwrap(), users);
    let error = config().gateway(gateway).build().unwrap_err();
    let text = error.report().to_string();
    for part in [
        "gateway.services.users.load_balancer",
        "services.users.load_balancer",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
