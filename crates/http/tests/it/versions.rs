//! Versions of a service, seen from the server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use trunkline_core::ErrorKind;
use trunkline_discovery::{EndpointConfig, ServiceConfig};
use trunkline_http::{
    Body, EnhancedHttpClient, Fallback, HttpClient, HttpClientConfig, Next, RedirectConfig,
    ServiceRequest, ServiceSdk,
};
use trunkline_resilience::breaker::State;
use trunkline_resilience::config::{VersionFailure, VersionsConfig};
use trunkline_telemetry::{Format, Metrics};

use crate::rig::{Server, eventually, in_time, status, text};

/// What a server was asked: method, target, and what named the version in a header.
type Seen = Arc<Mutex<Vec<String>>>;

/// Answers `v1` to whom asks for it, wherever they say so; a request for `v2` gets a status of its own.
async fn two_versions(v2: u16) -> (Server, Seen) {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let server = Server::start(move |request: Request<Incoming>| {
        let log = Arc::clone(&log);
        async move {
            let (head, body) = request.into_parts();
            let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
            let named = header("api-version").or(header("accept")).unwrap_or("-");
            let line = format!("{} {} {named}", head.method, head.uri);
            log.lock().unwrap().push(line.clone());
            let body = body.collect().await.unwrap().to_bytes();
            match line.contains("v2") {
                true if v2 >= 300 => status(v2),
                true => text("v2"),
                false => text(format!("v1{}", String::from_utf8_lossy(&body))),
            }
        }
    })
    .await;
    (server, seen)
}

fn asked(seen: &Seen) -> Vec<String> {
    std::mem::take(&mut seen.lock().unwrap())
}

/// One attempt for each version, and whatever else the test wants.
fn config(server: &Server, versions: VersionsConfig) -> HttpClientConfig {
    let mut config = HttpClientConfig::new(server.url()).with_versions(versions);
    config.retry.enabled = Some(false);
    config
}

fn client(server: &Server, versions: VersionsConfig) -> EnhancedHttpClient {
    EnhancedHttpClient::from_config(config(server, versions)).unwrap()
}

fn both() -> VersionsConfig {
    VersionsConfig::new(["v2", "v1"])
}

#[tokio::test]
async fn the_preferred_version_answers_where_it_can() {
    let (server, seen) = two_versions(200).await;
    let answer = client(&server, both()).get("/users/1").await.unwrap();
    assert_eq!(answer.service_version(), Some("v2"));
    assert_eq!(answer.text().await.unwrap(), "v2");
    assert_eq!(asked(&seen), ["GET /v2/users/1 -"]);
}

#[tokio::test]
async fn a_failing_version_gives_way_to_the_next_wherever_it_is_named() {
    let (server, seen) = two_versions(500).await;
    for (versions, path, v2, v1) in [
        (both(), "/users", "/v2/users -", "/v1/users -"),
        (
            both(),
            "/api/v1/users",
            "/api/v2/users -",
            "/api/v1/users -",
        ),
        (
            both().by_header("API-Version"),
            "/users",
            "/users v2",
            "/users v1",
        ),
        (
            both()
                .by_header("Accept")
                .with_value("application/vnd.users.{version}+json"),
            "/users",
            "/users application/vnd.users.v2+json",
            "/users application/vnd.users.v1+json",
        ),
        (
            both().by_query("version"),
            "/users?limit=2&version=v7",
            "/users?limit=2&version=v2 -",
            "/users?limit=2&version=v1 -",
        ),
    ] {
        let answer = client(&server, versions).get(path).await.unwrap();
        assert_eq!(answer.service_version(), Some("v1"), "{path}");
        assert_eq!(answer.text().await.unwrap(), "v1", "{path}");
        assert_eq!(asked(&seen), [format!("GET {v2}"), format!("GET {v1}")]);
    }
}

#[tokio::test]
async fn the_policy_says_after_which_failures() {
    for (code, falls_back) in [
        (500, true),
        (501, true),
        (503, true),
        (504, true),
        (404, false),
        (409, false),
        (429, false),
    ] {
        let (server, seen) = two_versions(code).await;
        let answer = client(&server, both()).get("/users").await.unwrap();
        let expected = if falls_back { "v1" } else { "v2" };
        assert_eq!(answer.service_version(), Some(expected), "{code}");
        assert_eq!(asked(&seen).len(), 1 + usize::from(falls_back), "{code}");
    }
    let (server, _seen) = two_versions(404).await;
    for versions in [
        both().on_error([VersionFailure::NotFound]),
        both().on_status([404]),
    ] {
        let answer = client(&server, versions).get("/users").await.unwrap();
        assert_eq!(answer.service_version(), Some("v1"));
    }
    // What is listed is all there is.
    let (server, _seen) = two_versions(500).await;
    let versions = both().on_error([VersionFailure::Unavailable]);
    let answer = client(&server, versions).get("/users").await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.service_version(), Some("v2"));
}

/// An order that v2 may have taken is not placed with v1 as well.
#[tokio::test]
async fn what_may_have_been_processed_goes_on_only_with_a_key() {
    let any = || both().on_status([404, 422]);
    for (code, falls_back) in [(500, false), (503, false), (501, true), (404, true)] {
        let (server, seen) = two_versions(code).await;
        let client = client(&server, any());
        let answer = client.post("/orders").body("{}").await.unwrap();
        let expected = if falls_back { 200 } else { code };
        assert_eq!(answer.status().as_u16(), expected, "{code}");
        assert_eq!(asked(&seen).len(), 1 + usize::from(falls_back), "{code}");

        let keyed = client.post("/orders").body("{}").idempotency_key("order-1");
        let answer = keyed.await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "v1{}", "{code}");
    }
}

#[tokio::test]
async fn a_stream_goes_to_the_next_version_as_long_as_it_was_short() {
    let (server, seen) = two_versions(500).await;
    let client = client(&server, both());
    let pieces =
        || stream::iter(["a", "b"].map(|piece| Ok::<_, trunkline_core::Error>(piece.into())));
    let answer = client.put("/files").body(Body::stream(pieces())).await;
    assert_eq!(answer.unwrap().text().await.unwrap(), "v1ab");
    asked(&seen);

    let big = Bytes::from(vec![b'x'; 1 << 20]);
    let long = Body::stream(stream::iter([Ok::<_, trunkline_core::Error>(big)]));
    let answer = client.put("/files").body(long).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(asked(&seen), ["PUT /v2/files -"]);
}

#[tokio::test]
async fn each_version_has_a_circuit_of_its_own() {
    let (server, seen) = two_versions(500).await;
    let metrics = Metrics::new();
    let mut config = config(&server, both());
    config.circuit_breaker.failure_threshold = Some(2);
    let client = EnhancedHttpClient::builder()
        .config(config)
        .service("users")
        .metrics(&metrics)
        .endpoint("GET /users/{id}", EndpointConfig::default())
        .build()
        .unwrap();
    for number in 0..4 {
        let answer = client.get(format!("/users/{number}")).await.unwrap();
        assert_eq!(answer.service_version(), Some("v1"));
    }
    // From the third call on v2 costs nothing.
    let v2 = asked(&seen)
        .iter()
        .filter(|line| line.contains("v2"))
        .count();
    assert_eq!(v2, 2);
    let states = client.circuit_states();
    let of = |version: &str| {
        let mut same = states
            .iter()
            .filter(|state| state.target.version.as_deref() == Some(version));
        let state = same.next().unwrap();
        (state.target.to_string(), state.circuit.state)
    };
    assert_eq!(
        of("v2"),
        ("users v2 GET /users/{id}".to_owned(), State::Open)
    );
    assert_eq!(
        of("v1"),
        ("users v1 GET /users/{id}".to_owned(), State::Closed)
    );

    let shown = metrics.render(Format::Prometheus).unwrap();
    let line = r#"trunkline_version_fallbacks_total{service="users",endpoint="GET /users/{id}"} 4"#;
    assert!(shown.contains(line), "{shown}");

    // Alone it is refused, and the error says which version.
    let alone = client.get("/users/1").version("v2").await.unwrap_err();
    let open = alone.circuit_open().unwrap();
    assert_eq!(open.version.as_deref(), Some("v2"));
    assert!(open.to_string().starts_with("circuit of users v2 is open"));
}

/// A version that never answers takes its share of the time, not all of it.
#[tokio::test]
async fn a_version_that_hangs_leaves_time_for_the_next() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = Server::start(move |request: Request<Incoming>| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            if request.uri().path().starts_with("/v2") {
                std::future::pending::<()>().await;
            }
            text("v1")
        }
    })
    .await;
    let client = client(&server, both());
    let answer = client.get("/users").timeout(Duration::from_secs(3));
    let answer = in_time(answer.send()).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "v1");

    // Whoever hangs as the last one runs into the limit of the whole call.
    let late = client.get("/users").versions(["v1x", "v2"]);
    let late = late.timeout(Duration::from_millis(200));
    let answer = in_time(late.send()).await.unwrap();
    assert_eq!(answer.service_version(), Some("v1x"));
    let alone = client.get("/users").version("v2");
    let alone = in_time(alone.timeout(Duration::from_millis(200)).send()).await;
    assert_eq!(alone.unwrap_err().kind(), ErrorKind::Timeout);
    eventually("all were asked", || asked.load(Ordering::SeqCst) == 4).await;
}

#[tokio::test]
async fn a_fixed_answer_comes_after_the_last_version() {
    let (server, seen) = two_versions(500).await;
    let mut config = config(&server, both());
    config.fallback.value = Some(serde_json::json!([]));
    let client = EnhancedHttpClient::from_config(config).unwrap();
    let answer = client.get("/users").await.unwrap();
    assert_eq!(
        (answer.service_version(), answer.fallback()),
        (Some("v1"), None)
    );
    asked(&seen);
    server.stop().await;
    let answer = client.get("/users").await.unwrap();
    assert_eq!(answer.fallback(), Some(Fallback::Value));
}

#[tokio::test]
async fn a_call_chooses_its_version() {
    let (server, seen) = two_versions(200).await;
    let plain = EnhancedHttpClient::new(server.url()).unwrap();
    // Without settings a version is named in the path.
    let answer = plain.get("/users").version("v3").await.unwrap();
    assert_eq!(answer.service_version(), Some("v3"));
    assert_eq!(asked(&seen), ["GET /v3/users -"]);
    let answer = plain.get("/users").await.unwrap();
    assert_eq!(answer.service_version(), None);
    asked(&seen);

    // With settings where they say; no list is no version.
    let client = client(&server, both().by_header("API-Version"));
    client.get("/users").version("v1").await.unwrap();
    client
        .get("/users")
        .versions(Vec::<&str>::new())
        .await
        .unwrap();
    assert_eq!(asked(&seen), ["GET /users v1", "GET /users -"]);

    let wrong = client.get("/users").version("v\n1").await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_plain_client_asks_the_preferred_version_alone() {
    let (server, seen) = two_versions(500).await;
    let client = HttpClient::from_config(config(&server, both())).unwrap();
    let answer = client.get("/users").await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(asked(&seen), ["GET /v2/users -"]);
}

#[tokio::test]
async fn the_sdk_and_middleware_know_the_versions() {
    let (server, seen) = two_versions(500).await;
    let mut service = ServiceConfig::at("127.0.0.1", server.address.port())
        .with_versions(both().by_header("API-Version"));
    service.retry.delay = Some(Duration::from_millis(1));
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&attempts);
    let sdk = ServiceSdk::builder()
        .service("user-service", service)
        .build()
        .unwrap()
        .attempt_middleware(async move |request: ServiceRequest, next: Next| {
            log.lock()
                .unwrap()
                .push(request.version().unwrap().to_owned());
            next.run(request).await
        });
    let client = sdk.client("user-service").unwrap();
    let answer: Response<Full<Bytes>> = status(200);
    assert_eq!(
        client.get("/users").await.unwrap().status(),
        answer.status()
    );
    assert_eq!(*attempts.lock().unwrap(), ["v2", "v1"]);
    let pinned = sdk
        .call_service("user-service", "/users")
        .method(Method::GET)
        .version("v2")
        .await;
    assert_eq!(pinned.status_code, Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(
        asked(&seen),
        ["GET /users v2", "GET /users v1", "GET /users v2"]
    );
}

/// Requests that named each version.
fn counts(seen: &Seen) -> (usize, usize) {
    let asked = asked(seen);
    let second = asked.iter().filter(|line| line.contains("v2")).count();
    (second, asked.len() - second)
}

fn with_budget(server: &Server, versions: VersionsConfig, metrics: &Metrics) -> EnhancedHttpClient {
    let mut config = config(server, versions);
    config.retry.budget.min_per_second = Some(0);
    config.retry.budget.percent = Some(20.0);
    config.circuit_breaker.enabled = Some(false);
    let builder = EnhancedHttpClient::builder().config(config);
    builder.metrics(metrics).build().unwrap()
}

#[tokio::test]
async fn the_next_version_is_asked_within_the_budget_of_retries() {
    let (server, seen) = two_versions(500).await;
    let metrics = Metrics::new();
    let client = with_budget(&server, both(), &metrics);
    let mut good = 0;
    for _ in 0..100 {
        let answer = client.get("/users").await.unwrap();
        good += usize::from(answer.status().is_success());
    }
    let (preferred, next) = counts(&seen);
    assert_eq!((preferred, next), (100, good));
    // A fifth of the calls, and of those that the next version took.
    assert!((18..=26).contains(&next), "{next}");
    let text = metrics.render(Format::Prometheus).unwrap();
    let line = |line: &&str| line.starts_with("trunkline_retry_budget_exhausted_total{");
    let line = text.lines().find(line).unwrap();
    assert!(line.ends_with(&format!(" {}", 100 - next)), "{line}");
}

#[tokio::test]
async fn a_version_that_declines_or_is_not_asked_costs_no_budget() {
    let (server, seen) = two_versions(404).await;
    let client = with_budget(&server, both().on_status([404]), &Metrics::disabled());
    for _ in 0..50 {
        let answer = client.get("/users").await.unwrap();
        assert_eq!(answer.service_version(), Some("v1"));
    }
    assert_eq!(counts(&seen), (50, 50));

    let (server, seen) = two_versions(500).await;
    let mut config = config(&server, both());
    config.retry.budget.min_per_second = Some(0);
    config.retry.budget.percent = Some(100.0);
    config.circuit_breaker.failure_threshold = Some(1);
    let client = EnhancedHttpClient::from_config(config).unwrap();
    for _ in 0..50 {
        let answer = client.get("/users").await.unwrap();
        assert_eq!(answer.service_version(), Some("v1"));
    }
    assert_eq!(counts(&seen), (1, 50), "the circuit of v2 is open");
}

/// Whoever answers a POST with "see there" has processed it: that nothing is found there asks nobody else to do it again.
#[tokio::test]
async fn what_was_processed_is_not_done_again_by_another_version() {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let server = Server::start(move |request: Request<Incoming>| {
        let line = format!("{} {}", request.method(), request.uri());
        log.lock().unwrap().push(line);
        let posted = request.method() == Method::POST;
        async move {
            let mut response = status(if posted { 303 } else { 404 });
            if posted {
                let to = "/v2/orders/7".parse().unwrap();
                response.headers_mut().insert("location", to);
            }
            response
        }
    })
    .await;
    let mut versions = both();
    versions.on_status = Some(vec![404]);
    let config = config(&server, versions).with_redirects(RedirectConfig::same_origin());
    let client = EnhancedHttpClient::from_config(config).unwrap();
    let request = client.post("/orders").body("one");
    let response = in_time(request.send()).await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(asked(&seen), ["POST /v2/orders", "GET /v2/orders/7"]);
}

#[tokio::test]
async fn what_is_called_like_a_version_is_left_alone() {
    let (server, seen) = two_versions(200).await;
    let client = client(&server, both());
    for (endpoint, path, sent) in [
        (None, "/branches/v1", "/v2/branches/v1"),
        (
            Some("DELETE /branches/{name}"),
            "/branches/v1",
            "/v2/branches/v1",
        ),
        (Some("DELETE /{name}"), "/v1", "/v2/v1"),
        (
            Some("DELETE /v1/branches/{name}"),
            "/v1/branches/v1",
            "/v2/branches/v1",
        ),
        (
            Some("DELETE /api/v1/branches/{name}"),
            "/api/v1/branches/v1",
            "/api/v2/branches/v1",
        ),
        (Some("DELETE /api/{tenant}/v1"), "/api/v1/v1", "/api/v1/v2"),
    ] {
        let mut request = client.request(Method::DELETE, path);
        if let Some(endpoint) = endpoint {
            request = request.endpoint(endpoint);
        }
        in_time(request.send()).await.unwrap();
        assert_eq!(
            asked(&seen),
            [format!("DELETE {sent} -")],
            "{endpoint:?} {path}"
        );
    }
}
