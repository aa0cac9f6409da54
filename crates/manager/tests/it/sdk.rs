//! The service SDK of a manager.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::any;
use tokio::net::TcpListener;
use trunkline_core::task;
use trunkline_discovery::ServiceConfig;
use trunkline_http::{CircuitConfig, ServiceError, ServiceSdkConfig};
use trunkline_manager::{CommunicationConfig, CommunicationManager};
use trunkline_resilience::breaker::State;
use trunkline_resilience::config::VersionsConfig;

use crate::scripted::config;

/// Answers with what it was sent as a token; `/broken` fails.
async fn serving() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = async |request: Request| {
        if request.uri().path().starts_with("/broken") {
            return Err(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let token = request.headers().get("authorization");
        Ok(format!(
            "\"{}\"",
            token.map_or("", |token| token.to_str().unwrap())
        ))
    };
    let router = Router::new().route("/{*path}", any(answer));
    task::spawn("serving", async { axum::serve(listener, router).await });
    address
}

fn at(address: SocketAddr) -> ServiceConfig {
    let mut service = ServiceConfig::at("127.0.0.1", address.port());
    service.retry.enabled = Some(false);
    service
}

#[tokio::test]
async fn it_goes_through_the_managers_clients() {
    let address = serving().await;
    let config = config()
        .service("user-service", at(address))
        .build()
        .unwrap();
    let manager = CommunicationManager::new(config);
    let plain = manager.service_sdk();
    let sdk = plain.clone().middleware(async |mut request, next| {
        request.bearer("abc")?;
        next.run(request).await
    });
    let told: String = sdk
        .get_from_service("user-service", "/users")
        .await
        .unwrap();
    assert_eq!(told, "Bearer abc");
    // What one value was given is its own; circuits and clients are the manager's.
    let told: String = plain
        .get_from_service("user-service", "/users")
        .await
        .unwrap();
    assert_eq!(told, "");
    assert_eq!(sdk.circuit_states().len(), 1);
    assert_eq!(manager.circuits().len(), 1);
}

#[tokio::test]
async fn settings_of_its_own_follow_a_reload_and_show_among_the_circuits() {
    let address = serving().await;
    let with = |failures| {
        let mut service = at(address);
        service.circuit_breaker.failure_threshold = Some(failures);
        config().service("user-service", service).build().unwrap()
    };
    let manager = CommunicationManager::new(with(7));
    let sdk = manager.service_sdk();
    let strict = CircuitConfig::default()
        .with_failure_threshold(1)
        .with_retry_attempts(1);
    let client = sdk.client_with("user-service", strict.clone()).unwrap();
    assert_eq!(client.get("/broken").await.unwrap().status(), 500);
    assert!(matches!(
        client.get("/broken").await,
        Err(ServiceError::CircuitOpen(_))
    ));
    let circuits = manager.circuits();
    assert_eq!(
        circuits
            .iter()
            .filter(|circuit| circuit.state == "open")
            .count(),
        1
    );
    let states = manager.service_sdk().circuit_states();
    assert_eq!(
        states
            .iter()
            .filter(|known| known.circuit.state == State::Open)
            .count(),
        1
    );

    // What the code says stays over what is read anew; the rest is taken over.
    manager.apply(with(3)).unwrap();
    assert!(matches!(
        client.get("/broken").await,
        Err(ServiceError::CircuitOpen(_))
    ));
    let wrong = sdk
        .client_with("user-service", strict.with_failure_threshold(0))
        .unwrap_err();
    assert!(wrong.to_string().contains("failure_threshold"), "{wrong}");
}

#[test]
fn its_settings_become_configuration() {
    let sdk = ServiceSdkConfig::default()
        .with_default_timeout(Duration::from_secs(7))
        .with_default_retry_attempts(2)
        .with_default_circuit_breaker_enabled(false)
        .with_service_discovery_enabled(false)
        .with_health_check_interval(Duration::from_secs(9))
        .with_metrics_enabled(false);
    let config = CommunicationConfig::builder()
        .service_sdk(&sdk)
        .build()
        .unwrap();
    let policy = config.policy_layers("any", None).resolve().unwrap().policy;
    assert_eq!(policy.timeout.total, Duration::from_secs(7));
    assert_eq!(policy.retry.max_attempts, 2);
    assert!(policy.circuit_breaker.is_none());
    let discovery = config.service_discovery.unwrap();
    assert!(!discovery.enabled);
    assert_eq!(discovery.health_check.interval, Duration::from_secs(9));
    assert!(!config.enable_metrics);
    // The defaults say nothing about discovery: what is built in applies.
    let usual = CommunicationConfig::builder().service_sdk(&ServiceSdkConfig::default());
    assert!(usual.build().unwrap().service_discovery.is_none());
}

/// What is written of versions holds for clients that are there already, and circuits are shown by version.
#[tokio::test]
async fn versions_come_from_the_configuration_and_change_with_it() {
    let address = serving().await;
    let with = |order: &[&str]| {
        let mut service = at(address).with_versions(VersionsConfig::new(order.iter().copied()));
        service.circuit_breaker.failure_threshold = Some(1);
        config().service("user-service", service).build().unwrap()
    };
    // `/broken…` are the paths that fail.
    let manager = CommunicationManager::new(with(&["broken", "v1"]));
    let sdk = manager.service_sdk();
    let client = sdk.client("user-service").unwrap();
    let version = async || {
        let answer = client.get("/users").await.unwrap();
        (
            answer.status().as_u16(),
            answer.service_version().map(ToOwned::to_owned),
        )
    };
    assert_eq!(version().await, (200, Some("v1".to_owned())));
    let open: Vec<_> = manager
        .circuits()
        .into_iter()
        .filter(|circuit| circuit.state == "open")
        .map(|circuit| circuit.endpoint)
        .collect();
    assert_eq!(open, [Some("broken *".to_owned())]);

    manager.apply(with(&["v3"])).unwrap();
    assert_eq!(version().await, (200, Some("v3".to_owned())));
    manager.shutdown().await.unwrap();
}
