//! What clients send, seen from the other side.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use trunkline_core::Status;
use trunkline_discovery::{EndpointConfig, ServiceConfig};
use trunkline_http::HttpClientConfig;
use trunkline_manager::{CircuitInfo, CommunicationManager, ConfigBuilder};
use trunkline_messaging::{HandlerError, Headers, MessageBrokerConfig};
use trunkline_resilience::config::CircuitBreakerConfig;

use crate::scripted::config;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server that answers 200 to everything, and the heads of the requests that it got, in lower case.
async fn listening() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, heads) = mpsc::unbounded_channel();
    trunkline_core::task::spawn("test", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else {
                    break;
                };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            sender.send(head).unwrap_or_default();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream
                .write_all(answer.as_bytes())
                .await
                .unwrap_or_default();
        }
    });
    (address, heads)
}

/// The head of a request that a client of this configuration sends.
async fn sent(config: ConfigBuilder, client: &str, path: &str) -> String {
    let (address, mut heads) = listening().await;
    let mut users = ServiceConfig::at("127.0.0.1", address.port());
    users.base_path = Some("/api".to_owned());
    users
        .endpoints
        .insert("GET /users/{id}".to_owned(), EndpointConfig::default());
    let config = config
        .service("users", users)
        .http_client("configured", HttpClientConfig::for_service("users"));
    let manager = CommunicationManager::new(config.build().unwrap());
    let client = manager.http_client(client).unwrap();
    let answer = timeout(PATIENCE, client.get(path).send()).await.unwrap();
    assert_eq!(answer.unwrap().status(), 200);
    let circuits = manager.circuits();
    let of_endpoint =
        |circuit: &CircuitInfo| circuit.endpoint.as_deref() == Some("GET /users/{id}");
    assert!(circuits.iter().any(of_endpoint), "{circuits:?}");
    manager.shutdown().await.unwrap();
    timeout(PATIENCE, heads.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn x17_with_tracing_off_requests_carry_no_trace_but_their_correlation_id() {
    let traced = sent(config(), "users", "/users/1").await;
    assert!(traced.contains("traceparent: 00-"), "{traced}");
    for off in [
        config().enable_tracing(false),
        config().observability_enabled(false),
    ] {
        let head = sent(off, "users", "/users/1").await;
        assert!(
            !head.contains("traceparent") && !head.contains("tracestate"),
            "{head}"
        );
        assert!(head.contains("x-correlation-id: "), "{head}");
    }
}

#[tokio::test]
async fn x17_with_tracing_off_messages_carry_no_trace_but_their_correlation_id() {
    for on in [true, false] {
        let config = config()
            .enable_tracing(on)
            .message_broker("default", MessageBrokerConfig::memory());
        let manager = CommunicationManager::new(config.build().unwrap());
        manager.initialize().await.unwrap();
        let (sender, mut heard) = mpsc::unbounded_channel();
        let handler = move |headers: Headers| {
            let told = sender.send(headers).map_err(HandlerError::retry);
            async move { told }
        };
        let messaging = manager.messaging().unwrap();
        messaging.subscribe("orders").handle(handler).await.unwrap();
        manager
            .publish_message("default", "orders", "1")
            .await
            .unwrap();
        let headers = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(headers.get("traceparent").is_some(), on, "{headers:?}");
        assert!(headers.get("x-correlation-id").is_some(), "{headers:?}");
        manager.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_configured_client_of_a_service_has_the_services_base_path_and_endpoints() {
    for client in ["configured", "users"] {
        let head = sent(config(), client, "/users/1").await;
        assert!(head.starts_with("get /api/users/1 "), "{head}");
    }
}

#[tokio::test]
async fn a_client_of_a_base_url_is_degraded_while_its_circuit_is_open() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let mut breaker = CircuitBreakerConfig::default();
    breaker.failure_threshold = Some(1);
    let client = HttpClientConfig::new(url)
        .with_retry_enabled(false)
        .with_circuit_breaker(breaker);
    let config = config().http_client("mail", client);
    let manager = CommunicationManager::new(config.build().unwrap());
    let client = manager.http_client("mail").unwrap();
    let status = || manager.health_status().components["http_client_mail"].status;
    assert_eq!(status(), Status::Healthy);
    client.get("/").send().await.map(drop).unwrap_err();
    assert_eq!(status(), Status::Degraded);
    manager.shutdown().await.unwrap();
}
