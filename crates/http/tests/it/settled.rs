//! What the first drafts of this library contradicted each other about, as it was settled.

use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use trunkline_discovery::{EndpointConfig, ServiceConfig};
use trunkline_http::{ServiceError, ServiceSdk};
use trunkline_resilience::breaker::State;

use crate::rig::{Server, status, text};

fn sdk(server: &Server, change: impl FnOnce(&mut ServiceConfig)) -> ServiceSdk {
    let mut config = ServiceConfig::at("127.0.0.1", server.address.port());
    config.retry.delay = Some(Duration::from_millis(1));
    change(&mut config);
    let builder = ServiceSdk::builder().service("users", config);
    builder.build().unwrap()
}

/// the breaker is inside the retry, so each attempt counts: of three attempts a call, the second call opens it.
#[tokio::test]
async fn x_32_every_attempt_counts_for_the_circuit() {
    let server = Server::start(async |_| status(503)).await;
    let sdk = sdk(&server, |_| {});
    for expected in [3, 5] {
        assert!(sdk.get_from_service::<()>("users", "/").await.is_err());
        assert_eq!(server.count.requests(), expected);
    }
    assert_eq!(sdk.circuit_states()[0].circuit.state, State::Open);
    let refused = sdk.get_from_service::<()>("users", "/").await;
    assert!(
        matches!(refused, Err(ServiceError::CircuitOpen(_))),
        "{refused:?}"
    );
    assert_eq!(server.count.requests(), 5);
}

/// paths as they are written never name circuits; configured templates do.
#[tokio::test]
async fn x_34_paths_make_no_circuits_of_their_own() {
    let server = Server::start(async |_| text("hello")).await;
    let sdk = sdk(&server, |config| {
        let templates = &mut config.endpoints;
        templates.insert("GET /orders/{id}".to_owned(), EndpointConfig::default());
    });
    let client = sdk.client("users").unwrap();
    for number in 0..50 {
        client.get(format!("/users/{number}")).await.unwrap();
        client.get(format!("/orders/{number}")).await.unwrap();
    }
    let named: Vec<Option<String>> = sdk
        .circuit_states()
        .into_iter()
        .map(|status| status.target.endpoint.map(|name| name.to_string()))
        .collect();
    assert_eq!(named, [None, Some("GET /orders/{id}".to_owned())]);
}

/// an error has a status only where there was an answer, and says by its variant what else it was.
#[tokio::test]
async fn x_39_only_an_answer_has_a_status() {
    let server = Server::start(
        async |request: Request<Incoming>| match request.uri().path() {
            "/gone" => status(410),
            _ => text("no JSON"),
        },
    )
    .await;
    let once = |config: &mut ServiceConfig| config.retry.enabled = Some(false);
    let sdk = sdk(&server, once);
    let gone = sdk.get_from_service::<()>("users", "/gone").await;
    let gone = gone.unwrap_err();
    assert!(matches!(gone, ServiceError::Status(_)), "{gone:?}");
    assert_eq!(gone.status_code(), Some(StatusCode::GONE));

    let unread = sdk.get_from_service::<u64>("users", "/").await.unwrap_err();
    assert!(matches!(unread, ServiceError::Validation(_)), "{unread:?}");
    assert_eq!(unread.status_code(), None);

    server.stop().await;
    let away = sdk.get_from_service::<u64>("users", "/").await.unwrap_err();
    assert!(
        matches!(away, ServiceError::ServiceUnavailable(_)),
        "{away:?}"
    );
    assert_eq!(away.status_code(), None);
}
