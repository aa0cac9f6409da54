//! What a client sees when something behind the gateway fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::{any, get};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use trunkline_discovery::ServiceConfig;
use trunkline_gateway::{GatewayConfig, RouteConfig};

use crate::system::{
    Dropped, Gateway, SOON, nobody, pieces, problem, read_until, scripted, upstream, whole,
};

/// Retries come at once, so that tests need not wait for them.
fn quick(mut service: ServiceConfig) -> ServiceConfig {
    service.retry.delay = Some(Duration::from_millis(1));
    service.retry.max_attempts = Some(3);
    service
}

/// Time stands still until the test moves it: a paused clock moves by itself only while no thread is blocked.
fn freeze() -> std::sync::mpsc::Sender<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    drop(tokio::task::spawn_blocking(move || receiver.recv()));
    sender
}

fn counting(answer: u16) -> (Router, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = any(async move |_: Request| {
        counted.fetch_add(1, Ordering::SeqCst);
        http::StatusCode::from_u16(answer).unwrap()
    });
    (Router::new().fallback(handler), calls)
}

fn post(path: &str, body: &str) -> http::Request<String> {
    http::Request::post(path).body(body.to_owned()).unwrap()
}

#[tokio::test]
async fn a_dead_instance_costs_nothing_but_a_retry() {
    let (router, calls) = counting(200);
    let (alive, dead) = (upstream(router).await, nobody());
    let gateway = Gateway::with(
        &[("user-service", &[dead.address, alive.local_addr()])],
        |config| config,
        quick,
    )
    .await;
    // A POST too: nothing of it was sent to the dead one.
    for round in 0..10 {
        assert_eq!(
            gateway.ask(post("/api/v1/users", "a body")).await.status(),
            200,
            "{round}"
        );
    }
    assert_eq!(calls.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn nobody_to_ask_is_503() {
    let dead = nobody();
    let gateway = Gateway::with(
        &[("user-service", &[dead.address]), ("order-service", &[])],
        |config| config,
        quick,
    )
    .await;
    let document = problem(&gateway.get("/api/v1/users").await);
    assert_eq!(
        (document["status"].as_u64(), document["service"].as_str()),
        (Some(503), Some("user-service"))
    );
    assert!(!document.to_string().contains("127.0.0.1"), "{document}");
    assert_eq!(problem(&gateway.get("/api/v1/orders").await)["status"], 503);
}

#[tokio::test(start_paused = true)]
async fn a_slow_service_is_504_within_the_clients_deadline_and_stops_working() {
    let frozen = freeze();
    let (router, begun, ended) = stuck();
    let users = upstream(router).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let request = http::Request::get("/api/v1/users")
        .header("x-request-timeout-ms", "5000")
        .body(String::new())
        .unwrap();
    let in_vain = async {
        begun.notified().await;
        tokio::time::advance(Duration::from_secs(5)).await;
    };
    let (answer, ()) = tokio::join!(gateway.ask(request), in_vain);
    let document = problem(&answer);
    assert_eq!(document["status"], 504);
    assert_eq!(document["service"], "user-service");
    ended.notified().await;
    drop(frozen);
}

#[tokio::test]
async fn a_slow_service_is_504_within_the_policys_limit() {
    let stuck = get(async || std::future::pending::<()>().await);
    let users = upstream(Router::new().route("/api/v1/users", stuck)).await;
    let limited = |service: ServiceConfig| service.with_timeout(Duration::from_millis(100));
    let gateway = Gateway::with(
        &[("user-service", &[users.local_addr()])],
        |config| config,
        limited,
    )
    .await;
    let document = problem(&gateway.get("/api/v1/users").await);
    assert_eq!(document["status"], 504);
    assert_eq!(document["service"], "user-service");
}

#[tokio::test]
async fn what_is_idempotent_is_tried_elsewhere_and_the_rest_is_not() {
    let (failing, failed) = counting(503);
    let (sound, answered) = counting(200);
    let (one, other) = (upstream(failing).await, upstream(sound).await);
    let places = [one.local_addr(), other.local_addr()];
    let gateway = Gateway::with(&[("user-service", &places)], |config| config, quick).await;
    for _ in 0..6 {
        assert_eq!(gateway.get("/api/v1/users").await.status(), 200);
    }
    let gateway = Gateway::with(
        &[("user-service", &[one.local_addr()])],
        |config| config,
        quick,
    )
    .await;
    let before = failed.load(Ordering::SeqCst);
    // Passed on as it is, and asked once.
    assert_eq!(gateway.ask(post("/api/v1/users", "")).await.status(), 503);
    assert_eq!(failed.load(Ordering::SeqCst), before + 1);
    let mut keyed = post("/api/v1/users", "a body");
    keyed
        .headers_mut()
        .insert("idempotency-key", "k".parse().unwrap());
    assert_eq!(gateway.ask(keyed).await.status(), 503);
    assert_eq!(failed.load(Ordering::SeqCst), before + 4);
    assert!(answered.load(Ordering::SeqCst) >= 6);
}

/// Reads a request's head, answers with these bytes, and closes.
async fn breaking_off(answer: &'static str) -> std::net::SocketAddr {
    scripted(async move |mut stream: TcpStream| {
        read_until(&mut stream, "\r\n\r\n").await;
        drop(stream.write_all(answer.as_bytes()).await);
    })
    .await
}

#[tokio::test]
async fn answers_that_are_none_are_502() {
    for answer in [
        "",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 99999 No\r\n\r\n",
    ] {
        let broken = breaking_off(answer).await;
        let gateway = Gateway::with(&[("user-service", &[broken])], |config| config, quick).await;
        let document = problem(&gateway.ask(post("/api/v1/users", "")).await);
        assert_eq!(document["status"], 502, "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly a part",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\nonly a part\r\n",
    ] {
        let broken = breaking_off(answer).await;
        let gateway = Gateway::before(&[("user-service", &[broken])]).await;
        let got = gateway
            .raw("GET /api/v1/users HTTP/1.1\r\nhost: x\r\n\r\n")
            .await;
        // Nothing at all, a length that is not reached, or no last chunk: the client can tell.
        let whole = got.contains(&format!("{:100}", "only a part")) || got.ends_with("0\r\n\r\n");
        assert!(
            !whole && (got.is_empty() || got.starts_with("HTTP/1.1 200")),
            "{got}"
        );
        // Over HTTP/2 the stream is reset, before its head or after it.
        let request = http::Request::get("/api/v1/users")
            .body(Full::new(Bytes::new()))
            .unwrap();
        if let Ok(response) = gateway.try_http2(request).await {
            assert!(
                timeout(SOON, response.into_body().collect())
                    .await
                    .unwrap()
                    .is_err()
            );
        }
    }
}

#[tokio::test]
async fn a_service_that_dies_in_the_middle_ends_the_answer() {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let stream = get(async move || {
        let receiver = receiver.lock().unwrap().take().unwrap();
        Body::from_stream(pieces(receiver))
    });
    let users = upstream(Router::new().route("/api/v1/users", stream)).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    sender.send(Bytes::from("first")).await.unwrap();
    let request = http::Request::get("/api/v1/users")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let mut body = gateway.open(request).await.into_body();
    let first = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    // The deadline has passed: its connections are dropped.
    assert_eq!(users.stop(Instant::now()).await, 1);
    assert!(timeout(SOON, body.collect()).await.unwrap().is_err());
}

/// Tells when its handler begins, never answers, and tells when the handler is dropped.
fn stuck() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (begun, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_begun, tell_ended) = (Arc::clone(&begun), Arc::clone(&ended));
    let handler = any(async move || {
        let _dropped = Dropped(Arc::clone(&tell_ended));
        tell_begun.notify_one();
        std::future::pending::<()>().await;
    });
    (Router::new().fallback(handler), begun, ended)
}

#[tokio::test]
async fn a_client_that_leaves_is_not_worked_for() {
    let (router, begun, ended) = stuck();
    let users = upstream(router).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let mut stream = gateway.connect().await;
    stream
        .write_all(b"GET /api/v1/users HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    timeout(SOON, begun.notified()).await.unwrap();
    drop(stream);
    timeout(SOON, ended.notified()).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_not_worked_for() {
    let (router, begun, ended) = stuck();
    let users = upstream(router).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let request = http::Request::get("/api/v1/users")
        .body(Full::new(Bytes::new()))
        .unwrap();
    tokio::select! {
        _ = gateway.try_http2(request) => panic!("nobody answers"),
        () = begun.notified() => {}
    }
    timeout(SOON, ended.notified()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_ends_the_services_stream() {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let stream = get(async move || {
        let receiver = receiver.lock().unwrap().take().unwrap();
        Body::from_stream(pieces(receiver))
    });
    let users = upstream(Router::new().route("/api/v1/users", stream)).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    sender.send(Bytes::from("first")).await.unwrap();
    let request = http::Request::get("/api/v1/users")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let mut body = gateway.open(request).await.into_body();
    timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
    drop(body);
    timeout(SOON, sender.closed()).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_not_made_whole_and_is_not_the_services_fault() {
    let whole = Arc::new(AtomicUsize::new(0));
    let (begun, broken) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_begun, tell_broken, count) =
        (Arc::clone(&begun), Arc::clone(&broken), Arc::clone(&whole));
    let reading = any(async move |request: Request| {
        let mut body = request.into_body();
        // Told when dropped too: the connection may end before the body says so.
        let _broken = Dropped(Arc::clone(&tell_broken));
        let mut sound = true;
        while let Some(frame) = body.frame().await {
            tell_begun.notify_one();
            sound &= frame.is_ok();
        }
        if sound {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let users = upstream(Router::new().fallback(reading)).await;
    let breaking = |mut service: ServiceConfig| {
        service.circuit_breaker.failure_threshold = Some(2);
        service
    };
    let places = [users.local_addr()];
    let gateway = Gateway::with(&[("user-service", &places)], |config| config, breaking).await;
    for head in [
        "content-length: 100\r\n\r\na part",
        "transfer-encoding: chunked\r\n\r\n6\r\na part\r\n",
    ] {
        for _ in 0..3 {
            let mut stream = gateway.connect().await;
            let text = format!("POST /api/v1/users HTTP/1.1\r\nhost: x\r\n{head}");
            stream.write_all(text.as_bytes()).await.unwrap();
            timeout(SOON, begun.notified()).await.unwrap();
            drop(stream);
            timeout(SOON, broken.notified()).await.unwrap();
        }
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0);
    assert_eq!(
        gateway.ask(post("/api/v1/users", "all")).await.status(),
        200
    );
    assert_eq!(whole.load(Ordering::SeqCst), 1);
}

/// Answers `/ok` and keeps the connection; whatever else it is asked, it reads to its end and closes without an answer.
/// Counts what it was asked and did not answer.
async fn dying() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let address = scripted(move |mut stream: TcpStream| {
        let counter = Arc::clone(&counter);
        async move {
            loop {
                let head = read_until(&mut stream, "\r\n\r\n").await;
                let request = head + &read_until(&mut stream, "the end").await;
                if !request.ends_with("the end") {
                    return;
                }
                if !request.contains("/ok ") {
                    counter.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    (address, asked)
}

#[tokio::test]
async fn what_may_have_been_processed_is_sent_again_only_with_a_key() {
    let (address, asked) = dying().await;
    let gateway = Gateway::with(&[("user-service", &[address])], |config| config, quick).await;
    for reused in [false, true] {
        if reused {
            let kept = gateway.ask(post("/api/v1/users/ok", "the end")).await;
            assert_eq!(kept.status(), 200);
        }
        asked.store(0, Ordering::SeqCst);
        let plain = gateway.ask(post("/api/v1/users", "the end")).await;
        assert_eq!(problem(&plain)["status"], 502);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "reused: {reused}");
    }
    asked.store(0, Ordering::SeqCst);
    let mut keyed = post("/api/v1/users", "the end");
    let headers = keyed.headers_mut();
    headers.insert("idempotency-key", "k".parse().unwrap());
    assert_eq!(problem(&gateway.ask(keyed).await)["status"], 502);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_may_have_been_processed_is_502_although_the_next_attempt_is_refused() {
    let (address, asked) = dying().await;
    let breaking = |service: ServiceConfig| {
        let mut service = quick(service);
        service.circuit_breaker.failure_threshold = Some(1);
        service
    };
    let gateway = Gateway::with(&[("user-service", &[address])], |config| config, breaking).await;
    // The first one is lost and opens the circuit for its second attempt; of the other nothing is sent.
    for (status, sent) in [(502, 1), (503, 1)] {
        let mut keyed = post("/api/v1/users", "the end");
        let headers = keyed.headers_mut();
        headers.insert("idempotency-key", "k".parse().unwrap());
        assert_eq!(problem(&gateway.ask(keyed).await)["status"], status);
        assert_eq!(asked.load(Ordering::SeqCst), sent);
    }
}

#[tokio::test]
async fn one_request_too_many_is_503_and_the_gateways_health_still_answers() {
    let (router, begun, ended) = stuck();
    let users = upstream(router).await;
    let one = |mut config: GatewayConfig| {
        config.max_in_flight = 1;
        config
    };
    let places = [users.local_addr()];
    let gateway = Gateway::with(&[("user-service", &places)], one, |service| service).await;
    let mut first = gateway.connect().await;
    first
        .write_all(b"GET /api/v1/users HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    timeout(SOON, begun.notified()).await.unwrap();
    let refused = gateway.get("/api/v1/users").await;
    assert_eq!(problem(&refused)["status"], 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(gateway.get("/health").await.status(), 200);
    // Its place is free when its client has gone.
    drop(first);
    timeout(SOON, ended.notified()).await.unwrap();
    let again = async {
        while gateway.get("/api/v1/orders").await.status() == 503 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, again).await.unwrap();
}

/// Who is not let through, comes too late, or leaves, is counted on the route too, and a path that is none is not.
#[tokio::test(start_paused = true)]
async fn what_the_service_did_not_answer_is_measured_on_its_route() {
    let frozen = freeze();
    let (router, begun, ended) = stuck();
    let users = upstream(router).await;
    let small = |mut config: GatewayConfig| {
        config.max_in_flight = 1;
        config.body_limit = trunkline_core::size::ByteSize::new(10);
        config.with_route(RouteConfig::new("/people", "user-service").with_methods(["PUT"]))
    };
    let places = [users.local_addr()];
    let gateway = Gateway::with(&[("user-service", &places)], small, |service| service).await;
    let large = post("/api/v1/users/1", "more than ten bytes");
    assert_eq!(gateway.ask(large).await.status(), 413);
    assert_eq!(gateway.get("/people/1").await.status(), 405);
    assert_eq!(gateway.get("/nowhere").await.status(), 404);

    let mut leaving = gateway.connect().await;
    let head = b"GET /api/v1/users/1 HTTP/1.1\r\nhost: x\r\n\r\n";
    leaving.write_all(head).await.unwrap();
    begun.notified().await;
    assert_eq!(gateway.get("/api/v1/users/2").await.status(), 503);
    drop(leaving);
    ended.notified().await;

    // So late that it is not let in.
    let late = http::Request::put("/api/v1/users/1")
        .header("x-request-timeout-ms", "0")
        .body(String::new())
        .unwrap();
    assert_eq!(gateway.ask(late).await.status(), 504);

    let metrics = gateway.get("/metrics").await;
    let text = String::from_utf8_lossy(metrics.body()).into_owned();
    for (method, route, status) in [
        ("POST", "/api/v1/users", 413),
        ("GET", "/people", 405),
        ("GET", "unmatched", 404),
        ("GET", "/api/v1/users", 499),
        ("GET", "/api/v1/users", 503),
        ("PUT", "/api/v1/users", 504),
    ] {
        let line = format!(
            r#"http_request_method="{method}",http_route="{route}",http_response_status_code="{status}""#
        );
        assert!(text.contains(&line), "{line}\n{text}");
    }
    drop(frozen);
}

#[tokio::test]
async fn a_failing_service_opens_its_circuit_and_the_client_is_told_when_to_come_back() {
    let (router, calls) = counting(500);
    let users = upstream(router).await;
    let breaking = |mut service: ServiceConfig| {
        service.circuit_breaker.failure_threshold = Some(3);
        service
    };
    let gateway = Gateway::with(
        &[("user-service", &[users.local_addr()])],
        |config| config,
        breaking,
    )
    .await;
    for _ in 0..3 {
        assert_eq!(gateway.ask(post("/api/v1/users", "")).await.status(), 500);
    }
    let refused = gateway.ask(post("/api/v1/users", "")).await;
    assert_eq!(problem(&refused)["status"], 503);
    let wait: u64 = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_body_that_has_passed_is_not_sent_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let read_and_fail = any(async move |request: Request| {
        drop(request.into_body().collect().await);
        counted.fetch_add(1, Ordering::SeqCst);
        http::StatusCode::SERVICE_UNAVAILABLE
    });
    let users = upstream(Router::new().fallback(read_and_fail)).await;
    let gateway = Gateway::with(
        &[("user-service", &[users.local_addr()])],
        |config| config,
        quick,
    )
    .await;
    let piece = || Bytes::from(vec![0u8; 32 * 1024]);
    for (pieces, expected) in [(1, 3), (10, 1)] {
        calls.store(0, Ordering::SeqCst);
        let stream = futures_util::stream::iter(
            (0..pieces).map(move |_| Ok::<_, std::io::Error>(Frame::data(piece()))),
        );
        let request = http::Request::put("/api/v1/users/1")
            .body(StreamBody::new(stream.boxed()))
            .unwrap();
        assert_eq!(whole(gateway.open(request).await).await.status(), 503);
        assert_eq!(calls.load(Ordering::SeqCst), expected, "{pieces}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_last_longer_than_the_limit_of_its_head() {
    let frozen = freeze();
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let stream = get(async move || {
        let receiver = receiver.lock().unwrap().take().unwrap();
        Body::from_stream(pieces(receiver))
    });
    let users = upstream(Router::new().route("/api/v1/users", stream)).await;
    let limited = |service: ServiceConfig| service.with_timeout(Duration::from_secs(5));
    let gateway = Gateway::with(
        &[("user-service", &[users.local_addr()])],
        |config| config,
        limited,
    )
    .await;
    let request = http::Request::get("/api/v1/users")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let mut body = gateway.open(request).await.into_body();
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(4)).await;
        sender.send(Bytes::from("piece")).await.unwrap();
        let piece = body.frame().await.unwrap().unwrap();
        assert_eq!(piece.into_data().unwrap(), "piece");
    }
    drop(sender);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "");
    drop(frozen);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_reads_and_nobody_ends_is_given_up() {
    let frozen = freeze();
    let closed = Arc::new(Notify::new());
    let tell = Arc::clone(&closed);
    let users = scripted(move |mut stream: TcpStream| {
        let tell = Arc::clone(&tell);
        async move {
            let _closed = Dropped(tell);
            read_until(&mut stream, "\r\n\r\n").await;
            let refused = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(refused).await.unwrap();
            while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
        }
    })
    .await;
    let gateway = Gateway::before(&[("user-service", &[users])]).await;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    sender.send(Bytes::from("a part")).await.unwrap();
    let body = pieces(receiver).map(|piece| piece.map(Frame::data));
    let request = http::Request::post("/api/v1/users")
        .body(StreamBody::new(body))
        .unwrap();
    let response = gateway.open(request).await;
    assert_eq!(response.status(), 413);
    tokio::time::advance(Duration::from_secs(31)).await;
    drop(frozen);
    // Before the client's own connection is given up.
    timeout(SOON, closed.notified()).await.unwrap();
    drop((sender, response));
}

#[tokio::test]
async fn a_service_that_leads_back_is_a_loop() {
    // Bound first, so that the gateway's own address is known before it is built.
    let listener = trunkline_server::serve::Listener::bind("127.0.0.1", 0)
        .await
        .unwrap();
    let own = listener.local_addr();
    let discovery = trunkline_discovery::Discovery::builder().build();
    let config = GatewayConfig::default()
        .with_service_at(
            "user-service",
            ServiceConfig::at(own.ip().to_string(), own.port()),
        )
        .unwrap();
    let gateway = trunkline_gateway::ApiGateway::builder(config)
        .with_discovery(&discovery)
        .unwrap();
    let router = gateway.router();
    let _serving = listener.serve(
        trunkline_server::serve::ConnectionLimits::default(),
        move |_| router.clone(),
    );
    let mut stream = TcpStream::connect(own).await.unwrap();
    stream
        .write_all(b"GET /api/v1/users HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut bytes = Vec::new();
    timeout(SOON, stream.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    let got = String::from_utf8_lossy(&bytes).into_owned();
    assert!(got.starts_with("HTTP/1.1 508"), "{got}");
}
