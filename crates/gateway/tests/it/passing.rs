//! What passes through, both ways.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use trunkline_gateway::RouteConfig;

use crate::system::{Gateway, SOON, pieces, problem, read_until, scripted, soon, upstream, whole};

/// Tells what it was asked.
async fn tell(request: Request) -> impl IntoResponse {
    let mut headers: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    format!(
        "{method} {uri}\n{}\n\n{}",
        headers.join("\n"),
        String::from_utf8_lossy(&body)
    )
}

fn telling(name: &'static str) -> Router {
    Router::new().fallback(any(async move |request: Request| {
        let told = tell(request).await.into_response();
        ([("x-from", name)], told)
    }))
}

#[tokio::test]
async fn x42_requests_find_their_service_with_their_path_unchanged() {
    let (users, orders) = (
        upstream(telling("users")).await,
        upstream(telling("orders")).await,
    );
    let gateway = Gateway::with(
        &[
            ("user-service", &[users.local_addr()]),
            ("order-service", &[orders.local_addr()]),
        ],
        |config| {
            config.with_route(RouteConfig::new("/shop", "order-service").with_methods(["GET"]))
        },
        |service| service,
    )
    .await;
    for (path, from) in [
        ("/api/v1/users/1?verbose=a%20b", "users"),
        ("/api/v1/users", "users"),
        ("/api/v1/orders/7/items", "orders"),
        ("/shop/orders", "orders"),
    ] {
        let response = gateway.get(path).await;
        assert_eq!(response.headers()["x-from"], from, "{path}");
        let told = String::from_utf8_lossy(response.body()).into_owned();
        assert!(told.starts_with(&format!("GET {path}\n")), "{told}");
    }
    for (path, status) in [
        ("/", 404),
        ("/api/v1", 404),
        ("/api/v1/payments", 404),
        ("/api/v2/users", 404),
    ] {
        assert_eq!(
            problem(&gateway.get(path).await)["status"],
            status,
            "{path}"
        );
    }
    let head = http::Request::head("/shop/orders").body(String::new());
    let answer = gateway.ask(head.unwrap()).await;
    assert_eq!(answer.headers()["x-from"], "orders", "GET takes HEAD");
    let post = http::Request::post("/shop/orders")
        .body(String::new())
        .unwrap();
    let refused = gateway.ask(post).await;
    assert_eq!(
        (
            problem(&refused)["status"].as_u64(),
            &refused.headers()["allow"]
        ),
        (Some(405), &"GET, HEAD".parse().unwrap())
    );
    gateway.stop().await;
}

#[tokio::test]
async fn headers_are_those_of_the_next_hop() {
    let users = upstream(telling("users")).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let request = http::Request::patch("/api/v1/users/1")
        .header("x-correlation-id", "abc")
        .header("x-request-timeout-ms", "5000")
        .header("authorization", "Bearer x")
        .header("connection", "keep-alive, x-private")
        .header("x-private", "1")
        .header("x-forwarded-for", "198.51.100.9")
        .header("host", "api.example.com")
        .body("a body".to_owned())
        .unwrap();
    let response = gateway.ask(request).await;
    assert_eq!(response.headers()["x-correlation-id"], "abc");
    let told = String::from_utf8_lossy(response.body()).into_owned();
    for line in [
        "PATCH /api/v1/users/1",
        "authorization: Bearer x",
        "content-length: 6",
        "x-correlation-id: abc",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: api.example.com",
        &format!("host: {}", users.local_addr()),
        "a body",
    ] {
        assert!(told.lines().any(|told| told == line), "{line}\nin\n{told}");
    }
    assert!(
        !told.contains("x-private") && !told.contains("198.51.100.9"),
        "{told}"
    );
    let left = told
        .lines()
        .find_map(|line| line.strip_prefix("x-request-timeout-ms: "))
        .unwrap();
    assert!((1..=5000).contains(&left.parse::<u64>().unwrap()));
    assert!(
        told.contains("\nvia: 1.1 trunkline-") && told.contains("\ntraceparent: 00-"),
        "{told}"
    );
}

#[tokio::test]
async fn what_a_proxy_in_front_says_is_believed_only_where_that_is_configured() {
    for trusted in [true, false] {
        let users = upstream(telling("users")).await;
        let gateway = Gateway::with(
            &[("user-service", &[users.local_addr()])],
            |config| config.with_trust_forwarded(trusted),
            |service| service,
        )
        .await;
        let request = http::Request::get("/api/v1/users/1")
            .header("forwarded", "for=198.51.100.9;proto=https")
            .header("x-forwarded-for", "198.51.100.9")
            .header("x-forwarded-host", "shop.example.com")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-port", "443")
            .header("x-real-ip", "198.51.100.9")
            .header("host", "api.example.com")
            .body(String::new())
            .unwrap();
        let response = gateway.ask(request).await;
        let told = String::from_utf8_lossy(response.body()).into_owned();
        let expected: &[&str] = if trusted {
            &[
                "x-forwarded-for: 198.51.100.9, 127.0.0.1",
                "x-forwarded-host: shop.example.com",
                "x-forwarded-proto: https",
                "x-forwarded-port: 443",
                "x-real-ip: 198.51.100.9",
            ]
        } else {
            &[
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: api.example.com",
                "x-forwarded-proto: http",
            ]
        };
        for line in expected {
            assert!(told.lines().any(|told| told == *line), "{line}\nin\n{told}");
        }
        let claimed =
            told.contains("198.51.100.9") || told.contains("https") || told.contains("shop");
        assert_eq!(claimed, trusted, "{told}");
        let mut lines = told.lines();
        let forwarded = lines.find(|line| line.starts_with("forwarded: ")).unwrap();
        let earlier = "forwarded: for=198.51.100.9;proto=https, ";
        assert_eq!(forwarded.starts_with(earlier), trusted, "{forwarded}");
        assert!(forwarded.contains("for=127.0.0.1"), "{forwarded}");
    }
}

/// Else anybody would be served before everybody else, and might be hit by chaos that is meant for testers.
#[tokio::test]
async fn what_a_client_says_of_its_importance_is_believed_only_where_that_is_configured() {
    for trusted in [true, false] {
        let users = upstream(telling("users")).await;
        let gateway = Gateway::with(
            &[("user-service", &[users.local_addr()])],
            |config| config.with_trust_baggage(trusted),
            |service| service,
        )
        .await;
        let request = http::Request::get("/api/v1/users/1")
            .header("baggage", "priority=critical,chaos=on")
            .header("baggage", "tenant=acme")
            .header("x-correlation-id", "mine")
            .body(String::new())
            .unwrap();
        let response = gateway.ask(request).await;
        let told = String::from_utf8_lossy(response.body()).into_owned();
        let baggage = told.lines().find(|line| line.starts_with("baggage: "));
        let expected = trusted.then_some("baggage: priority=critical,chaos=on");
        assert_eq!(baggage, expected, "{told}");
        assert!(told.contains("\nx-correlation-id: mine\n"), "{told}");
    }
}

#[tokio::test]
async fn a_deadline_beyond_the_policys_is_cut_to_it() {
    let users = upstream(telling("users")).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    for asked in [None, Some("86400000"), Some("soon")] {
        let mut request = http::Request::get("/api/v1/users")
            .body(String::new())
            .unwrap();
        if let Some(asked) = asked {
            let headers = request.headers_mut();
            headers.insert("x-request-timeout-ms", asked.parse().unwrap());
        }
        let told = String::from_utf8_lossy(gateway.ask(request).await.body()).into_owned();
        let mut lines = told.lines();
        let left = lines.find_map(|line| line.strip_prefix("x-request-timeout-ms: "));
        assert!(
            (1..=30_000).contains(&left.unwrap().parse::<u64>().unwrap()),
            "{told}"
        );
    }
}

#[tokio::test]
async fn headers_of_the_services_connection_end_at_the_gateway() {
    let users = scripted(async |mut stream: TcpStream| {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close, x-private\r\nx-private: 1\r\n\
            keep-alive: timeout=5\r\nproxy-authenticate: Basic\r\nupgrade: h2c\r\nx-public: 1\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let gateway = Gateway::before(&[("user-service", &[users])]).await;
    let response = gateway.get("/api/v1/users").await;
    assert_eq!(response.body(), "ok");
    assert_eq!(response.headers()["x-public"], "1");
    for name in [
        "connection",
        "x-private",
        "keep-alive",
        "proxy-authenticate",
        "upgrade",
    ] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_services_errors_are_passed_on_as_they_are() {
    let router = Router::new()
        .route(
            "/api/v1/users/head",
            get(async || ([("content-type", "text/plain")], "12345")),
        )
        .route(
            "/api/v1/users/secret",
            get(async || {
                (
                    http::StatusCode::UNAUTHORIZED,
                    [("www-authenticate", "Bearer")],
                )
            }),
        );
    let users = upstream(router).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    for (path, status) in [("/api/v1/users/nobody", 404), ("/api/v1/users/secret", 401)] {
        let response = gateway.get(path).await;
        assert_eq!(response.status(), status);
        assert!(response.body().is_empty(), "{:?}", response.body());
        assert!(!response.headers().contains_key("content-type"));
    }
    assert_eq!(
        gateway.get("/api/v1/users/secret").await.headers()["www-authenticate"],
        "Bearer"
    );
    let head = http::Request::head("/api/v1/users/head")
        .body(String::new())
        .unwrap();
    let response = gateway.ask(head).await;
    assert_eq!(response.headers()["content-length"], "5");
    assert!(response.body().is_empty());
}

#[tokio::test]
async fn an_answer_may_come_before_the_body_has_gone() {
    let refusing = post(async || http::StatusCode::PAYLOAD_TOO_LARGE);
    let users = upstream(Router::new().route("/api/v1/users", refusing)).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    for http2 in [false, true] {
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        sender.send(Bytes::from("the first of many")).await.unwrap();
        let request = http::Request::post("/api/v1/users")
            .body(StreamBody::new(
                pieces(receiver).map(|piece| piece.map(Frame::data)),
            ))
            .unwrap();
        let response = if http2 {
            gateway.open_http2(request).await
        } else {
            gateway.open(request).await
        };
        assert_eq!(response.status(), 413);
        drop(sender);
    }
    assert_eq!(gateway.get("/api/v1/users/other").await.status(), 404);
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_send_gets_it() {
    let users = upstream(telling("users")).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let mut stream = gateway.connect().await;
    let head =
        b"POST /api/v1/users HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\n\
        content-length: 6\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let leave = read_until(&mut stream, "\r\n\r\n").await;
    assert!(leave.starts_with("HTTP/1.1 100"), "{leave}");
    stream.write_all(b"a body").await.unwrap();
    let answer = read_until(&mut stream, "a body").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.contains("expect:"), "{answer}");
}

#[tokio::test]
async fn http2_in_front_http1_behind() {
    let users = upstream(telling("users")).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let request = http::Request::post("/api/v1/users")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::new(Bytes::from("a body")))
        .unwrap();
    let response = whole(gateway.open_http2(request).await).await;
    assert_eq!(response.version(), http::Version::HTTP_2);
    let told = String::from_utf8_lossy(response.body()).into_owned();
    for line in [
        "cookie: a=1; b=2",
        "x-forwarded-host: api.example.com",
        "a body",
    ] {
        assert!(told.lines().any(|told| told == line), "{line}\nin\n{told}");
    }
}

#[tokio::test]
async fn answers_keep_status_headers_and_trailers() {
    let answer = get(async || {
        let frames = [
            Ok::<_, std::io::Error>(Frame::data(Bytes::from("part"))),
            Ok(Frame::trailers(
                [("x-checksum".parse().unwrap(), "7".parse().unwrap())]
                    .into_iter()
                    .collect(),
            )),
        ];
        let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        let head = [
            ("etag", "\"1\""),
            ("set-cookie", "a=1"),
            ("trailer", "x-checksum"),
            ("keep-alive", "timeout=5"),
        ];
        (
            http::StatusCode::IM_A_TEAPOT,
            head,
            [("set-cookie", "b=2")],
            body,
        )
    });
    let users = upstream(Router::new().route("/api/v1/users", answer)).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let request = http::Request::get("/api/v1/users")
        .header("te", "trailers")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let response = gateway.open_http2(request).await;
    assert_eq!(response.status(), 418);
    assert_eq!(response.headers()["etag"], "\"1\"");
    assert!(!response.headers().contains_key("keep-alive"));
    let collected = timeout(SOON, response.into_body().collect())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(collected.trailers().unwrap()["x-checksum"], "7");
    assert_eq!(collected.to_bytes(), "part");
}

/// Every piece is answered before the next one is sent: nothing is held back in either direction.
#[tokio::test]
async fn streams_interleave_in_both_directions() {
    let echo =
        post(async |request: Request| Body::from_stream(request.into_body().into_data_stream()));
    let users = upstream(Router::new().route("/api/v1/users/echo", echo)).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    for http2 in [false, true] {
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let request = http::Request::post("/api/v1/users/echo")
            .body(StreamBody::new(
                pieces(receiver).map(|piece| piece.map(Frame::data)),
            ))
            .unwrap();
        sender.send(Bytes::from("first")).await.unwrap();
        let response = if http2 {
            gateway.open_http2(request).await
        } else {
            gateway.open(request).await
        };
        let mut body = response.into_body();
        for round in 0..20 {
            let piece = timeout(SOON, body.frame())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap();
            let expected = if round == 0 {
                "first".to_owned()
            } else {
                format!("piece {round}")
            };
            assert_eq!(piece, expected);
            sender
                .send(Bytes::from(format!("piece {}", round + 1)))
                .await
                .unwrap();
        }
        drop(sender);
        let rest = timeout(SOON, body.collect()).await.unwrap().unwrap();
        assert_eq!(rest.to_bytes(), "piece 20");
    }
}

#[tokio::test]
async fn large_bodies_pass_in_both_directions() {
    let count = post(async |request: Request| {
        let mut stream = request.into_body().into_data_stream();
        let mut size = 0;
        while let Some(piece) = stream.next().await {
            size += piece.unwrap().len();
        }
        let pieces =
            (0..size / 65_536).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![7u8; 65_536])));
        Body::from_stream(futures_util::stream::iter(pieces))
    });
    let users = upstream(Router::new().route("/api/v1/users", count)).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let size = 15 * 1024 * 1024;
    let known = http::Request::post("/api/v1/users")
        .body(Full::new(Bytes::from(vec![1u8; size])))
        .unwrap();
    let chunk = Bytes::from(vec![1u8; 1024 * 1024]);
    let chunks = futures_util::stream::iter(vec![chunk; 15]);
    let chunks = StreamBody::new(chunks.map(|chunk| Ok::<_, std::io::Error>(Frame::data(chunk))));
    let chunked = http::Request::post("/api/v1/users").body(chunks).unwrap();
    for response in [gateway.open(known).await, gateway.open(chunked).await] {
        let response = whole(response).await;
        assert_eq!(
            (response.status().as_u16(), response.body().len()),
            (200, size)
        );
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413() {
    let read = post(async |request: Request| drop(request.into_body().collect().await));
    let users = upstream(Router::new().route("/api/v1/users", read)).await;
    let gateway = Gateway::with(
        &[("user-service", &[users.local_addr()])],
        |mut config| {
            config.body_limit = trunkline_core::size::ByteSize::new(1000);
            config
        },
        |service| service,
    )
    .await;
    let large = http::Request::post("/api/v1/users")
        .body("x".repeat(1001))
        .unwrap();
    assert_eq!(problem(&gateway.ask(large).await)["status"], 413);
    // One that does not say how large it is.
    let pieces =
        (0..100).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from("x".repeat(100)))));
    let streamed = StreamBody::new(futures_util::stream::iter(pieces));
    let request = http::Request::post("/api/v1/users").body(streamed).unwrap();
    assert_eq!(
        problem(&whole(gateway.open(request).await).await)["status"],
        413
    );
}

#[tokio::test]
async fn draining_finishes_what_is_under_way() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let slow = get(async move || {
        tell.notify_one();
        wait.notified().await;
        "finished"
    });
    let users = upstream(Router::new().route("/api/v1/users", slow)).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let request = http::Request::get("/api/v1/users")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let asking = gateway.open(request);
    let app = gateway.app();
    let stopping = async {
        timeout(SOON, begun.notified()).await.unwrap();
        let stopped = trunkline_core::task::spawn("stop", async move {
            trunkline_core::Lifecycle::shutdown(&app, soon()).await
        });
        tokio::task::yield_now().await;
        go.notify_one();
        stopped.await.unwrap().unwrap();
    };
    let (response, ()) = tokio::join!(async { whole(asking.await).await }, stopping);
    assert_eq!(response.body(), "finished");
}

#[tokio::test]
async fn health_and_metrics_are_the_gateways_own() {
    let users = upstream(telling("users")).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    gateway.get("/api/v1/users/42").await;
    assert_eq!(gateway.get("/health").await.status(), 200);
    let metrics = gateway.get("/metrics").await;
    let text = String::from_utf8_lossy(metrics.body()).into_owned();
    assert!(
        text.contains(r#"http_route="/api/v1/users",http_response_status_code="200""#),
        "{text}"
    );
    assert!(
        text.contains(r#"http_client_request_duration_seconds_count{service="user-service""#),
        "{text}"
    );
    assert!(!text.contains("/users/42"));
}
