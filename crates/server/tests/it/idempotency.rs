//! A repeated request is done once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::post;
use http::{Request, StatusCode};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;
use trunkline_messaging::inbox::{AnyInbox, MemoryInbox};
use trunkline_server::IdempotencyConfig;
use trunkline_server::layers::{CatchPanicLayer, DeadlineLayer, IdempotencyLayer};

use crate::client::{self, ask, post as posting, problem};
use crate::inbox::TestInbox;

fn keyed(key: &str, body: &str) -> Request<Body> {
    let mut request = posting("/pay", body);
    request
        .headers_mut()
        .insert("idempotency-key", key.parse().unwrap());
    request
}

/// Answers with the number of the call, and the status that the body names.
fn counting(layer: IdempotencyLayer) -> (Router, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = async move |body: String| {
        let call = counted.fetch_add(1, Ordering::SeqCst) + 1;
        let status = body
            .parse()
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok());
        let head = [("location", format!("/payments/{call}"))];
        (
            status.unwrap_or(StatusCode::CREATED),
            head,
            format!("payment {call} {body}"),
        )
            .into_response()
    };
    (
        Router::new().route("/pay", post(handler)).layer(layer),
        calls,
    )
}

fn layer(inbox: &TestInbox) -> IdempotencyLayer {
    IdempotencyLayer::new(inbox.any(), "payments")
}

#[tokio::test]
async fn a_repetition_gets_the_first_answer() {
    let inbox = TestInbox::default();
    let (router, calls) = counting(layer(&inbox));
    let first = ask(&router, keyed("\"k1\"", "ten")).await;
    assert_eq!(first.status(), 201);
    assert!(!first.headers().contains_key("idempotency-replayed"));
    for key in ["\"k1\"", "k1"] {
        let again = ask(&router, keyed(key, "ten")).await;
        assert_eq!(
            (again.status(), again.body()),
            (first.status(), first.body())
        );
        assert_eq!(again.headers()["location"], "/payments/1");
        assert_eq!(again.headers()["idempotency-replayed"], "true");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(
        ask(&router, keyed("k2", "ten")).await.body(),
        "payment 2 ten"
    );
}

/// The same with a store of the library, whose claims two layers share as two processes would.
#[tokio::test]
async fn two_services_on_one_store_do_it_once() {
    let inbox = AnyInbox::new(MemoryInbox::default());
    let (one, first) = counting(IdempotencyLayer::new(inbox.clone(), "payments"));
    let (other, second) = counting(IdempotencyLayer::new(inbox, "payments"));
    let answers = futures_util::future::join_all((0..20).map(async |n| {
        let router = if n % 2 == 0 { &one } else { &other };
        ask(router, keyed("k", "ten")).await
    }))
    .await;
    assert_eq!(
        first.load(Ordering::SeqCst) + second.load(Ordering::SeqCst),
        1
    );
    for answer in answers {
        assert!(
            answer.status() == 201 || answer.status() == 409,
            "{}",
            answer.status()
        );
    }
    assert_eq!(ask(&other, keyed("k", "twenty")).await.status(), 422);
    assert_eq!(ask(&one, keyed("k", "ten")).await.body(), "payment 1 ten");
}

#[tokio::test]
async fn a_key_is_asked_for_only_where_it_is_required() {
    let inbox = TestInbox::default();
    let (router, calls) = counting(layer(&inbox));
    assert_eq!(ask(&router, posting("/pay", "1")).await.status(), 201);
    let (router, _) = counting(layer(&inbox).required());
    let refused = problem(&ask(&router, posting("/pay", "1")).await);
    assert_eq!(refused["status"], 400);
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("Idempotency-Key")
    );
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert!(inbox.log().is_empty());
}

#[tokio::test]
async fn another_request_under_the_same_key_is_422() {
    let inbox = TestInbox::default();
    let (router, calls) = counting(layer(&inbox));
    ask(&router, keyed("k", "ten")).await;
    assert_eq!(
        problem(&ask(&router, keyed("k", "twenty")).await)["status"],
        422
    );
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn answers_that_are_not_final_give_the_key_back() {
    let inbox = TestInbox::default();
    let (router, calls) = counting(layer(&inbox));
    for status in ["500", "503", "429", "408"] {
        for _ in 0..2 {
            assert_eq!(
                ask(&router, keyed(status, status)).await.status().as_str(),
                status
            );
        }
    }
    assert_eq!(calls.load(Ordering::SeqCst), 8);
    assert!(!inbox.log().contains(&"complete"));
    // A refusal is final.
    for _ in 0..2 {
        assert_eq!(ask(&router, keyed("x", "422")).await.status(), 422);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 9);
}

#[tokio::test]
async fn two_at_once_are_done_once() {
    let inbox = TestInbox::default();
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let handler = post(async move || {
        tell.notify_one();
        wait.notified().await;
        "paid"
    });
    let router = Router::new().route("/pay", handler).layer(layer(&inbox));
    let first = trunkline_core::task::spawn("first", router.clone().oneshot(keyed("k", "ten")));
    client::within(begun.notified()).await;
    let second = ask(&router, keyed("k", "ten")).await;
    assert_eq!(problem(&second)["status"], 409);
    let wait: u64 = second.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=5).contains(&wait));
    go.notify_one();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(ask(&router, keyed("k", "ten")).await.body(), "paid");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_or_panicking_request_gives_its_key_back() {
    for end in ["deadline", "panic"] {
        let inbox = TestInbox::default();
        let handler = post(async move |body: String| {
            assert_ne!(body, "panic");
            sleep(Duration::from_secs(100)).await;
        });
        let router = Router::new().route("/pay", handler).layer(layer(&inbox));
        let router = router.layer(DeadlineLayer).layer(CatchPanicLayer);
        let context = trunkline_core::Context::new().with_timeout(Duration::from_secs(1));
        let mut request = keyed("k", end);
        request.extensions_mut().insert(context);
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), if end == "panic" { 500 } else { 504 });
        inbox.logged("release").await;
        assert_eq!(inbox.log(), ["claim", "release"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_stored_although_the_client_went_away() {
    let inbox = TestInbox::default();
    let slow_body = post(async || {
        let chunks = futures_util::stream::unfold(0, async |at| {
            sleep(Duration::from_secs(1)).await;
            (at < 3).then(|| (Ok::<_, std::io::Error>(format!("{at}")), at + 1))
        });
        Body::from_stream(chunks)
    });
    let layer = layer(&inbox);
    let router = Router::new().route("/pay", slow_body).layer(layer.clone());
    let request = router.clone().oneshot(keyed("k", "ten"));
    assert!(
        tokio::time::timeout(Duration::from_millis(1500), request)
            .await
            .is_err()
    );
    assert_eq!(
        layer
            .shutdown(Instant::now() + Duration::from_secs(10))
            .await,
        0
    );
    assert_eq!(inbox.log(), ["claim", "complete"]);
    let again = router.oneshot(keyed("k", "ten")).await.unwrap();
    assert_eq!(
        axum::body::to_bytes(again.into_body(), 100).await.unwrap(),
        "012"
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_handler_keeps_its_claim() {
    let inbox = TestInbox::default();
    let handler = post(async || {
        sleep(Duration::from_secs(300)).await;
        "paid"
    });
    let router = Router::new().route("/pay", handler).layer(layer(&inbox));
    let first = trunkline_core::task::spawn("first", router.clone().oneshot(keyed("k", "ten")));
    // Far beyond the reservation of one minute.
    sleep(Duration::from_secs(200)).await;
    let second = router.clone().oneshot(keyed("k", "ten")).await.unwrap();
    assert_eq!(second.status(), 409);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert!(inbox.log().iter().filter(|step| **step == "extend").count() >= 10);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_nothing_is_done() {
    let inbox = TestInbox::default();
    let (router, calls) = counting(layer(&inbox));
    inbox.fail("claim");
    assert_eq!(
        problem(&ask(&router, keyed("k", "ten")).await)["status"],
        503
    );
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    // An answer is tried to be stored again.
    inbox.fail("complete");
    assert_eq!(ask(&router, keyed("k", "ten")).await.status(), 201);
    assert_eq!(
        ask(&router, keyed("k", "ten")).await.headers()["idempotency-replayed"],
        "true"
    );
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_large_answer_is_sent_and_its_repetition_refused() {
    let inbox = TestInbox::default();
    let mut config = IdempotencyConfig::default();
    config.max_response = trunkline_core::size::ByteSize::new(1000);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = post(async move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let chunks = (0..100).map(|_| Ok::<_, std::io::Error>("x".repeat(100)));
        Body::from_stream(futures_util::stream::iter(chunks))
    });
    let router = Router::new()
        .route("/pay", handler)
        .layer(layer(&inbox).with_config(config));
    assert_eq!(ask(&router, keyed("k", "ten")).await.body().len(), 10_000);
    let again = problem(&ask(&router, keyed("k", "ten")).await);
    assert_eq!(
        (&again["status"], &again["original_status"]),
        (&409.into(), &200.into())
    );
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn other_methods_and_scopes_are_apart() {
    let inbox = TestInbox::default();
    let by_user = layer(&inbox).scoped_by(|parts| {
        let user = parts
            .headers
            .get("x-user")
            .and_then(|user| user.to_str().ok());
        user.unwrap_or_default().to_owned()
    });
    let (router, calls) = counting(by_user);
    for user in ["ann", "bob", "ann"] {
        let mut request = keyed("k", "ten");
        request
            .headers_mut()
            .insert("x-user", user.parse().unwrap());
        ask(&router, request).await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let mut get = keyed("k", "ten");
    *get.method_mut() = http::Method::GET;
    assert_eq!(ask(&router, get).await.status(), 405);
    assert_eq!(
        inbox.log().iter().filter(|step| **step == "claim").count(),
        3
    );
}

#[tokio::test]
async fn a_body_too_large_to_be_recognised_is_413() {
    let inbox = TestInbox::default();
    let (router, calls) = counting(layer(&inbox).with_body_limit(10));
    assert_eq!(
        problem(&ask(&router, keyed("k", "more than ten")).await)["status"],
        413
    );
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}
