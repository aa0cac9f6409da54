//! Middleware: order, what it sees, what it may do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use trunkline_core::{Context, Error, ErrorKind};
use trunkline_http::{
    CallOptions, EnhancedHttpClient, HttpClient, HttpClientConfig, MiddlewareResult, Next,
    ServiceError, ServiceRequest,
};

use crate::rig::{Server, status, text};

/// What happened, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn read(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn quick(url: String) -> EnhancedHttpClient {
    let mut config = HttpClientConfig::new(url);
    config.retry.delay = Some(std::time::Duration::from_millis(1));
    EnhancedHttpClient::builder()
        .config(config)
        .service("user-service")
        .endpoint("GET /users/{id}", trunkline_http::EndpointConfig::default())
        .build()
        .unwrap()
}

/// A function fits as it stands.
async fn says_hello(mut request: ServiceRequest, next: Next) -> MiddlewareResult {
    request.set_header("x-hello", "from a function")?;
    next.run(request).await
}

fn header(request: &Request<Incoming>, name: &str) -> String {
    let value = request.headers().get(name);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn functions_closures_and_async_closures_fit() {
    let server = Server::start(|request| async move {
        text(format!(
            "{}, {}, {}, {}",
            header(&request, "x-hello"),
            header(&request, "x-captured"),
            header(&request, "x-moved"),
            header(&request, "authorization")
        ))
    })
    .await;
    let (captured, moved) = (Arc::new("shared".to_owned()), "moved".to_owned());
    let client = HttpClient::new(server.url())
        .unwrap()
        .middleware(says_hello)
        .middleware(async move |mut request: ServiceRequest, next: Next| {
            // Borrows from what it captures, across an await.
            request.set_header("x-captured", &captured)?;
            let answer = next.run(request).await;
            assert_eq!(*captured, "shared");
            answer
        })
        .middleware(move |mut request, next| async move {
            request.set_header("x-moved", &moved)?;
            next.run(request).await
        })
        .middleware(async |mut request: ServiceRequest, next: Next| {
            request.bearer("token")?;
            next.run(request).await
        });
    for _ in 0..2 {
        let told = client.get("/").send().await.unwrap().text().await.unwrap();
        assert_eq!(told, "from a function, shared, moved, Bearer token");
    }
}

#[tokio::test]
async fn the_first_one_added_is_the_outermost_layers_included() {
    let server = Server::start(|_| async { text("hello") }).await;
    let diary = Diary::default();
    let named = |name: &'static str| {
        let diary = diary.clone();
        async move |request: ServiceRequest, next: Next| {
            diary.write(format!("{name} before"));
            let answer = next.run(request).await;
            diary.write(format!("{name} after"));
            answer
        }
    };
    let seen = diary.clone();
    let client = quick(server.url())
        .attempt_middleware(named("attempt one"))
        .middleware(named("one"))
        .layer(tower::util::MapRequestLayer::new(move |request| {
            seen.write("layer");
            request
        }))
        .middleware(named("two"))
        .attempt_middleware(named("attempt two"));
    client.get("/").await.unwrap();
    assert_eq!(
        diary.read(),
        [
            "one before",
            "layer",
            "two before",
            "attempt one before",
            "attempt two before",
            "attempt two after",
            "attempt one after",
            "two after",
            "one after"
        ]
    );
}

#[tokio::test]
async fn it_sees_service_method_endpoint_operation_and_attempt() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |request: Request<Incoming>| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            match number {
                0 | 1 => status(503),
                _ => text(header(&request, "x-attempt")),
            }
        }
    })
    .await;
    let (calls, attempts) = (Diary::default(), Diary::default());
    let (of_calls, of_attempts) = (calls.clone(), attempts.clone());
    let client = quick(server.url())
        .middleware(async move |mut request: ServiceRequest, next: Next| {
            of_calls.write(format!(
                "{} {} {} {} {:?} {}",
                request.service(),
                request.method(),
                request.path(),
                request.endpoint(),
                request.attempt(),
                request.context().correlation_id().as_str()
            ));
            request.options_mut().operation = Some("Users::get_user");
            let answer = next.run(request).await?;
            of_calls.write(answer.status().to_string());
            Ok(answer)
        })
        .attempt_middleware(async move |mut request: ServiceRequest, next: Next| {
            let number = request.attempt().unwrap().to_string();
            // The context is in the headers already, so that a signature can cover it.
            assert!(request.headers().contains_key("traceparent"));
            request.set_header("x-attempt", &number)?;
            let which = (request.endpoint().to_owned(), request.operation());
            let correlation = request.context().correlation_id().as_str().to_owned();
            let answer = next.run(request).await?;
            of_attempts.write(format!(
                "{number} {which:?} {correlation} {}",
                answer.status()
            ));
            Ok(answer)
        });
    let context = Context::new();
    let id = context.correlation_id().as_str().to_owned();
    let answer = client.get("/users/42").context(context).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "3");
    assert_eq!(
        calls.read(),
        [
            format!("user-service GET /users/42 GET /users/{{id}} None {id}"),
            "200 OK".to_owned()
        ]
    );
    let attempt = |number: u32, status: StatusCode| {
        format!("{number} (\"GET /users/{{id}}\", Some(\"Users::get_user\")) {id} {status}")
    };
    assert_eq!(
        attempts.read(),
        [
            attempt(1, StatusCode::SERVICE_UNAVAILABLE),
            attempt(2, StatusCode::SERVICE_UNAVAILABLE),
            attempt(3, StatusCode::OK)
        ]
    );
}

#[tokio::test]
async fn it_may_answer_itself_fail_and_ask_once_more() {
    let server = Server::start(|request: Request<Incoming>| async move {
        let asked = header(&request, "x-asked");
        text(asked)
    })
    .await;
    let client =
        quick(server.url()).middleware(
            async |mut request: ServiceRequest, next: Next| match request.path() {
                "/own" => {
                    let answer = Response::builder().status(203).body("mine").unwrap();
                    Ok(request.respond(answer))
                }
                "/refused" => Err(Error::denied("not for you").into()),
                _ => {
                    let mut once_more = Request::new(trunkline_http::Body::empty());
                    *once_more.uri_mut() = request.uri().clone();
                    std::mem::swap(request.inner_mut(), &mut once_more);
                    request.set_header("x-asked", "first")?;
                    let first = next.clone().run(request).await?;
                    assert_eq!(first.status(), StatusCode::OK);
                    Ok(first)
                }
            },
        );
    let own = client.get("/own").await.unwrap();
    assert_eq!(own.status().as_u16(), 203);
    assert_eq!(own.text().await.unwrap(), "mine");
    let refused = client.get("/refused").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    let asked = client.get("/").await.unwrap();
    assert_eq!(asked.text().await.unwrap(), "first");
    assert_eq!(server.count.requests(), 1);
}

/// The retry, the breaker and the typed causes are as they are without middleware.
#[tokio::test]
async fn what_a_call_fails_with_comes_through_with_its_type() {
    let server = Server::start(|_| async { status(500) }).await;
    let mut config = HttpClientConfig::new(server.url());
    config.circuit_breaker.failure_threshold = Some(2);
    let client = EnhancedHttpClient::from_config(config)
        .unwrap()
        .middleware(says_hello)
        .attempt_middleware(says_hello);
    for _ in 0..2 {
        assert_eq!(client.get("/").await.unwrap().status(), 500);
    }
    match client.get("/").await {
        Err(error @ ServiceError::CircuitOpen(_)) => {
            assert!(error.circuit_open().is_some());
            assert_eq!(error.status_code(), None);
        }
        other => panic!("the circuit is not open: {other:?}"),
    }
    assert_eq!(server.count.requests(), 2);

    // A middleware around attempts that fails is a failed attempt: nothing was sent, so it is tried again.
    let server = Server::start(|_| async { text("hello") }).await;
    let client =
        quick(server.url()).attempt_middleware(async |request: ServiceRequest, next: Next| {
            if request.attempt() == Some(1) {
                let none =
                    Error::unavailable("no token yet").with_retry(trunkline_core::Retry::Safe);
                return Err(none.into());
            }
            next.run(request).await
        });
    let answer = client.post("/").body("x").await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "hello");
    assert_eq!(server.count.requests(), 1);
}

#[tokio::test]
async fn a_client_as_a_tower_service_has_its_middleware_too() {
    use tower::ServiceExt as _;

    let server =
        Server::start(
            |request: Request<Incoming>| async move { text(header(&request, "x-hello")) },
        )
        .await;
    let client = quick(server.url()).attempt_middleware(says_hello);
    let mut request = crate::rig::get("/");
    request.extensions_mut().insert(CallOptions::default());
    let answer = client.oneshot(request).await.unwrap();
    let told = answer.into_body().bytes(100).await.unwrap();
    assert_eq!(told, "from a function");
}
