//! What the clients send and how they read what comes back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::util::ServiceExt;
use trunkline_core::{Context, CorrelationId, ErrorKind, Problem, Propagation};
use trunkline_discovery::{Instances, ServiceConfig, ServiceInstance, ServiceName};
use trunkline_http::{
    Body, CallOptions, EnhancedHttpClient, HttpClient, HttpClientConfig, ServiceError,
};

use crate::rig::{Server, in_time, status, text};

/// Answers with what was asked, as JSON.
async fn mirror(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers: serde_json::Map<String, Value> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
        .collect();
    let seen = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    Response::builder()
        .header("content-type", "application/json")
        .body(Full::new(seen.to_string().into()))
        .unwrap()
}

async fn seen(client: &HttpClient, path: &str) -> Value {
    client.get(path).send().await.unwrap().json().await.unwrap()
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
}

#[tokio::test]
async fn every_method_reaches_its_path_behind_the_base_url() {
    let server = Server::start(mirror).await;
    let client = HttpClient::new(format!("{}/api/v1/", server.url())).unwrap();
    for (request, method) in [
        (client.get("/users/1"), "GET"),
        (client.post("/users/1"), "POST"),
        (client.put("users/1"), "PUT"),
        (client.patch("/users/1"), "PATCH"),
        (client.delete("/users/1"), "DELETE"),
        (client.request(http::Method::OPTIONS, "/users/1"), "OPTIONS"),
    ] {
        let seen: Value = request.await.unwrap().json().await.unwrap();
        assert_eq!(
            (&seen["method"], &seen["path"]),
            (&json!(method), &json!("/api/v1/users/1"))
        );
        assert!(seen["headers"].get("content-type").is_none(), "{seen}");
    }
    let place = server.address.to_string();
    assert_eq!(client.service_name(), place);
}

#[test]
fn a_client_without_a_name_is_called_by_its_place() {
    for (url, name) in [
        ("http://users", "users"),
        ("http://users:80/api", "users"),
        ("http://users:8001", "users:8001"),
        ("https://users:443", "users"),
        ("http://[::1]:8001", "[::1]:8001"),
        ("unix:///run/users.sock", "/run/users.sock"),
    ] {
        assert_eq!(HttpClient::new(url).unwrap().service_name(), name, "{url}");
    }
}

#[tokio::test]
async fn parameters_and_bodies_are_written_as_the_seeds_say() {
    let server = Server::start(mirror).await;
    let client = HttpClient::new(server.url()).unwrap();
    #[derive(Serialize)]
    struct Search<'a> {
        status: Option<&'a str>,
        user_id: Option<u64>,
        limit: u32,
    }
    let search = Search {
        status: None,
        user_id: Some(7),
        limit: 20,
    };
    let request = client
        .get("/orders?sort=up")
        .params(&search)
        .param("active", true);
    let got: Value = request.await.unwrap().json().await.unwrap();
    assert_eq!(got["query"], "sort=up&limit=20&user_id=7&active=true");

    let user = User {
        name: "Ada".to_owned(),
    };
    let posted: Value = client
        .post("/users")
        .json(&user)
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(posted["headers"]["content-type"], "application/json");
    assert_eq!(posted["body"], r#"{"name":"Ada"}"#);

    let own = client
        .post("/users")
        .header("content-type", "application/vnd.api+json")
        .json(&user);
    let posted: Value = own.await.unwrap().json().await.unwrap();
    assert_eq!(
        posted["headers"]["content-type"],
        "application/vnd.api+json"
    );

    let odd = seen(&client, "/näme with \"spaces\"?q={x}").await;
    assert_eq!(odd["path"], "/n%C3%A4me%20with%20%22spaces%22");
    assert_eq!(odd["query"], "q=%7Bx%7D");
}

#[tokio::test]
async fn context_and_service_name_travel_along() {
    let server = Server::start(mirror).await;
    let client = HttpClient::builder()
        .base_url(server.url())
        .propagation(Propagation::default().with_service("orders"))
        .header("x-team", "payments")
        .header("x-region", "eu")
        .build()
        .unwrap();
    let context = Context::with_id(CorrelationId::accept("conversation-1").unwrap());
    let headers = context
        .scope(async { seen(&client, "/").await["headers"].clone() })
        .await;
    assert_eq!(headers["x-correlation-id"], "conversation-1");
    assert_eq!(headers["x-service-name"], "orders");
    assert_eq!(headers["x-team"], "payments");
    let trace = context.trace();
    let parent = headers["traceparent"].as_str().unwrap();
    assert!(parent.contains(&trace.trace_id().to_string()), "{parent}");
    assert!(
        !parent.contains(&trace.span_id().to_string()),
        "an attempt has its own span"
    );
    let left: u64 = headers["x-request-timeout-ms"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((20_000..=30_000).contains(&left), "{left}");

    // A request's own headers win; without a scope there is a new id each time.
    let request = client
        .get("/")
        .header("x-team", "search")
        .header("X-Correlation-ID", "own");
    let headers = request.await.unwrap().json::<Value>().await.unwrap()["headers"].clone();
    assert_eq!(
        (&headers["x-team"], &headers["x-correlation-id"]),
        (&json!("search"), &json!("own"))
    );
    assert_eq!(headers["x-region"], "eu");
    let one = seen(&client, "/").await["headers"]["x-correlation-id"].clone();
    assert_ne!(one, seen(&client, "/").await["headers"]["x-correlation-id"]);
}

#[tokio::test]
async fn an_error_status_is_an_answer_until_it_is_asked_about() {
    let server = Server::start(async |request: Request<Incoming>| {
        let (code, kind, body) = match request.uri().path() {
            "/problem" => (
                404,
                "application/problem+json; charset=utf-8",
                r#"{"type":"https://x/no-user","title":"No such user","detail":"no user 42","user_id":42}"#,
            ),
            "/json" => (409, "application/json", r#"{"detail":"exists"}"#),
            "/broken" => (500, "application/json", "{"),
            "/text" => (503, "text/plain", "down for maintenance"),
            "/empty" => (401, "text/plain", ""),
            _ => (204, "text/plain", ""),
        };
        let body = Full::new(Bytes::from(body));
        Response::builder().status(code).header("content-type", kind).body(body).unwrap()
    })
    .await;
    let client = HttpClient::new(server.url()).unwrap();
    let problem = async |path: &str| {
        let response = client.get(path).await.unwrap();
        let status = response.status();
        match response.error_for_status().await.unwrap_err() {
            ServiceError::Status(answer) => {
                assert_eq!(answer.status, status);
                answer.problem
            }
            other => panic!("{other:?}"),
        }
    };
    let full = problem("/problem").await;
    assert_eq!(full.title, "No such user");
    assert_eq!(
        (full.status, full.extensions["user_id"].as_u64()),
        (Some(404), Some(42))
    );
    assert_eq!(
        problem("/json").await,
        Problem::new(409, "Conflict").with_detail("exists")
    );
    assert_eq!(
        problem("/broken").await,
        Problem::new(500, "Internal Server Error").with_detail("{")
    );
    let text = Problem::new(503, "Service Unavailable").with_detail("down for maintenance");
    assert_eq!(problem("/text").await, text);
    assert_eq!(problem("/empty").await, Problem::new(401, "Unauthorized"));
    assert!(
        client
            .get("/fine")
            .await
            .unwrap()
            .error_for_status()
            .await
            .is_ok()
    );

    #[derive(Clone, Debug, Deserialize)]
    struct Mine {
        detail: String,
    }
    impl std::fmt::Display for Mine {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&self.detail)
        }
    }
    let response = client.get("/json").await.unwrap();
    let error = response.error_for_status_as::<Mine>().await.unwrap_err();
    assert_eq!(error.status_code().unwrap(), 409);
    assert!(matches!(&error, ServiceError::Status(answer) if answer.problem.detail == "exists"));
    let response = client.get("/text").await.unwrap();
    let error = response.error_for_status_as::<Mine>().await.unwrap_err();
    assert_eq!(error.status_code().unwrap(), 503);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("down for maintenance"),
        "{error}"
    );
    assert!(error.mismatch().is_some());
    // Who reads it as everybody does has the answer.
    let known: ServiceError = trunkline_core::Error::from(error).into();
    assert!(matches!(known, ServiceError::Status(_)), "{known:?}");
    let response = client.get("/empty").await.unwrap();
    let error = response.error_for_status_as::<Mine>().await.unwrap_err();
    assert_eq!(error.status_code().unwrap(), 401);
}

#[tokio::test]
async fn answers_are_read_as_what_they_are() {
    let server = Server::start(
        async |request: Request<Incoming>| match request.uri().path() {
            "/user" => text(r#"{"name":"Ada"}"#),
            "/list" => text("[1,2,3]"),
            "/binary" => text(vec![0xff, 0xfe]),
            _ => text(vec![b'x'; 2000]),
        },
    )
    .await;
    let config = {
        let mut config = HttpClientConfig::new(server.url());
        config.max_response_size = trunkline_core::size::ByteSize::new(1000);
        config
    };
    let client = HttpClient::from_config(config).unwrap();
    let user: User = client.get("/user").await.unwrap().json().await.unwrap();
    assert_eq!(user.name, "Ada");
    assert_eq!(
        client.get("/list").await.unwrap().text().await.unwrap(),
        "[1,2,3]"
    );
    assert_eq!(
        client
            .get("/binary")
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap()
            .len(),
        2
    );
    let error = client
        .get("/binary")
        .await
        .unwrap()
        .text()
        .await
        .unwrap_err();
    assert!(matches!(error, ServiceError::Validation(_)));
    let error = client
        .get("/list")
        .await
        .unwrap()
        .json::<User>()
        .await
        .unwrap_err();
    assert!(matches!(error, ServiceError::Validation(_)));
    assert!(error.to_string().contains("invalid type"), "{error}");
    let error = client
        .get("/large")
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap_err();
    assert!(matches!(error, ServiceError::Other(_)));
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_when_it_is_sent() {
    let server = Server::start(mirror).await;
    let client = HttpClient::new(server.url()).unwrap();
    let unwritable: std::collections::HashMap<Vec<u8>, u8> = [(vec![1], 1)].into();
    for (request, what) in [
        (client.get("/").header("no name", "x"), "header"),
        (client.get("/").header("x", "a\nb"), "header"),
        (client.get("/").bearer("a\nb"), "token"),
        (client.post("/").json(&unwritable), "JSON"),
        (
            client.get("/").params(&json!({ "a": { "b": 1 } })),
            "nested",
        ),
        (client.get("http://elsewhere/"), "leads to"),
    ] {
        let error = request.await.unwrap_err();
        assert!(matches!(error, ServiceError::Validation(_)), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
    }
    assert_eq!(server.count.requests(), 0);
    let absolute = format!("{}/absolute", server.url());
    assert_eq!(seen(&client, &absolute).await["path"], "/absolute");
}

#[tokio::test]
async fn a_client_that_cannot_be_is_refused_when_it_is_made() {
    type Make = fn() -> trunkline_core::Result<EnhancedHttpClient>;
    let wrong: [(Make, &str); 9] = [
        (
            || EnhancedHttpClient::builder().build(),
            "base URL or a service",
        ),
        (
            || EnhancedHttpClient::builder().service("users").build(),
            "without discovery",
        ),
        (|| EnhancedHttpClient::new("users:8001"), "is no origin"),
        (
            || EnhancedHttpClient::new("http://me:secret@users"),
            "credentials",
        ),
        (|| EnhancedHttpClient::new("http://users/?a=b"), "query"),
        (
            || {
                EnhancedHttpClient::builder()
                    .base_url("http://users")
                    .header("a b", "c")
                    .build()
            },
            "a b",
        ),
        (
            || {
                let endpoint = EnhancedHttpClient::builder().base_url("http://users");
                endpoint.endpoint("users/{id}", Default::default()).build()
            },
            "is no endpoint",
        ),
        (
            || {
                let mut config = HttpClientConfig::new("http://users");
                config.retry.max_attempts = Some(0);
                config.circuit_breaker.failure_threshold = Some(0);
                EnhancedHttpClient::from_config(config)
            },
            "retry.max_attempts",
        ),
        (
            || {
                let name = ServiceName::new("users")?;
                let instances = Instances::fixed(name, Vec::new());
                EnhancedHttpClient::builder()
                    .base_url("http://users")
                    .instances(instances)
                    .build()
            },
            "not both",
        ),
    ];
    for (make, what) in wrong {
        let error = make().unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Config | ErrorKind::Invalid),
            "{error:?}"
        );
        let text = error.report().to_string();
        assert!(text.contains(what), "{text}");
        assert!(!text.contains("secret@"), "{text}");
    }
}

#[tokio::test]
async fn a_service_is_called_by_its_name() {
    let server = Server::start(mirror).await;
    let name = ServiceName::new("user_service").unwrap();
    let instance = ServiceInstance::new(name.clone(), "127.0.0.1", server.address.port());
    let mut config = ServiceConfig::default();
    config.base_path = Some("/api/v1".to_owned());
    let client = EnhancedHttpClient::builder()
        .instances(Instances::fixed(name.clone(), vec![instance]))
        .service_config(config)
        .build()
        .unwrap();
    assert_eq!(client.service_name(), "user-service");
    let seen: Value = client.get("/users/1").await.unwrap().json().await.unwrap();
    assert_eq!(seen["path"], "/api/v1/users/1");

    let nobody = EnhancedHttpClient::builder()
        .instances(Instances::fixed(name, Vec::new()))
        .retry_enabled(false)
        .build()
        .unwrap();
    let error = nobody.get("/").await.unwrap_err();
    assert!(
        matches!(error, ServiceError::ServiceUnavailable(_)),
        "{error:?}"
    );
    assert!(error.to_string().contains("no instance"), "{error}");
}

#[tokio::test]
async fn the_client_is_a_tower_service_and_takes_layers() {
    let server = Server::start(mirror).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let noting = |name: &'static str| {
        let order = Arc::clone(&order);
        tower::util::MapRequestLayer::new(move |mut request: Request<Body>| {
            order.lock().unwrap().push(name);
            request
                .headers_mut()
                .append("x-passed", name.parse().unwrap());
            request
        })
    };
    let client = EnhancedHttpClient::new(server.url())
        .unwrap()
        .layer(noting("first"))
        .layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(20)))
        .layer(noting("second"));
    let response = client.get("/a").max_attempts(1).await.unwrap();
    assert_eq!(
        response.json::<Value>().await.unwrap()["headers"]["x-passed"],
        "second"
    );
    assert_eq!(*order.lock().unwrap(), ["first", "second"]);

    let context = Context::with_id(CorrelationId::accept("by-tower").unwrap());
    let request = Request::get("/b")
        .extension(CallOptions::default().with_context(context))
        .body(Body::empty())
        .unwrap();
    let response = in_time(client.oneshot(request)).await.unwrap();
    let seen: Value =
        serde_json::from_slice(&response.into_body().bytes(4096).await.unwrap()).unwrap();
    assert_eq!(seen["headers"]["x-correlation-id"], "by-tower");
    assert_eq!(
        order.lock().unwrap().len(),
        4,
        "the service is the client with its layers"
    );
}

#[tokio::test]
async fn a_layer_that_fails_is_an_error_of_the_call() {
    let server = Server::start(mirror).await;
    let client = HttpClient::new(server.url())
        .unwrap()
        .layer(tower::layer::layer_fn(|_| {
            tower::service_fn(|_: Request<Body>| async {
                Err::<Response<Body>, _>(std::io::Error::other("no token"))
            })
        }));
    let error = client.get("/").await.unwrap_err();
    assert!(error.to_string().contains("no token"), "{error}");
    assert_eq!(server.count.requests(), 0);
}

#[tokio::test]
async fn a_plain_client_makes_one_attempt_and_has_no_circuit() {
    let server = Server::start(|_| async { status(503) }).await;
    let client = HttpClient::new(server.url()).unwrap();
    for _ in 0..10 {
        assert_eq!(client.get("/").await.unwrap().status(), 503);
    }
    assert_eq!(server.count.requests(), 10);
}

#[test]
fn the_header_of_idempotency_keys_is_the_one_of_the_vocabulary() {
    let headers = HeaderMap::from_iter([(
        http::HeaderName::from_static("idempotency-key"),
        http::HeaderValue::from_static("x"),
    )]);
    assert!(headers.contains_key(trunkline_core::names::header::IDEMPOTENCY_KEY));
}
