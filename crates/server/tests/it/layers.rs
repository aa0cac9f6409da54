//! The layers one by one, on a paused clock.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;
use tokio::sync::Notify;
use tokio::time::sleep;
use tower::ServiceExt;
use tracing_subscriber::layer::SubscriberExt;
use trunkline_core::{Context, Propagation};
use trunkline_server::layers::{
    CatchPanicLayer, ContextLayer, DeadlineLayer, InFlightLayer, ObserveLayer, RouteTemplate,
};
use trunkline_telemetry::{Format, LogOutput, LoggingConfig, Logs, Metrics};

use crate::client::{self, ask, problem};

fn with(headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().uri("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn context_of(handler: impl Fn(Context) -> String + Clone + Send + Sync + 'static) -> Router {
    let handler = async move || handler(Context::current().unwrap());
    Router::new()
        .route("/", get(handler))
        .layer(ContextLayer::new(Propagation::default()))
}

#[tokio::test]
async fn the_context_reaches_the_handler_and_its_id_comes_back() {
    let router = context_of(|context| {
        let caller = context.identity().map(|identity| identity.service.clone());
        format!(
            "{} {} {caller:?}",
            context.correlation_id(),
            context.trace().trace_id()
        )
    });
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = with(&[
        ("x-correlation-id", "abc"),
        ("traceparent", &format!("00-{trace}-b7ad6b7169203331-01")),
        ("x-service-name", "orders"),
    ]);
    let response = ask(&router, request).await;
    assert_eq!(response.headers()["x-correlation-id"], "abc");
    assert_eq!(
        response.body(),
        format!("abc {trace} Some(\"orders\")").as_bytes()
    );
}

#[tokio::test]
async fn an_id_is_made_where_there_is_none_or_a_bad_one() {
    let router = context_of(|context| context.correlation_id().to_string());
    for headers in [vec![], vec![("x-correlation-id", "two words")]] {
        let response = ask(&router, with(&headers)).await;
        let id = &response.headers()["x-correlation-id"];
        assert_eq!(id.as_bytes(), &response.body()[..]);
        assert_eq!(id.len(), 36);
    }
}

#[tokio::test]
async fn the_header_has_the_configured_name() {
    let propagation = Propagation::default().with_correlation_header("X-Request-Id");
    let router = Router::new()
        .route("/", get(async || ""))
        .layer(ContextLayer::new(propagation));
    let response = ask(&router, with(&[("x-request-id", "7")])).await;
    assert_eq!(response.headers()["x-request-id"], "7");
    assert!(!response.headers().contains_key("x-correlation-id"));
}

/// Sleeps for so long and says whether it was dropped before its end.
fn sleeping(span: Duration) -> (Router, Arc<AtomicBool>) {
    struct Dropped(Option<Arc<AtomicBool>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            if let Some(tell) = self.0.take() {
                tell.store(true, Ordering::SeqCst);
            }
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&dropped);
    let handler = async move || {
        let mut guard = Dropped(Some(Arc::clone(&tell)));
        sleep(span).await;
        guard.0 = None;
        "done"
    };
    (
        Router::new().route("/", get(handler)).layer(DeadlineLayer),
        dropped,
    )
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_dropped_at_its_deadline() {
    for (allowed, asked, status) in [
        (30, None, 504),
        (60, None, 200),
        (60, Some("5000"), 504),
        (60, Some("0"), 504),
        // A caller cannot have more than the service gives.
        (30, Some("100000"), 504),
    ] {
        let (router, dropped) = sleeping(Duration::from_secs(40));
        let layer =
            ContextLayer::new(Propagation::default()).with_timeout(Duration::from_secs(allowed));
        let headers: Vec<_> = asked
            .map(|asked| ("x-request-timeout-ms", asked))
            .into_iter()
            .collect();
        // The paused clock passes by itself; the test's own patience would end first.
        let response = router.layer(layer).oneshot(with(&headers)).await.unwrap();
        assert_eq!(response.status(), status, "{allowed} {asked:?}");
        let began = asked != Some("0");
        assert_eq!(dropped.load(Ordering::SeqCst), status == 504 && began);
        if status == 504 {
            assert_eq!(
                response.headers()["content-type"],
                "application/problem+json"
            );
        }
    }
}

#[tokio::test]
async fn a_panic_is_a_500_that_keeps_its_secret() {
    let router = Router::new()
        .route("/", get(async || -> &'static str { panic!("row 7") }))
        .layer(CatchPanicLayer)
        .layer(ContextLayer::new(Propagation::default()));
    let response = ask(&router, with(&[("x-correlation-id", "abc")])).await;
    let document = problem(&response);
    assert_eq!(document["status"], 500);
    assert_eq!(document["correlation_id"], "abc");
    assert!(!document.to_string().contains("row 7"));
}

#[tokio::test]
async fn one_request_too_many_is_503() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let handler = get(async move || {
        tell.notify_one();
        wait.notified().await;
        "done"
    });
    let router = Router::new()
        .route("/", handler)
        .layer(InFlightLayer::new(1));
    let first = trunkline_core::task::spawn("first", router.clone().oneshot(with(&[])));
    client::within(begun.notified()).await;
    let second = ask(&router, with(&[])).await;
    assert_eq!(second.headers()["retry-after"], "1");
    assert_eq!(problem(&second)["status"], 503);
    go.notify_one();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    // Its place is free again.
    go.notify_one();
    assert_eq!(ask(&router, with(&[])).await.status(), 200);
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn lines(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn observed(metrics: &Metrics) -> Router {
    Router::new()
        .route("/users/{id}", get(async || "a user"))
        .route("/slow", get(async || std::future::pending::<()>().await))
        .layer(ObserveLayer::new(metrics))
        .layer(ContextLayer::new(Propagation::default()))
}

#[tokio::test]
async fn every_request_is_one_line_and_one_count() {
    let captured = Captured::default();
    let own = captured.clone();
    let logs = Logs::new(
        &LoggingConfig::default(),
        LogOutput::to(move || own.clone()).with_service("orders"),
    );
    let _guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(logs.layer()));
    let metrics = Metrics::new();
    let router = observed(&metrics);
    let mut request = with(&[("x-correlation-id", "abc"), ("x-service-name", "gateway")]);
    *request.uri_mut() = "/users/42?token=secret".parse().unwrap();
    ask(&router, request).await;
    ask(&router, request_to("/nowhere")).await;
    let mut odd = request_to("/users/1");
    *odd.method_mut() = http::Method::from_bytes(b"BREW").unwrap();
    ask(&router, odd).await;
    // One whose client goes away.
    let gone = router.clone().oneshot(request_to("/slow"));
    assert!(
        tokio::time::timeout(Duration::from_millis(1), gone)
            .await
            .is_err()
    );

    let lines = captured.lines();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert_eq!(lines[0]["target"], "trunkline::access");
    assert_eq!(lines[0]["correlation_id"], "abc");
    let fields = &lines[0]["fields"];
    assert_eq!(fields["method"], "GET");
    assert_eq!(fields["route"], "/users/{id}");
    assert_eq!(fields["path"], "/users/42", "without the query");
    assert_eq!(fields["status"], 200);
    assert_eq!(fields["caller"], "gateway");
    assert!(fields["duration_ms"].is_f64());
    assert_eq!(lines[1]["fields"]["route"], "unmatched");
    assert_eq!(lines[3]["fields"]["status"], 499);

    let text = metrics.render(Format::Prometheus).unwrap();
    for (method, route, status) in [
        ("GET", "/users/{id}", "200"),
        ("GET", "unmatched", "404"),
        ("_OTHER", "/users/{id}", "405"),
        ("GET", "/slow", "499"),
    ] {
        let count = format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",http_route=\"{route}\",\
             http_response_status_code=\"{status}\",error_type=\"\"}} 1"
        );
        assert!(text.contains(&count), "{count}\n{text}");
    }
    assert!(text.contains("http_server_active_requests 0"));
    assert!(!text.contains("/users/42"));
}

#[tokio::test]
async fn one_handler_of_many_routes_has_them_named_whatever_becomes_of_the_request() {
    let captured = Captured::default();
    let own = captured.clone();
    let logs = Logs::new(
        &LoggingConfig::default(),
        LogOutput::to(move || own.clone()),
    );
    let _guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(logs.layer()));
    let handler = async |request: Request<Body>| match request.uri().path() {
        "/users/slow" => std::future::pending().await,
        "/users/special" => {
            let template = RouteTemplate("/users/special".into());
            axum::response::IntoResponse::into_response(axum::Extension(template))
        }
        _ => axum::response::Response::default(),
    };
    let template_of = |path: &str| {
        let known = path.starts_with("/users/");
        known.then(|| RouteTemplate("/users".into()))
    };
    let observe = ObserveLayer::new(&Metrics::new()).with_templates(template_of);
    let router = Router::new().fallback(handler).layer(observe);
    for path in ["/users/1", "/users/special", "/nowhere"] {
        ask(&router, request_to(path)).await;
    }
    let gone = router.clone().oneshot(request_to("/users/slow"));
    assert!(
        tokio::time::timeout(Duration::from_millis(1), gone)
            .await
            .is_err()
    );
    let lines = captured.lines();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let fields = &line["fields"];
            (fields["route"].as_str().unwrap(), fields["status"].as_u64())
        })
        .collect();
    let expected = [
        ("/users", Some(200)),
        ("/users/special", Some(200)),
        ("unmatched", Some(200)),
        ("/users", Some(499)),
    ];
    assert_eq!(told, expected);
}

fn request_to(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(Body::empty()).unwrap()
}
