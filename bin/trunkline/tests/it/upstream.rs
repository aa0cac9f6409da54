//! Services that the command calls: a small HTTP server in the test's own process.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::routing::{any, get};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket};
use trunkline::server::serve::{ConnectionLimits, Listener, Serving};

/// Serves until it is dropped.
pub(crate) struct Upstream {
    serving: Serving,
}

impl Upstream {
    pub(crate) async fn of(router: Router) -> Self {
        Self::at("127.0.0.1", router).await
    }

    async fn at(host: &str, router: Router) -> Self {
        let listener = Listener::bind(host, 0).await.unwrap();
        let serving = listener.serve(ConnectionLimits::default(), move |_| router.clone());
        Self { serving }
    }

    /// Tells what it was asked, 404 below `/missing`, nothing ever below `/stuck`.
    pub(crate) async fn talkative() -> Self {
        Self::talkative_at("127.0.0.1").await
    }

    /// The same at an address of its own.
    pub(crate) async fn talkative_at(host: &str) -> Self {
        let told = any(
            async |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
                heard(&method, &uri, &headers, &body).to_string()
            },
        );
        let router = Router::new()
            .route("/text", get(async || "a line without an end"))
            .route(
                "/missing",
                get(async || (StatusCode::NOT_FOUND, "not here")),
            )
            .route("/stuck", get(std::future::pending::<()>))
            .fallback(told);
        Self::at(host, router).await
    }

    /// Never answers anything.
    pub(crate) async fn stuck() -> Self {
        Self::of(Router::new().fallback(std::future::pending::<()>)).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.serving.local_addr()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

fn heard(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Value {
    let headers: serde_json::Map<_, _> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect();
    json!({
        "method": method.as_str(),
        "path": uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(body),
    })
}

/// Reads what it is asked and hangs up.
pub(crate) struct Rude {
    address: SocketAddr,
}

impl Rude {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(trunkline::task::spawn("rude", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // A connection that is closed with something unread is reset, which is another story.
                drop(stream.read(&mut [0; 4096]).await);
            }
        }));
        Self { address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// An address that nobody listens on, taken so that nobody else begins to.
pub(crate) struct Nobody {
    socket: TcpSocket,
}

impl Nobody {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { socket }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.socket.local_addr().unwrap())
    }
}
