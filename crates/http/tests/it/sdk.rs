//! The service SDK over real sockets.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::Notify;
use trunkline_core::{Context, Error, ErrorKind, Retry};
use trunkline_discovery::{Discovery, EndpointConfig, ServiceConfig, ServiceInstance, ServiceName};
use trunkline_http::{
    CircuitConfig, ErrorContext, Job, Next, ServiceError, ServiceRequest, ServiceResult,
    ServiceSdk, ServiceSdkConfig,
};
use trunkline_resilience::breaker::State;

use crate::rig::{Server, in_time, status, text};

fn service(server: &Server) -> ServiceConfig {
    let mut config = ServiceConfig::at("127.0.0.1", server.address.port());
    config.retry.delay = Some(Duration::from_millis(1));
    config
}

/// A service that has no place, and is not waited for.
fn nobody() -> ServiceConfig {
    let mut config = ServiceConfig::default();
    config.retry.enabled = Some(false);
    config
}

fn sdk_of(server: &Server) -> ServiceSdk {
    let builder = ServiceSdk::builder().service("user-service", service(server));
    builder.service("nobody", nobody()).build().unwrap()
}

fn json_answer(code: u16, value: &Value) -> Response<Full<Bytes>> {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Full::from(value.to_string()))
        .unwrap()
}

/// Tells what it was asked; `/users/9` is nobody.
async fn users() -> Server {
    Server::start(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        match (head.method.as_str(), head.uri.path()) {
            (_, "/users/9") => {
                json_answer(404, &json!({ "title": "Not Found", "detail": "nobody" }))
            }
            ("DELETE", _) => status(204),
            (_, "/text") => text("no JSON"),
            (method, _) => json_answer(
                200,
                &json!({
                    "method": method,
                    "target": head.uri.to_string(),
                    "type": head.headers.get("content-type").map(|v| v.to_str().unwrap()),
                    "body": String::from_utf8_lossy(&body),
                }),
            ),
        }
    })
    .await
}

#[tokio::test]
async fn a_result_has_data_or_an_error_and_the_status() {
    let server = users().await;
    let sdk = sdk_of(&server);
    let found = sdk
        .call_service("user-service", "/users")
        .method(Method::GET)
        .param("active", true)
        .timeout(Duration::from_secs(30))
        .retry_attempts(3)
        .await;
    assert!(found.success);
    assert_eq!(found.status_code, Some(StatusCode::OK));
    assert_eq!(found.data.unwrap()["target"], "/users?active=true");
    assert!(found.error.is_none());

    let nobody = sdk.call_service("user-service", "/users/9").await;
    assert!(!nobody.success && nobody.data.is_none());
    assert_eq!(nobody.status_code, Some(StatusCode::NOT_FOUND));
    let error = nobody.error.unwrap();
    assert_eq!(
        error.to_string(),
        "user-service answered 404: Not Found: nobody"
    );

    let unread = sdk
        .call_service("user-service", "/text")
        .typed::<Vec<u64>>()
        .await;
    assert_eq!(unread.status_code, Some(StatusCode::OK));
    assert!(
        matches!(unread.error, Some(ServiceError::Validation(_))),
        "{unread:?}"
    );
}

/// X-38: of all forms only `call_service` and `batch_call` never answer `Err`, whatever happens.
#[tokio::test]
async fn x_38_a_result_an_item_of_data_and_a_response() {
    let server = users().await;
    let sdk = sdk_of(&server);
    let result = sdk.call_service("user-service", "/users/9").await;
    assert_eq!(result.status_code, Some(StatusCode::NOT_FOUND));
    let data = sdk
        .get_from_service::<Value>("user-service", "/users/9")
        .await;
    assert_eq!(data.unwrap_err().status_code(), Some(StatusCode::NOT_FOUND));
    let client = sdk.client("user-service").unwrap();
    assert_eq!(
        client.get("/users/9").await.unwrap().status(),
        StatusCode::NOT_FOUND
    );

    // No such service, no service's name at all, and a panic on the way.
    let unknown = sdk.call_service("nobody", "/").await;
    let kind = unknown.error.unwrap().kind();
    assert_eq!(kind, ErrorKind::Rejected, "there is no instance");
    let wrong = sdk.call_service("not a name", "/").await;
    assert!(matches!(wrong.error, Some(ServiceError::Validation(_))));
    let clumsy = sdk.middleware(async |request: ServiceRequest, next: Next| {
        assert!(request.path().is_empty(), "clumsy");
        next.run(request).await
    });
    let panicked = clumsy.call_service("user-service", "/users").await;
    assert!(panicked.error.unwrap().to_string().contains("clumsy"));
}

#[tokio::test]
async fn every_method_sends_and_reads_json() {
    let server = users().await;
    let sdk = sdk_of(&server);
    let got: Value = sdk
        .get_from_service("user-service", "/users")
        .params(&json!({ "limit": 50, "active": true }))
        .await
        .unwrap();
    assert_eq!(got["target"], "/users?active=true&limit=50");
    let name = json!({ "name": "Ada" });
    let posted: Value = sdk
        .post_to_service("user-service", "/users", &name)
        .await
        .unwrap();
    let put: Value = sdk
        .put_to_service("user-service", "/users/1", &name)
        .await
        .unwrap();
    let patched: Value = sdk
        .patch_in_service("user-service", "/users/1", &name)
        .await
        .unwrap();
    for (answer, method) in [(posted, "POST"), (put, "PUT"), (patched, "PATCH")] {
        assert_eq!(answer["method"], method);
        assert_eq!(answer["type"], "application/json");
        assert_eq!(answer["body"], r#"{"name":"Ada"}"#);
    }
    // 204 has no body to be read.
    sdk.delete_from_service("user-service", "/users/1")
        .await
        .unwrap();
    let nothing = sdk
        .call_service("user-service", "/users/1")
        .method(Method::DELETE)
        .await;
    assert_eq!((nothing.success, nothing.data), (true, Some(Value::Null)));
    assert_eq!(nothing.status_code, Some(StatusCode::NO_CONTENT));
}

#[tokio::test]
async fn a_scoped_client_is_used_and_gone() {
    let server = users().await;
    let sdk = sdk_of(&server);
    let status = sdk
        .service_client("user-service", async |client| {
            Ok::<_, ServiceError>(client.get("/users/9").send().await?.status())
        })
        .await
        .unwrap();
    assert_eq!(status, StatusCode::NOT_FOUND);
    let refused = sdk
        .service_client("no name", async |_| Ok::<_, ServiceError>(()))
        .await;
    assert!(matches!(refused, Err(ServiceError::Validation(_))));
}

/// The circuits of a service are its endpoints', each with a state that can be read.
#[tokio::test]
async fn circuits_are_read_endpoint_by_endpoint() {
    let server = Server::start(|request: Request<Incoming>| async move {
        match request.uri().path() {
            "/orders/1" => status(500),
            _ => text("1"),
        }
    })
    .await;
    let mut orders = service(&server);
    orders.retry.enabled = Some(false);
    orders.circuit_breaker.failure_threshold = Some(2);
    for endpoint in ["GET /orders/{id}", "GET /orders"] {
        orders
            .endpoints
            .insert(endpoint.to_owned(), EndpointConfig::default());
    }
    let sdk = ServiceSdk::builder()
        .service("order-service", orders)
        .build()
        .unwrap();
    for _ in 0..2 {
        let failed = sdk.call_service("order-service", "/orders/1").await;
        assert_eq!(failed.status_code, Some(StatusCode::INTERNAL_SERVER_ERROR));
    }
    let refused = sdk.call_service("order-service", "/orders/2").await;
    assert!(
        matches!(refused.error, Some(ServiceError::CircuitOpen(_))),
        "{refused:?}"
    );
    assert_eq!(refused.status_code, None);
    assert!(sdk.call_service("order-service", "/orders").await.success);
    let states: BTreeMap<_, _> = sdk
        .circuit_states()
        .into_iter()
        .map(|status| {
            let endpoint = status.target.endpoint.as_deref().unwrap_or("*").to_owned();
            (
                endpoint,
                (status.circuit.state, status.circuit.failure_count),
            )
        })
        .collect();
    assert_eq!(states["GET /orders/{id}"].0, State::Open);
    assert_eq!(states["GET /orders"], (State::Closed, 0));
    assert_eq!(
        sdk.client("order-service").unwrap().circuit_states().len(),
        states.len()
    );
}

#[tokio::test]
async fn a_client_with_its_own_settings_has_its_own_circuit() {
    let server = Server::start(|_| async { status(500) }).await;
    let sdk = sdk_of(&server);
    let config = CircuitConfig::default()
        .with_failure_threshold(1)
        .with_retry_attempts(1);
    let strict = sdk.client_with("user-service", config.clone()).unwrap();
    assert_eq!(strict.get("/").await.unwrap().status(), 500);
    // Asking again is no way round the circuit.
    let again = sdk.client_with("User_Service", config.clone()).unwrap();
    assert!(matches!(
        again.get("/").await,
        Err(ServiceError::CircuitOpen(_))
    ));
    assert_eq!(again.circuit_states()[0].circuit.state, State::Open);
    // That of the service is another one.
    let usual = sdk.client("user-service").unwrap();
    assert_eq!(usual.get("/").no_retry().await.unwrap().status(), 500);
    let states: Vec<State> = sdk
        .circuit_states()
        .iter()
        .map(|s| s.circuit.state)
        .collect();
    assert_eq!(states.len(), 2);
    assert!(states.contains(&State::Open) && states.contains(&State::Closed));

    let wrong = sdk.client_with("user-service", config.with_failure_threshold(0));
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Config);
}

#[cfg(feature = "cache")]
#[tokio::test]
async fn answers_are_not_kept_where_the_settings_say_so() {
    for (enabled, requests) in [(true, 1), (false, 2)] {
        let server = Server::start(|_| async {
            let mut answer = json_answer(200, &json!(1));
            let headers = answer.headers_mut();
            headers.insert("cache-control", "max-age=60".parse().unwrap());
            answer
        })
        .await;
        let sdk = ServiceSdk::builder()
            .config(ServiceSdkConfig::default().with_cache_enabled(enabled))
            .service("user-service", service(&server))
            .build()
            .unwrap();
        for _ in 0..2 {
            let number = sdk.get_from_service::<u64>("user-service", "/one").await;
            assert_eq!(number.unwrap(), 1);
        }
        assert_eq!(server.count.requests(), requests, "{enabled}");
    }
}

#[test]
fn the_defaults_are_those_of_the_guide() {
    let config = ServiceSdkConfig::default();
    assert_eq!(config.default_timeout, Duration::from_secs(30));
    assert_eq!(config.default_retry_attempts, 3);
    assert!(config.default_circuit_breaker_enabled);
    assert!(config.service_discovery_enabled);
    assert_eq!(config.health_check_interval, Duration::from_secs(30));
    assert!(config.cache_enabled);
    assert!(config.metrics_enabled);
    let circuit = CircuitConfig::default();
    assert_eq!(
        (circuit.failure_threshold, circuit.success_threshold),
        (5, 2)
    );
    assert_eq!(circuit.timeout, Duration::from_secs(60));
    assert_eq!(
        (circuit.retry_attempts, circuit.retry_delay),
        (3, Duration::from_secs(1))
    );
    assert!((circuit.retry_backoff - 2.0).abs() < f64::EPSILON);
    assert_eq!(circuit.request_timeout, Duration::from_secs(30));
}

#[tokio::test]
async fn the_settings_of_the_sdk_are_under_those_of_the_service() {
    let server = Server::start(|_| async { status(503) }).await;
    let sdk = |service: ServiceConfig, config: ServiceSdkConfig| {
        let builder = ServiceSdk::builder()
            .config(config)
            .service("user-service", service);
        builder.build().unwrap()
    };
    let config = ServiceSdkConfig::default().with_default_retry_attempts(2);
    sdk(service(&server), config.clone())
        .call_service("user-service", "/")
        .await;
    assert_eq!(server.count.requests(), 2);
    let mut own = service(&server);
    own.retry.max_attempts = Some(4);
    sdk(own, config).call_service("user-service", "/").await;
    assert_eq!(server.count.requests(), 6);

    // Without a breaker nothing is refused, however often it fails.
    let off = ServiceSdkConfig::default()
        .with_default_circuit_breaker_enabled(false)
        .with_default_retry_attempts(1);
    let off = sdk(service(&server), off);
    for _ in 0..8 {
        let failed = off.call_service("user-service", "/").await;
        assert_eq!(failed.status_code, Some(StatusCode::SERVICE_UNAVAILABLE));
    }
    assert!(off.circuit_states().is_empty());

    // Without discovery only what is named here is known.
    let name = ServiceName::new("user-service").unwrap();
    let elsewhere = Discovery::builder().build();
    let instance = ServiceInstance::new(name, "127.0.0.1", server.address.port());
    elsewhere.register_external_service(instance).unwrap();
    let alone = |enabled| {
        let config = ServiceSdkConfig::default().with_service_discovery_enabled(enabled);
        ServiceSdk::builder()
            .config(config)
            .discovery(&elsewhere)
            .build()
            .unwrap()
    };
    let found = alone(true).service_instance("user-service").await.unwrap();
    assert_eq!(found.unwrap().port, server.address.port());
    assert!(
        alone(false)
            .service_instance("user-service")
            .await
            .unwrap()
            .is_none()
    );
}

/// Told: who, which endpoint, which method, how many attempts, which error; also of what cannot be read.
#[tokio::test]
async fn every_failed_call_is_told_with_its_context() {
    let server = Server::start(|request: Request<Incoming>| async move {
        match request.uri().path() {
            "/users/9" => status(404),
            "/users/5" => status(503),
            "/users/8" => text("no JSON"),
            _ => json_answer(200, &json!(1)),
        }
    })
    .await;
    let mut users = service(&server);
    users
        .endpoints
        .insert("GET /users/{id}".to_owned(), EndpointConfig::default());
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&told);
    let kept: Arc<Mutex<Vec<Arc<ServiceError>>>> = Arc::default();
    let keeping = Arc::clone(&kept);
    let sdk = ServiceSdk::builder()
        .service("user-service", users)
        .service("nobody", nobody())
        .build()
        .unwrap()
        .on_error(
            async move |error: Arc<ServiceError>, context: ErrorContext| {
                heard.lock().unwrap().push(format!(
                    "{} {} {} {} {:?} {} {}",
                    context.service_name,
                    context.endpoint,
                    context.method,
                    context.path,
                    error.status_code().map(|status| status.as_u16()),
                    context.attempts,
                    context.correlation_id,
                ));
            },
        )
        .on_error(async move |error, _| keeping.lock().unwrap().push(error))
        .on_error(async |_, _| panic!("a handler that fails changes nothing"));
    let context = Context::new();
    let id = context.correlation_id().as_str().to_owned();
    let (answers, unknown) = context
        .scope(async {
            let mut answers = Vec::new();
            for user in [1, 9, 5, 8] {
                answers.push(
                    sdk.call_service("user-service", &format!("/users/{user}?a=b"))
                        .await,
                );
            }
            (answers, sdk.call_service("nobody", "/").await)
        })
        .await;
    let line = |path: &str, status: &str, attempts: u32| {
        format!("user-service GET /users/{{id}} GET {path} {status} {attempts} {id}")
    };
    assert_eq!(
        *told.lock().unwrap(),
        [
            line("/users/9", "Some(404)", 1),
            line("/users/5", "Some(503)", 3),
            line("/users/8", "None", 1),
            format!("nobody * GET / None 0 {id}"),
        ]
    );
    // A handler may keep the error: the caller has it all the same, typed.
    assert_eq!(kept.lock().unwrap().len(), 4);
    let codes: Vec<_> = answers
        .iter()
        .map(|answer| answer.status_code.unwrap().as_u16())
        .collect();
    assert_eq!(codes, [200, 404, 503, 200]);
    assert!(matches!(
        answers[3].error,
        Some(ServiceError::Validation(_))
    ));
    let unknown = Error::from(unknown.error.unwrap());
    assert!(unknown.find::<trunkline_discovery::NoInstance>().is_some());
    assert_eq!(unknown.retry(), Retry::Safe);
}

async fn never() -> Result<u64, ServiceError> {
    pending().await
}

/// X-40: results of different types stand beside each other, as JSON or each with its type.
#[tokio::test]
async fn x_40_a_batch_is_erased_or_typed() {
    let server = users().await;
    let sdk = sdk_of(&server);
    let results = sdk
        .batch_call([
            (
                "user",
                Job::new(sdk.call_service("user-service", "/users/1")),
            ),
            (
                "orders",
                Job::new(async { Ok::<_, ServiceError>(vec![1, 2]) }),
            ),
            (
                "nobody",
                Job::new(sdk.get_from_service::<Value>("user-service", "/users/9")),
            ),
        ])
        .await;
    assert_eq!(
        results.get("user").unwrap().data.as_ref().unwrap()["target"],
        "/users/1"
    );
    assert_eq!(results.get("orders").unwrap().data, Some(json!([1, 2])));
    let nobody = results.get("nobody").unwrap();
    assert_eq!(nobody.status_code, Some(StatusCode::NOT_FOUND));
    assert!(!results.all_succeeded());
    let names: Vec<_> = results.iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["user", "orders", "nobody"]);

    let (user, number, failed) = sdk
        .batch((
            sdk.call_service("user-service", "/users/1"),
            async { Ok::<_, Error>(7_u8) },
            async { Err::<String, _>(Error::denied("no")) },
        ))
        .await;
    assert!(user.success);
    assert_eq!(number.data, Some(7_u8));
    assert_eq!(failed.error.unwrap().kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_batch_keeps_its_deadline_its_width_and_its_nerve() {
    let sdk = ServiceSdk::builder().build().unwrap();
    // One panic does not take the others.
    let results = sdk
        .batch_call([("good", Job::new(async { Ok::<_, Error>(1) }))])
        .add("bad", Job::new(async { Err::<u8, Error>(panics()) }))
        .add("good", Job::new(async { Ok::<_, Error>(2) }))
        .await;
    assert_eq!(results.get("good").unwrap().data, Some(json!(1)));
    let bad = results.get("bad").unwrap().error.as_ref().unwrap();
    assert!(bad.to_string().contains("bad luck"), "{bad}");
    // A name given twice is said, not run and not lost.
    let results: Vec<(String, ServiceResult)> = results.into_iter().collect();
    assert!(matches!(
        results[2].1.error,
        Some(ServiceError::Validation(_))
    ));

    // Never more than its width at once; what has not come by the deadline is a timeout, what did stays.
    let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let step = |time: u64| {
        let (running, most) = (&running, &most);
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(time)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Error>(time)
        }
    };
    let began = tokio::time::Instant::now();
    let calls = [1, 2, 3, 60, 60, 60].map(|time| (format!("{time}"), Job::new(step(time))));
    let calls = calls.into_iter().enumerate();
    let results: Vec<ServiceResult> = sdk
        .batch_call(calls.map(|(number, (_, job))| (number.to_string(), job)))
        .max_concurrent(2)
        .deadline(Duration::from_secs(10))
        .await
        .into_iter()
        .map(|(_, result)| result)
        .collect();
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert!(results[..3].iter().all(|result| result.success));
    let retries: Vec<Retry> = results[3..]
        .iter()
        .map(|late| match &late.error {
            Some(ServiceError::ServiceTimeout(error)) => error.retry(),
            other => panic!("{other:?}"),
        })
        .collect();
    // The last one was not begun, so asking for it again is safe.
    assert_eq!(
        retries,
        [Retry::IfIdempotent, Retry::IfIdempotent, Retry::Safe]
    );

    // The caller's deadline counts, and the calls know the sooner one.
    let began = tokio::time::Instant::now();
    let context = Context::new().with_timeout(Duration::from_secs(3));
    let left = async { Ok::<_, Error>(Context::current().unwrap().remaining().unwrap().as_secs()) };
    let (left, late) = context.scope(sdk.batch((left, never()))).await;
    assert_eq!(left.data, Some(3));
    assert!(matches!(late.error, Some(ServiceError::ServiceTimeout(_))));
    assert_eq!(began.elapsed(), Duration::from_secs(3));
}

fn panics() -> Error {
    panic!("bad luck")
}

/// Dropping a batch drops its calls.
#[tokio::test]
async fn a_batch_is_cancel_safe() {
    let sdk = ServiceSdk::builder().build().unwrap();
    struct Told(Arc<AtomicUsize>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (dropped, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let call = |_| {
        let (told, begun) = (Told(Arc::clone(&dropped)), Arc::clone(&begun));
        Job::new(async move {
            begun.notify_one();
            never().await.inspect(|_| drop(told))
        })
    };
    let calls = (0..3).map(|number| (number.to_string(), call(number)));
    let batch = sdk
        .batch_call(calls.collect::<Vec<_>>())
        .max_concurrent(2)
        .into_future();
    tokio::select! {
        _ = batch => unreachable!("it never ends"),
        () = begun.notified() => {}
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
}

/// Says more than it sends, as often as the test says.
async fn breaks_off(times: usize) -> Server {
    Server::scripted(move |number, mut raw| async move {
        raw.request().await.unwrap();
        if number < times {
            raw.write("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
                .await;
        } else {
            raw.answer("[1]").await;
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure_where_it_is_read_whole() {
    let server = breaks_off(2).await;
    let sdk = sdk_of(&server);
    let read = sdk.get_from_service::<Vec<u64>>("user-service", "/users");
    assert_eq!(in_time(read.into_future()).await.unwrap(), [1]);
    assert_eq!(server.count.requests(), 3);
    let server = breaks_off(usize::MAX).await;
    let sdk = sdk_of(&server);
    let posted = sdk.post_to_service::<Vec<u64>>("user-service", "/users", &1);
    let error = in_time(posted.into_future()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(server.count.requests(), 1, "it may have been done");
    let result = in_time(sdk.call_service("user-service", "/users").into_future()).await;
    assert_eq!(result.error.unwrap().kind(), ErrorKind::Unavailable);
    let failures = sdk.client("user-service").unwrap().circuit_states();
    let failures: u64 = failures
        .iter()
        .map(|state| u64::from(state.circuit.failure_count))
        .sum();
    assert!(failures > 1, "{failures}");
}
