//! What the first drafts of this library contradicted each other about, as it was settled.

use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use trunkline_core::{Error, ErrorKind, Retry};
use trunkline_discovery::{EndpointConfig, ServiceConfig};
use trunkline_http::{
    EnhancedHttpClient, HttpClientConfig, PoolTimeout, ServiceError, ServiceSdk, ServiceSdkConfig,
};
use trunkline_resilience::CircuitOpen;
use trunkline_resilience::breaker::{Breaker, BreakerSettings, State};

use crate::rig::{Server, in_time, spawn, status, text};

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

/// whoever finds a circuit open is told so by one type, alone, in a client, by its status as an error of a call.
#[tokio::test]
async fn x_2_an_open_circuit_is_one_type_everywhere() {
    let mut once = BreakerSettings::default();
    once.failure_threshold = 1;
    let alone = Breaker::new("alone", once);
    let fails = || async { Err::<(), Error>(Error::unavailable("away")) };
    alone.call(fails()).await.unwrap_err();
    let refused = Error::from(alone.call(fails()).await.unwrap_err());
    let found: &CircuitOpen = refused.find().expect("the breaker alone");
    assert_eq!(&*found.service, "alone");

    let server = Server::start(async |_| status(503)).await;
    let sdk = sdk(&server, |config| {
        config.retry.enabled = Some(false);
        config.circuit_breaker.failure_threshold = Some(1);
    });
    let client = sdk.client("users").unwrap();
    client.get("/").await.unwrap();
    let refused = Error::from(client.get("/").await.unwrap_err());
    let found: &CircuitOpen = refused.find().expect("the client");
    assert_eq!(&*found.service, "users");
    let refused = sdk.get_from_service::<()>("users", "/").await.unwrap_err();
    assert!(
        matches!(refused, ServiceError::CircuitOpen(_)),
        "{refused:?}"
    );
    assert!(Error::from(refused).find::<CircuitOpen>().is_some());
    let result = sdk.call_service("users", "/").await;
    let refused = result.error.expect("the result of a call");
    assert!(
        matches!(refused, ServiceError::CircuitOpen(_)),
        "{refused:?}"
    );
    assert_eq!(server.count.requests(), 1);
}

/// attempts count the first one, at the call, in the settings of the SDK and in those of a service.
#[tokio::test]
async fn x_5_attempts_are_what_the_server_sees() {
    let server = Server::start(async |_| status(503)).await;
    let seen = |before: usize| server.count.requests() - before;
    let quick = |config: &mut ServiceConfig| {
        config.circuit_breaker.enabled = Some(false);
        config.retry.delay = Some(Duration::ZERO);
    };
    let by_call = sdk(&server, quick);
    for attempts in [1_u32, 2, 4] {
        let before = server.count.requests();
        let call = by_call.call_service("users", "/").retry_attempts(attempts);
        assert!(!call.await.success);
        assert_eq!(seen(before), usize::try_from(attempts).unwrap());
    }
    let before = server.count.requests();
    assert!(!by_call.call_service("users", "/").await.success);
    assert_eq!(seen(before), 3, "the default");

    let by_service = sdk(&server, |config| {
        quick(config);
        config.retry.max_attempts = Some(2);
    });
    let before = server.count.requests();
    assert!(!by_service.call_service("users", "/").await.success);
    assert_eq!(seen(before), 2);

    let mut config = ServiceConfig::at("127.0.0.1", server.address.port());
    quick(&mut config);
    let settings = ServiceSdkConfig::default().with_default_retry_attempts(5);
    let builder = ServiceSdk::builder().config(settings);
    let by_sdk = builder.service("users", config).build().unwrap();
    let before = server.count.requests();
    assert!(!by_sdk.call_service("users", "/").await.success);
    assert_eq!(seen(before), 5);
}

/// `max_connections` caps the connections that are open, not those that are idle; waiting for one is bounded, and its
/// end has a type. The places are there again when the answers are.
#[tokio::test]
async fn x_9_open_connections_are_capped_and_a_wait_for_one_ends_with_a_typed_error() {
    let (entered, mut inside) = tokio::sync::mpsc::unbounded_channel();
    let (release, released) = tokio::sync::watch::channel(false);
    let server = Server::start(move |_| {
        let (entered, mut released) = (entered.clone(), released.clone());
        async move {
            entered.send(()).unwrap();
            released.wait_for(|released| *released).await.unwrap();
            text("hello")
        }
    })
    .await;
    let mut config = HttpClientConfig::new(server.url());
    config.max_connections = 2;
    config.timeout.pool = Some(Duration::from_millis(100));
    let client = EnhancedHttpClient::from_config(config).unwrap();
    let held: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            spawn(async move { client.get("/").await.unwrap().text().await.unwrap() })
        })
        .collect();
    for _ in 0..2 {
        in_time(inside.recv()).await.unwrap();
    }
    let refused = Error::from(client.get("/").no_retry().await.unwrap_err());
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    assert_eq!(refused.retry(), Retry::Safe, "nothing was sent");
    let cause = refused
        .find::<PoolTimeout>()
        .expect("it says what it waited for");
    assert_eq!(cause.max_connections, 2);
    assert_eq!(cause.waited, Duration::from_millis(100));
    release.send_replace(true);
    for held in held {
        assert_eq!(in_time(held).await.unwrap(), "hello");
    }
    for _ in 0..3 {
        client.get("/").await.unwrap().text().await.unwrap();
    }
    assert_eq!((server.count.most(), server.count.requests()), (2, 5));
}
