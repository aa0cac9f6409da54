//! The listener over real sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use trunkline_core::ErrorKind;
use trunkline_server::serve::{ConnectionLimits, Listener, Serving};

use crate::client::{self, Raw, SOON, eventually};

async fn serve(router: Router, limits: ConnectionLimits) -> Serving {
    let listener = Listener::bind("127.0.0.1", 0).await.unwrap();
    listener.serve(limits, move |_| router.clone())
}

fn hello() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/echo", post(async |body: String| body))
}

fn soon() -> Instant {
    Instant::now() + SOON
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn both_versions_on_one_port() {
    let serving = serve(hello(), ConnectionLimits::default()).await;
    assert_ne!(serving.local_addr().port(), 0);
    let one = client::send(serving.local_addr(), client::get("/")).await;
    let two = client::send_http2(serving.local_addr(), client::get("/")).await;
    assert_eq!(
        (one.version(), &one.body()[..]),
        (http::Version::HTTP_11, &b"hello"[..])
    );
    assert_eq!(
        (two.version(), &two.body()[..]),
        (http::Version::HTTP_2, &b"hello"[..])
    );
    assert_eq!(serving.stop(soon()).await, 0);
}

#[tokio::test]
async fn a_taken_port_is_said_so() {
    let first = Listener::bind("127.0.0.1", 0).await.unwrap();
    let port = first.local_addr().port();
    let error = Listener::bind("127.0.0.1", port).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error
            .message()
            .contains(&format!("127.0.0.1:{port} is in use")),
        "{error}"
    );
    let error = Listener::bind("no.such.host.invalid", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn further_connections_wait() {
    let limits = ConnectionLimits::default().with_max_connections(1);
    let serving = serve(hello(), limits).await;
    let mut first = Raw::open(serving.local_addr()).await;
    first.send(GET).await;
    first.until("hello").await;
    let mut second = Raw::open(serving.local_addr()).await;
    second.send(GET).await;
    assert_eq!(serving.connections(), 1);
    drop(first);
    second.until("hello").await;
    assert_eq!(serving.connections(), 1);
}

#[tokio::test]
async fn a_slow_head_loses_its_connection() {
    let limits = ConnectionLimits::default().with_header_timeout(Duration::from_millis(50));
    let serving = serve(hello(), limits).await;
    let mut silent = Raw::open(serving.local_addr()).await;
    assert_eq!(silent.rest().await, "");
    let mut slow = Raw::open(serving.local_addr()).await;
    slow.send(GET).await;
    slow.until("hello").await;
    slow.send("GET / HT").await;
    assert_eq!(slow.rest().await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let limits = ConnectionLimits::default()
        .with_keepalive_expiry(Duration::from_millis(50))
        .with_header_timeout(Duration::from_millis(50));
    let (release, waiting) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (gate, arrived) = (Arc::clone(&release), Arc::clone(&waiting));
    let slow = get(async move || {
        arrived.notify_one();
        gate.notified().await;
        "done"
    });
    let serving = serve(hello().route("/slow", slow), limits).await;
    let mut idle = Raw::open(serving.local_addr()).await;
    idle.send(GET).await;
    idle.until("hello").await;
    let mut busy = Raw::open(serving.local_addr()).await;
    busy.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client::within(waiting.notified()).await;
    // The idle one goes; the busy one, which is older by then than either limit, does not.
    assert_eq!(idle.rest().await, "");
    release.notify_one();
    busy.until("done").await;
}

#[tokio::test]
async fn malformed_requests_are_refused_and_harm_nobody() {
    let serving = serve(hello(), ConnectionLimits::default()).await;
    let long = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(100_000)
    );
    for (text, answer) in [
        ("NONSENSE\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nx: a\0b\r\n\r\n", "HTTP/1.1 400"),
        (
            "POST /echo HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "HTTP/1.1 400",
        ),
        (
            "POST /echo HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 400",
        ),
        (
            "POST /echo HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
            "HTTP/1.1 400",
        ),
        (long.as_str(), "HTTP/1.1 431"),
    ] {
        let mut raw = Raw::open(serving.local_addr()).await;
        raw.send(text).await;
        let got = raw.rest().await;
        assert!(got.starts_with(answer), "{text:.60}: {got}");
    }
    let mut smuggler = Raw::open(serving.local_addr()).await;
    smuggler
        .send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n")
        .await;
    // Chunked wins and the connection ends there, so that nothing after it is taken for a request.
    let got = smuggler.rest().await;
    assert_eq!(got.matches("HTTP/1.1").count(), 1, "{got}");
    assert_eq!(
        client::send(serving.local_addr(), client::get("/"))
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_handler_along() {
    struct Dropped(Arc<Notify>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (begun, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_begun, tell_ended) = (Arc::clone(&begun), Arc::clone(&ended));
    let router = Router::new().route(
        "/",
        get(async move || {
            let _dropped = Dropped(Arc::clone(&tell_ended));
            tell_begun.notify_one();
            std::future::pending::<()>().await;
        }),
    );
    let serving = serve(router, ConnectionLimits::default()).await;
    let mut raw = Raw::open(serving.local_addr()).await;
    raw.send(GET).await;
    client::within(begun.notified()).await;
    drop(raw);
    tokio::time::timeout(SOON, ended.notified()).await.unwrap();
}

/// A handler that begins, says so, and ends when it is let.
fn held() -> (Router, Arc<Notify>, Arc<Semaphore>) {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let handler = get(async move || {
        tell.notify_one();
        wait.acquire().await.unwrap().forget();
        "finished"
    });
    (Router::new().route("/", handler), begun, go)
}

#[tokio::test]
async fn stopping_finishes_what_runs_and_refuses_what_is_new() {
    let (router, begun, go) = held();
    let serving = Arc::new(serve(router, ConnectionLimits::default()).await);
    let address = serving.local_addr();
    let mut running = Raw::open(address).await;
    running.send(GET).await;
    client::within(begun.notified()).await;
    let http2 = trunkline_core::task::spawn("client", async move {
        client::send_http2(address, client::get("/")).await
    });
    client::within(begun.notified()).await;
    let stopping = Arc::clone(&serving);
    let stopped = trunkline_core::task::spawn("stop", async move { stopping.stop(soon()).await });
    refused(address).await;
    assert!(!stopped.is_finished());
    go.add_permits(2);
    let answer = running.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
        "{answer}"
    );
    assert!(answer.ends_with("finished"));
    assert_eq!(http2.await.unwrap().status(), 200);
    assert_eq!(stopped.await.unwrap(), 0);
    assert_eq!(serving.connections(), 0);
}

async fn refused(address: SocketAddr) {
    let is_refused = async || Raw::open_or_refused(address).await.is_none();
    eventually("connections are refused", is_refused).await;
}

#[tokio::test]
async fn what_does_not_finish_is_cut_off_at_the_deadline() {
    let (router, begun, _go) = held();
    let serving = serve(router, ConnectionLimits::default()).await;
    let mut running = Raw::open(serving.local_addr()).await;
    running.send(GET).await;
    client::within(begun.notified()).await;
    assert_eq!(
        serving
            .stop(Instant::now() + Duration::from_millis(20))
            .await,
        1
    );
    assert_eq!(running.rest().await, "");
}

#[tokio::test]
async fn silent_and_idle_connections_hold_nobody_up() {
    let serving = serve(hello(), ConnectionLimits::default()).await;
    let mut idle = Raw::open(serving.local_addr()).await;
    idle.send(GET).await;
    idle.until("hello").await;
    let _silent = Raw::open(serving.local_addr()).await;
    // Far less than any of the limits of a connection would end.
    assert_eq!(
        serving.stop(Instant::now() + Duration::from_secs(5)).await,
        0
    );
}

#[tokio::test]
async fn whoever_is_about_to_reuse_a_connection_is_still_answered() {
    let limits = ConnectionLimits::default().with_linger(SOON);
    let serving = Arc::new(serve(hello(), limits).await);
    let mut idle = Raw::open(serving.local_addr()).await;
    idle.send(GET).await;
    idle.until("hello").await;
    let stopping = Arc::clone(&serving);
    let stopped = trunkline_core::task::spawn("stop", async move { stopping.stop(soon()).await });
    // Time enough for a connection to be closed, if it were.
    tokio::time::sleep(Duration::from_millis(30)).await;
    idle.send(GET).await;
    assert!(idle.rest().await.contains("connection: close"));
    assert_eq!(stopped.await.unwrap(), 0);
}

/// Clients that reuse their connections see every request answered while the listener stops under them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_cut_off_under_load() {
    let serving = Arc::new(serve(hello(), ConnectionLimits::default()).await);
    let address = serving.local_addr();
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let answered = Arc::clone(&answered);
            trunkline_core::task::spawn("client", async move {
                loop {
                    let mut raw = Raw::open_or_refused(address).await?;
                    raw.send(GET).await;
                    // A connection made while the listener closes may find nobody; one that was answered may not.
                    let mut answer = raw.answer_until("hello").await?;
                    while !answer.contains("connection: close") {
                        answered.fetch_add(1, Ordering::Relaxed);
                        raw.send(GET).await;
                        answer = raw.until("hello").await;
                    }
                }
                #[allow(unreachable_code, reason = "names the type")]
                Some(())
            })
        })
        .collect();
    eventually("clients are answered", async || {
        answered.load(Ordering::Relaxed) >= 500
    })
    .await;
    assert_eq!(serving.stop(soon()).await, 0);
    for client in clients {
        // Ends when a new connection is refused; panics when one breaks in the middle.
        assert_eq!(client.await.unwrap(), None);
    }
}

#[tokio::test]
async fn another_protocol_takes_over_the_connection() {
    async fn upgrade(mut request: axum::extract::Request) -> http::Response<axum::body::Body> {
        let upgraded = hyper::upgrade::on(&mut request);
        drop(trunkline_core::task::spawn("echo", async move {
            let io = hyper_util::rt::TokioIo::new(upgraded.await.unwrap());
            let (mut read, mut write) = tokio::io::split(io);
            drop(tokio::io::copy(&mut read, &mut write).await);
        }));
        http::Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(axum::body::Body::empty())
            .unwrap()
    }
    let serving = serve(
        Router::new().route("/", get(upgrade)),
        ConnectionLimits::default(),
    )
    .await;
    let mut raw = Raw::open(serving.local_addr()).await;
    raw.send("GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    raw.until("\r\n\r\n").await;
    raw.send("ping").await;
    raw.until("ping").await;
    assert_eq!(serving.connections(), 1, "it still counts");
}

#[tokio::test]
async fn a_panic_costs_its_connection_only() {
    let service = tower::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
        assert_ne!(request.uri().path(), "/panic");
        Ok::<_, Infallible>(http::Response::new("fine".to_owned()))
    });
    let listener = Listener::bind("127.0.0.1", 0).await.unwrap();
    let serving = listener.serve(ConnectionLimits::default(), move |_| service);
    let mut raw = Raw::open(serving.local_addr()).await;
    raw.send("GET /panic HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(raw.rest().await, "");
    assert_eq!(
        client::send(serving.local_addr(), client::get("/"))
            .await
            .status(),
        200
    );
}
