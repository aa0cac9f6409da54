//! Requests that mean harm, byte by byte.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use http_body_util::BodyExt;
use trunkline_gateway::RouteConfig;

use crate::system::{Gateway, upstream};

/// Keeps what it was asked.
fn keeping() -> (Router, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&seen);
    let handler = any(async move |request: Request| {
        let line = format!("{} {}", request.method(), request.uri());
        let body = request
            .into_body()
            .collect()
            .await
            .map(|body| body.to_bytes());
        let body = body
            .map(|body| String::from_utf8_lossy(&body).into_owned())
            .unwrap_or_default();
        keep.lock()
            .unwrap()
            .push(format!("{line} {body}").trim_end().to_owned());
        "seen"
    });
    (Router::new().fallback(handler), seen)
}

#[tokio::test]
async fn malformed_requests_reach_nobody() {
    let (router, seen) = keeping();
    let users = upstream(router).await;
    // A route for everything, so that nothing is refused for want of one.
    let gateway = Gateway::with(
        &[("user-service", &[users.local_addr()])],
        |config| config.with_route(RouteConfig::new("/", "user-service")),
        |service| service,
    )
    .await;
    let long = format!(
        "GET /api/v1/users HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(100_000)
    );
    let many = format!(
        "GET /api/v1/users HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "x: y\r\n".repeat(1000)
    );
    let far = format!(
        "GET /api/v1/users/{} HTTP/1.1\r\nhost: x\r\n\r\n",
        "y".repeat(100_000)
    );
    for (text, status) in [
        (
            "GET /api/v1/users HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
            "400",
        ),
        (
            "GET /api/v1/users HTTP/1.1\r\nhost: x\r\nx : 1\r\n\r\n",
            "400",
        ),
        (
            "POST /api/v1/users HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "400",
        ),
        (
            "POST /api/v1/users HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na",
            "400",
        ),
        (
            "POST /api/v1/users HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "GET /api/v1/../admin HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /api/v1/users/%2e%2e/admin HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /api/v1/users/..;/admin HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /api/v1/users HTTP/1.1\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /api/v1/users HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET /api/v1/users HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
            "400",
        ),
        ("GET /api/v1/users HTTP/7.1\r\nhost: x\r\n\r\n", "400"),
        (
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}no TLS here\r\n\r\n",
            "400",
        ),
        (
            "CONNECT evil:80 HTTP/1.1\r\nhost: evil\r\nconnection: close\r\n\r\n",
            "501",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "404",
        ),
        (long.as_str(), "431"),
        (many.as_str(), "431"),
        (far.as_str(), "431"),
    ] {
        let got = gateway.raw(text).await;
        assert!(
            got.starts_with(&format!("HTTP/1.1 {status}")),
            "{text:.80}\n{got}"
        );
    }
    assert!(
        seen.lock().unwrap().is_empty(),
        "{:?}",
        seen.lock().unwrap()
    );
    assert_eq!(gateway.get("/api/v1/users").await.status(), 200);
}

#[tokio::test]
async fn a_body_that_is_malformed_further_on_is_400_and_never_whole() {
    let whole = Arc::new(Mutex::new(0));
    let count = Arc::clone(&whole);
    let reading = any(async move |request: Request| {
        if request.into_body().collect().await.is_ok() {
            *count.lock().unwrap() += 1;
        }
    });
    let users = upstream(Router::new().fallback(reading)).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    for chunks in [
        "3\r\nabc\r\nzz\r\n",
        "-1\r\nabc\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3;a=\u{1}\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n",
    ] {
        let head = "POST /api/v1/users HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let got = gateway.raw(format!("{head}{chunks}")).await;
        assert!(got.starts_with("HTTP/1.1 400"), "{chunks:?}\n{got}");
        assert!(got.contains("application/problem+json"), "{got}");
    }
    assert_eq!(*whole.lock().unwrap(), 0);
    let sound = http::Request::post("/api/v1/users")
        .body("abc".to_owned())
        .unwrap();
    assert_eq!(gateway.ask(sound).await.status(), 200);
}

#[tokio::test]
async fn nonsense_after_the_preface_of_http2_harms_nobody_else() {
    let (router, _) = keeping();
    let users = upstream(router).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for nonsense in [
        &[0xff; 64][..],
        // SETTINGS on a stream; a DATA frame on a stream that was never opened; a length beyond every limit.
        &[0, 0, 0, 4, 0, 0, 0, 0, 1],
        &[0, 0, 1, 0, 1, 0, 0, 0, 1, b'x'],
        &[0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1],
    ] {
        gateway.raw([&preface[..], nonsense].concat()).await;
        assert_eq!(gateway.get("/api/v1/users").await.status(), 200);
    }
}

#[tokio::test]
async fn no_request_hides_in_another() {
    let (router, seen) = keeping();
    let users = upstream(router).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    // Both lengths: the chunks count, and what follows them is not taken for a request.
    let both = "POST /api/v1/users HTTP/1.1\r\nhost: x\r\ncontent-length: 40\r\ntransfer-encoding: chunked\r\n\r\n\
                0\r\n\r\nGET /api/v1/users/hidden HTTP/1.1\r\nhost: x\r\n\r\n";
    let got = gateway.raw(both).await;
    assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{got}");
    // A body that looks like a request stays a body.
    let body = "GET /api/v1/users/hidden HTTP/1.1\r\n\r\n";
    let inner = format!(
        "POST /api/v1/users/plain HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    gateway.raw(&inner).await;
    // An absolute URI names another host: it is not asked.
    gateway.raw("GET http://127.0.0.1:1/api/v1/users/absolute HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let seen = seen.lock().unwrap().clone();
    let hidden = |line: &String| line.starts_with("GET /api/v1/users/hidden");
    assert!(!seen.iter().any(hidden), "{seen:?}");
    assert!(
        seen.contains(&format!("POST /api/v1/users/plain {}", body.trim_end())),
        "{seen:?}"
    );
    assert!(
        seen.contains(&"GET /api/v1/users/absolute".to_owned()),
        "{seen:?}"
    );
}

#[tokio::test]
async fn requests_behind_each_other_on_one_connection_stay_apart() {
    let (router, seen) = keeping();
    let users = upstream(router).await;
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let got = gateway
        .raw(
            "POST /api/v1/users/1 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none\
             POST /api/v1/users/2 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
             GET /api/v1/users/3 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
    assert_eq!(got.matches("HTTP/1.1 200").count(), 3, "{got}");
    let expected = [
        "POST /api/v1/users/1 one",
        "POST /api/v1/users/2 two",
        "GET /api/v1/users/3",
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}
