//! Retry, circuit, budget and limits, seen from the server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use trunkline_core::{Clock, Error, ErrorKind, SystemClock};
use trunkline_discovery::EndpointConfig;
use trunkline_http::{Body, EnhancedHttpClient, HttpClientConfig, PolicyMetrics, ServiceError};
use trunkline_resilience::breaker::State;
use trunkline_resilience::config::{ConcurrencyAlgorithm, PolicyConfig};
use trunkline_resilience::{Layer, PolicyLayers, PolicyRegistry};
use trunkline_telemetry::{Format, Metrics};

use crate::rig::{Raw, Server, enhanced, eventually, in_time, status, text};

/// Quick retries, and whatever else the test wants.
fn config(url: impl Into<String>, change: impl FnOnce(&mut HttpClientConfig)) -> HttpClientConfig {
    let mut config = HttpClientConfig::new(url);
    config.retry.delay = Some(Duration::from_millis(1));
    change(&mut config);
    config
}

fn client(url: String, change: impl FnOnce(&mut HttpClientConfig)) -> EnhancedHttpClient {
    EnhancedHttpClient::from_config(config(url, change)).unwrap()
}

/// Answers with the statuses in turn, then with 200.
async fn statuses(codes: &'static [u16]) -> Server {
    let next = Arc::new(AtomicUsize::new(0));
    Server::start(move |_| {
        let number = next.fetch_add(1, Ordering::SeqCst);
        async move {
            codes
                .get(number)
                .map_or_else(|| text("hello"), |code| status(*code))
        }
    })
    .await
}

#[tokio::test]
async fn what_is_idempotent_is_repeated_until_it_works() {
    for code in [429, 502, 503, 504] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let codes: &[u16] = Box::leak(Box::new([code, code]));
            let server = statuses(codes).await;
            let response = enhanced(server.url()).request(method, "/").await.unwrap();
            assert_eq!(response.text().await.unwrap(), "hello");
            assert_eq!(server.count.requests(), 3);
        }
    }
}

#[tokio::test]
async fn the_last_answer_is_returned_when_none_was_better() {
    let server = Server::start(|_| async { status(503) }).await;
    assert_eq!(enhanced(server.url()).get("/").await.unwrap().status(), 503);
    assert_eq!(server.count.requests(), 3);
}

#[tokio::test]
async fn what_would_fail_again_is_not_repeated() {
    for code in [400, 404, 409, 500, 501] {
        let server = Server::start(move |_| async move { status(code) }).await;
        assert_eq!(
            enhanced(server.url()).get("/").await.unwrap().status(),
            code
        );
        assert_eq!(server.count.requests(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_post_is_repeated_only_with_a_key() {
    for method in [Method::POST, Method::PATCH] {
        let server = statuses(&[503, 503]).await;
        let client = enhanced(server.url());
        let plain = client.request(method.clone(), "/").json(&1);
        assert_eq!(plain.await.unwrap().status(), 503);
        assert_eq!(server.count.requests(), 1);
        let keyed = client.request(method, "/").json(&1).idempotency_key("k");
        assert_eq!(keyed.await.unwrap().status(), 200);
        assert_eq!(server.count.requests(), 3);
    }
}

#[tokio::test]
async fn a_post_whose_connection_died_is_never_sent_twice() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        raw.request().await.unwrap();
    })
    .await;
    let client = enhanced(server.url());
    let error = client.post("/pay").json(&1).await.unwrap_err();
    assert!(
        matches!(error, ServiceError::ServiceUnavailable(_)),
        "{error:?}"
    );
    assert_eq!(server.count.requests(), 1);
    // With a key it is: that is what the key is for.
    client
        .post("/pay")
        .json(&1)
        .idempotency_key("k")
        .await
        .unwrap_err();
    assert_eq!(server.count.requests(), 4);
}

#[tokio::test]
async fn a_post_that_never_left_is_repeated() {
    // No other test listens at this address of the loopback, so nobody takes the port meanwhile.
    let listener = tokio::net::TcpListener::bind("127.0.99.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let client = client(format!("http://{gone}"), |config| {
        config.retry.delay = Some(Duration::from_millis(50));
        config.retry.max_attempts = Some(8);
    });
    let call = crate::rig::spawn(async move { client.post("/").json(&1).await?.text().await });
    // Somebody listens there by the time of a later attempt.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let listener = tokio::net::TcpListener::bind(gone).await.unwrap();
    let served = crate::rig::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let count = crate::rig::Count::default();
        crate::rig::serve(socket, count, |_| async {
            Response::new(Body::from("late"))
        })
        .await;
    });
    assert_eq!(in_time(call).await.unwrap().unwrap(), "late");
    served.abort();
}

#[tokio::test]
async fn a_stale_connection_costs_an_idempotent_request_nothing() {
    // Each connection answers once and dies with the second request, as a server does that closes it unused.
    let server = Server::scripted(|_, mut raw: Raw| async move {
        raw.request().await.unwrap();
        raw.answer("hello").await;
        raw.request().await;
    })
    .await;
    let client = client(server.url(), |config| config.retry.max_attempts = Some(2));
    for _ in 0..3 {
        assert_eq!(
            client.get("/").await.unwrap().text().await.unwrap(),
            "hello"
        );
    }
    assert!(matches!(
        client.post("/").await,
        Err(ServiceError::ServiceUnavailable(_))
    ));
    assert!(
        client
            .circuit_states()
            .iter()
            .all(|state| state.circuit.failure_count <= 1)
    );
}

#[tokio::test]
async fn the_pause_that_is_asked_for_is_kept() {
    let asked = Server::start(|_| async {
        Response::builder()
            .status(429)
            .header("retry-after", "1")
            .body(Full::default())
            .unwrap()
    })
    .await;
    let client = client(asked.url(), |config| config.retry.max_attempts = Some(2));
    let began = tokio::time::Instant::now();
    assert_eq!(client.get("/").await.unwrap().status(), 429);
    assert_eq!(asked.count.requests(), 2);
    assert!(began.elapsed() >= Duration::from_secs(1));

    // Longer than there is time: the answer that is there is better than none.
    let hurried = client
        .get("/")
        .timeout(Duration::from_millis(900))
        .await
        .unwrap();
    assert_eq!(hurried.status(), 429);
    assert_eq!(asked.count.requests(), 3);
}

#[tokio::test]
async fn the_date_that_is_asked_for_is_waited_for() {
    let dates: Arc<Mutex<Vec<u64>>> = Arc::default();
    let told = Arc::clone(&dates);
    // Two seconds from now, without the fraction that a date of HTTP cannot hold.
    let asked = Server::start(move |request: Request<Incoming>| {
        let now = u64::try_from(SystemClock.now().unix_millis()).unwrap();
        let mut dates = told.lock().unwrap();
        let date = match request.uri().path() {
            "/past" => now / 1000 - 60,
            "/far" => now / 1000 + 3600,
            _ => now / 1000 + 2,
        };
        let answer = match dates.last() {
            // The latest that was told has come.
            Some(told) if told * 1000 <= now && request.uri().path() == "/" => text("in time"),
            _ => {
                let date = std::time::UNIX_EPOCH + Duration::from_secs(date);
                Response::builder()
                    .status(503)
                    .header("retry-after", httpdate::fmt_http_date(date))
                    .body(Full::default())
                    .unwrap()
            }
        };
        dates.push(date);
        async { answer }
    })
    .await;
    let client = client(asked.url(), |config| config.retry.max_attempts = Some(2));
    let answer = client.get("/").await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "in time");
    assert_eq!(asked.count.requests(), 2);
    // Nothing to wait for, and more than there is time for.
    assert_eq!(client.get("/past").await.unwrap().status(), 503);
    assert_eq!(asked.count.requests(), 4);
    assert_eq!(client.get("/far").await.unwrap().status(), 503);
    assert_eq!(asked.count.requests(), 5);
}

#[tokio::test]
async fn one_call_may_ask_for_something_else() {
    let server = Server::start(|_| async { status(503) }).await;
    let client = enhanced(server.url());
    client.get("/").no_retry().await.unwrap();
    assert_eq!(server.count.requests(), 1);
    client.get("/").max_attempts(2).await.unwrap();
    assert_eq!(server.count.requests(), 3);
    client
        .post("/")
        .idempotent(true)
        .max_attempts(2)
        .await
        .unwrap();
    assert_eq!(server.count.requests(), 5);
}

#[tokio::test]
async fn a_short_stream_is_sent_again_from_the_start_and_a_long_one_passes_once() {
    let tries = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |request: Request<Incoming>| {
        let number = tries.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if number.is_multiple_of(2) {
                status(503)
            } else {
                text(body)
            }
        }
    })
    .await;
    let client = enhanced(server.url());
    let pieces = |count: usize| {
        Body::stream(stream::iter(
            (0..count).map(|_| Ok::<_, Error>(Bytes::from("0123456789"))),
        ))
    };
    let short = client.put("/").body(pieces(10)).await.unwrap();
    assert_eq!(short.text().await.unwrap().len(), 100);
    assert_eq!(server.count.requests(), 2);
    let long = client.put("/").body(pieces(10_000)).await.unwrap();
    assert_eq!(long.status(), 503);
    assert_eq!(server.count.requests(), 3);
}

#[tokio::test]
async fn the_circuit_opens_refuses_and_closes_again() {
    let healthy = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&healthy);
    let server = Server::start(move |_| {
        let works = told.load(Ordering::SeqCst) == 1;
        async move { if works { text("hello") } else { status(500) } }
    })
    .await;
    let client = client(server.url(), |config| {
        config.circuit_breaker.recovery_timeout = Some(Duration::from_millis(50));
    });
    for _ in 0..5 {
        assert_eq!(client.get("/").await.unwrap().status(), 500);
    }
    let error = client.get("/").await.unwrap_err();
    assert!(matches!(error, ServiceError::CircuitOpen(_)), "{error:?}");
    let place = server.address.to_string();
    assert_eq!(&*error.circuit_open().unwrap().service, place);
    assert_eq!(server.count.requests(), 5, "what is refused is not sent");
    let states = client.circuit_states();
    assert_eq!(states.len(), 1);
    assert_eq!(
        (states[0].circuit.state, states[0].circuit.failure_count),
        (State::Open, 5)
    );
    assert!(states[0].circuit.last_failure_time.is_some());

    healthy.store(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(60)).await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.unwrap().status(), 200);
    }
    assert_eq!(client.circuit_states()[0].circuit.state, State::Closed);
}

#[tokio::test]
async fn each_configured_endpoint_has_its_own_circuit() {
    let server = Server::start(async |request: Request<Incoming>| {
        if request.uri().path().starts_with("/broken") {
            status(500)
        } else {
            text("hello")
        }
    })
    .await;
    let mut strict = EndpointConfig::default();
    strict.circuit_breaker.failure_threshold = Some(1);
    let client = EnhancedHttpClient::builder()
        .config(config(server.url(), |_| {}))
        .endpoint("GET /broken/{id}", strict)
        .endpoint("GET /users/{id}", EndpointConfig::default())
        .build()
        .unwrap();
    client.get("/broken/1").await.unwrap();
    assert!(matches!(
        client.get("/broken/2").await,
        Err(ServiceError::CircuitOpen(_))
    ));
    assert_eq!(client.get("/users/1").await.unwrap().status(), 200);
    assert_eq!(client.get("/elsewhere").await.unwrap().status(), 200);
    let states: Vec<_> = client
        .circuit_states()
        .into_iter()
        .map(|state| {
            (
                state.target.endpoint.map(|name| name.to_string()),
                state.circuit.state,
            )
        })
        .collect();
    assert_eq!(
        states,
        [
            (None, State::Closed),
            (Some("GET /broken/{id}".to_owned()), State::Open),
            (Some("GET /users/{id}".to_owned()), State::Closed),
        ]
    );
    // Raw paths never make circuits of their own.
    for number in 0..50 {
        client.get(format!("/raw/{number}")).await.unwrap();
    }
    assert_eq!(client.circuit_states().len(), 3);
}

#[tokio::test]
async fn all_callers_together_make_few_retries() {
    let server = Server::start(|_| async { status(503) }).await;
    let client = client(server.url(), |config| {
        config.retry.budget.min_per_second = Some(0);
        config.circuit_breaker.enabled = Some(false);
    });
    for _ in 0..100 {
        client.get("/").await.unwrap();
    }
    let requests = server.count.requests();
    assert!((101..=121).contains(&requests), "{requests}");
}

#[tokio::test]
async fn the_bulkhead_refuses_what_is_too_much() {
    let server = Server::start(|_| std::future::pending()).await;
    let client = client(server.url(), |config| {
        config.bulkhead.max_concurrent = Some(1);
        config.bulkhead.max_queue = Some(0);
    });
    let first = client.clone();
    let holder = crate::rig::spawn(async move { first.get("/").await });
    eventually("one is under way", || server.count.requests() == 1).await;
    let error = client.get("/").await.unwrap_err();
    assert!(
        matches!(error, ServiceError::ServiceUnavailable(_)),
        "{error:?}"
    );
    assert!(error.to_string().contains("bulkhead is full"), "{error}");
    assert_eq!(server.count.requests(), 1);
    holder.abort();
}

#[tokio::test]
async fn the_rate_limit_refuses_what_is_too_much_and_says_when_to_come_back() {
    let server = Server::start(|_| async { text("hello") }).await;
    let metrics = Metrics::new();
    let client = EnhancedHttpClient::builder()
        .config(config(server.url(), |config| {
            config.rate_limit.limit = Some(2);
            config.rate_limit.per = Some(Duration::from_secs(3600));
            config.rate_limit.max_wait = Some(Duration::ZERO);
        }))
        .service("users")
        .metrics(&metrics)
        .build()
        .unwrap();
    for _ in 0..2 {
        client.get("/").await.unwrap();
    }
    let error = Error::from(client.get("/").await.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Rejected);
    let after = trunkline_resilience::retry_after(&error).unwrap();
    assert!(after > Duration::from_secs(1000), "{after:?}");
    assert_eq!(server.count.requests(), 2);
    let shown = metrics.render(Format::Prometheus).unwrap();
    let line = r#"trunkline_rejections_total{service="users",reason="rate_limited"} 1"#;
    assert!(shown.contains(line), "{shown}");
}

#[tokio::test]
async fn answers_that_say_overloaded_lower_the_limit() {
    let server = Server::start(|_| async { status(503) }).await;
    let metrics = Metrics::new();
    let client = EnhancedHttpClient::builder()
        .config(config(server.url(), |config| {
            config.retry.enabled = Some(false);
            config.circuit_breaker.enabled = Some(false);
            config.concurrency.algorithm = Some(ConcurrencyAlgorithm::Aimd);
        }))
        .service("users")
        .metrics(&metrics)
        .build()
        .unwrap();
    in_time(async {
        loop {
            assert_eq!(client.get("/").await.unwrap().status().as_u16(), 503);
            let shown = metrics.render(Format::Prometheus).unwrap();
            if shown.contains(r#"trunkline_concurrency_limit{service="users",endpoint="*"} 18"#) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_lost_answer_was_processed_by_the_server() {
    let server = Server::start(|_| async { text("hello") }).await;
    let client = client(server.url(), |config| {
        config.chaos.enabled = Some(true);
        config.chaos.abort.percent = Some(100.0);
        config.chaos.only.attempts = Some(vec![1]);
    });
    client.get("/").await.unwrap();
    assert_eq!(server.count.requests(), 2);
    // What must not happen twice is not sent again.
    client.post("/").await.unwrap_err();
    assert_eq!(server.count.requests(), 3);
}

#[tokio::test]
async fn a_circuit_is_shown_as_closed_from_the_start_and_with_many_targets_as_it_is() {
    let server = Server::start(|_| async { status(500) }).await;
    let metrics = Metrics::new();
    let client = EnhancedHttpClient::builder()
        .config(config(server.url(), |config| {
            config.circuit_breaker.failure_threshold = Some(1);
        }))
        .service("users")
        .endpoint("GET /users/{id}", EndpointConfig::default())
        .metrics(&metrics)
        .build()
        .unwrap();
    let shows = |endpoint: &str, state: u8| {
        let text = metrics.render(Format::Prometheus).unwrap();
        let line =
            format!(r#"trunkline_circuit_state{{service="users",endpoint="{endpoint}"}} {state}"#);
        assert!(text.contains(&line), "{line} is not in\n{text}");
    };
    shows("*", 0);
    shows("GET /users/{id}", 0);
    client.get("/users/1").await.unwrap();
    shows("GET /users/{id}", 2);
    // What looks it up again changes nothing.
    drop(metrics.resilience("users").circuit("GET /users/{id}"));
    shows("GET /users/{id}", 2);
    // Without a breaker there is no circuit to show.
    let plain = trunkline_http::HttpClient::builder()
        .base_url(server.url())
        .service("plain")
        .metrics(&metrics);
    plain.build().unwrap();
    let text = metrics.render(Format::Prometheus).unwrap();
    assert!(!text.contains(r#"circuit_state{service="plain""#), "{text}");
}

#[tokio::test]
async fn policies_of_the_process_apply_and_their_state_is_shared() {
    let server = Server::start(|_| async { status(500) }).await;
    let metrics = Metrics::new();
    let registry = PolicyRegistry::builder()
        .observer(PolicyMetrics::new(&metrics))
        .build();
    let make = || {
        EnhancedHttpClient::builder()
            .base_url(server.url())
            .service("users")
            .metrics(&metrics)
            .policies(&registry, |target| {
                assert_eq!(&*target.service, "users");
                let mut policy = PolicyConfig::default();
                policy.circuit_breaker.failure_threshold = Some(2);
                let layers = PolicyLayers::new();
                let layers = layers.push(Layer::Default("default".into()), policy, |_| None);
                Arc::new(layers.resolve().unwrap().policy)
            })
            .build()
            .unwrap()
    };
    make().get("/").await.unwrap();
    make().get("/").await.unwrap();
    assert!(matches!(
        make().get("/").await,
        Err(ServiceError::CircuitOpen(_))
    ));
    let text = metrics.render(Format::Prometheus).unwrap();
    for line in [
        r#"trunkline_circuit_state{service="users",endpoint="*"} 2"#,
        r#"trunkline_rejections_total{service="users",reason="circuit_open"} 1"#,
        "http_client_request_duration_seconds_count",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn every_attempt_can_be_found_in_the_error() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        raw.request().await;
    })
    .await;
    let error = enhanced(server.url())
        .get("/users/1?token=secret")
        .await
        .unwrap_err();
    let exhausted = error.retry_exhausted().unwrap();
    assert_eq!((exhausted.attempts, exhausted.earlier.len()), (3, 2));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let report = error.error().unwrap().report().to_string();
    assert!(report.contains("GET /users/1"), "{report}");
    assert!(!report.contains("secret"), "{report}");
}

#[tokio::test]
async fn what_was_retried_at_the_tier_below_is_not_retried_here() {
    const HEADER: &str = "x-retries-exhausted";
    // The tier below has called on, retried and given up.
    let below = Server::start(|_| async {
        let mut answer = status(503);
        answer.headers_mut().insert(HEADER, "true".parse().unwrap());
        answer
    })
    .await;
    let client = enhanced(below.url());
    let answer = client.get("/").await.unwrap();
    assert_eq!(answer.headers()[HEADER], "true", "it is told further up");
    assert_eq!(below.count.requests(), 1);
    // And nobody blames who stands in between: its circuit is not the one to open.
    for _ in 0..10 {
        client.get("/").await.unwrap();
    }
    assert_eq!(client.circuit_states()[0].circuit.state, State::Closed);
    assert_eq!(below.count.requests(), 11);

    // Who stands next to the trouble retries, and then says so in the answer and in what becomes of it.
    let broken = Server::start(|_| async { status(503) }).await;
    let client = enhanced(broken.url());
    let answer = client.get("/").await.unwrap();
    assert_eq!(broken.count.requests(), 3);
    assert_eq!(answer.headers()[HEADER], "true");
    let error = Error::from(answer.error_for_status().await.unwrap_err());
    assert!(
        trunkline_resilience::RetriedBelow::is_in(&error),
        "{error:?}"
    );
    // What may not be repeated had no retries.
    let answer = client.post("/").await.unwrap();
    assert!(!answer.headers().contains_key(HEADER));
}

#[tokio::test]
async fn every_attempt_is_told_where_the_last_answer_is_an_error() {
    let server = Server::scripted(|number, mut raw: Raw| async move {
        raw.request().await.unwrap();
        if number > 0 {
            raw.write("HTTP/1.1 503 Later\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await;
        }
    })
    .await;
    let client = client(server.url(), |config| {
        config.retry.delay = Some(Duration::from_millis(1));
        config.retry.max_attempts = Some(3);
    });
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), 503);
    let told = response.retry_exhausted().unwrap();
    assert_eq!((told.attempts, told.earlier.len()), (3, 2));
    let error = response.error_for_status().await.unwrap_err();
    assert_eq!(error.status_code().unwrap(), 503);
    let told = error.retry_exhausted().unwrap();
    assert_eq!((told.attempts, told.earlier.len()), (3, 2));
    let text: Vec<_> = told
        .earlier
        .iter()
        .map(|one| one.failure.to_string())
        .collect();
    assert!(
        text[0].contains("connection") && text[1].contains("503"),
        "{text:?}"
    );
    // One that is given on as an error keeps them.
    let error: ServiceError = Error::from(error).into();
    assert_eq!(error.retry_exhausted().unwrap().attempts, 3);
}

#[tokio::test]
async fn requests_are_no_more_than_attempts_allowed() {
    // Each connection answers once and dies with the second request.
    let server = Server::scripted(|number, mut raw: Raw| async move {
        raw.request().await.unwrap();
        if number < 2 {
            raw.answer("hello").await;
            raw.request().await;
        }
    })
    .await;
    let client = client(server.url(), |config| {
        config.retry.delay = Some(Duration::from_millis(1));
        config.retry.max_attempts = Some(3);
    });
    for calls in [1, 2] {
        let answer = client.get("/").await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "hello");
        let seen = server.count.requests();
        assert_eq!(seen, 2 * calls - 1);
    }
    let before = server.count.requests();
    let error = client.get("/").no_retry().await.unwrap_err();
    assert!(
        matches!(error, ServiceError::ServiceUnavailable(_)),
        "{error:?}"
    );
    assert_eq!(server.count.requests() - before, 1);
}

#[tokio::test]
async fn a_request_sent_again_at_once_is_one_of_the_attempts() {
    let server = Server::scripted(|number, mut raw: Raw| async move {
        raw.request().await.unwrap();
        if number == 0 {
            raw.answer("hello").await;
            raw.request().await;
        }
    })
    .await;
    let client = client(server.url(), |config| {
        config.retry.delay = Some(Duration::from_millis(1));
        config.retry.max_attempts = Some(3);
    });
    client.get("/").await.unwrap().text().await.unwrap();
    let error = client.get("/").await.unwrap_err();
    assert_eq!(server.count.requests(), 1 + 3);
    assert_eq!(error.retry_exhausted().unwrap().attempts, 3);
}
