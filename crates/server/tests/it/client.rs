//! Clients of the tests: plain bytes where the bytes matter, hyper where they do not.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::ServiceExt;

/// Longest that a test waits for something that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub(crate) async fn within<F: Future>(what: F) -> F::Output {
    timeout(SOON, what).await.unwrap()
}

/// Waits until it is so.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

/// A connection that sends and receives bytes as they are.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// `None` when nobody listens any more.
    pub(crate) async fn open_or_refused(address: SocketAddr) -> Option<Self> {
        TcpStream::connect(address).await.ok().map(Self)
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Everything until the other side closes, in an orderly way or not.
    pub(crate) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = timeout(SOON, self.0.read_to_end(&mut bytes)).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        drop(read.unwrap_or_else(|_| panic!("the connection stays open after {text:?}")));
        text
    }

    /// Bytes until they contain `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let nothing = "closed without an answer";
        self.answer_until(end).await.expect(nothing)
    }

    /// The same, or `None` when the connection is gone before the first byte. Gone later it is cut off.
    pub(crate) async fn answer_until(&mut self, end: &str) -> Option<String> {
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(end) {
            let mut next = [0; 4096];
            let read = timeout(SOON, self.0.read(&mut next))
                .await
                .unwrap()
                .unwrap_or(0);
            if read == 0 {
                assert!(
                    bytes.is_empty(),
                    "cut off after {:?}",
                    String::from_utf8_lossy(&bytes)
                );
                return None;
            }
            bytes.extend_from_slice(&next[..read]);
        }
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

pub(crate) async fn send(address: SocketAddr, request: Request<String>) -> Response<Bytes> {
    send_as(address, request, false).await
}

/// Sends over HTTP/2 without TLS, from the first byte.
pub(crate) async fn send_http2(address: SocketAddr, request: Request<String>) -> Response<Bytes> {
    send_as(address, request, true).await
}

async fn send_as(address: SocketAddr, request: Request<String>, http2: bool) -> Response<Bytes> {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().unwrap().clone();
    head.uri = format!("http://{address}{path}").parse().unwrap();
    let request = Request::from_parts(head, Full::new(Bytes::from(body)));
    let response = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .unwrap();
        drop(trunkline_core::task::spawn("client", connection));
        timeout(SOON, sender.send_request(request))
            .await
            .unwrap()
            .unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        drop(trunkline_core::task::spawn("client", connection));
        let mut request = request;
        *request.uri_mut() = path.as_str().parse().unwrap();
        request
            .headers_mut()
            .insert("host", address.to_string().parse().unwrap());
        timeout(SOON, sender.send_request(request))
            .await
            .unwrap()
            .unwrap()
    };
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// Asks a router without any socket.
pub(crate) async fn ask(router: &Router, request: Request<Body>) -> Response<Bytes> {
    let response = timeout(SOON, router.clone().oneshot(request))
        .await
        .unwrap()
        .unwrap();
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

pub(crate) fn get(path: &str) -> Request<String> {
    Request::builder().uri(path).body(String::new()).unwrap()
}

pub(crate) fn post(path: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method("POST")
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

pub(crate) fn json(response: &Response<Bytes>) -> serde_json::Value {
    serde_json::from_slice(response.body()).unwrap_or_else(|_| panic!("{:?}", response.body()))
}

/// The problem document of a response, whose head must fit it.
pub(crate) fn problem(response: &Response<Bytes>) -> serde_json::Value {
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let problem = json(response);
    assert_eq!(problem["status"], response.status().as_u16());
    problem
}
