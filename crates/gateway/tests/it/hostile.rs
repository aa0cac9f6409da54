//! Requests that mean harm, byte by byte.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use http_body_util::BodyExt;

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
    let gateway = Gateway::before(&[("user-service", &[users.local_addr()])]).await;
    let long = format!(
        "GET /api/v1/users HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
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
            "CONNECT evil:80 HTTP/1.1\r\nhost: evil\r\nconnection: close\r\n\r\n",
            "404",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "404",
        ),
        (long.as_str(), "431"),
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
