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
use trunkline_server::layers::{CatchPanicLayer, DeadlineLayer, IdempotencyLayer, InFlightLayer};

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
async fn a_panicking_handler_gives_its_key_back() {
    let inbox = TestInbox::default();
    let handler = post(async || -> &'static str { panic!("oh") });
    let router = Router::new().route("/pay", handler).layer(layer(&inbox));
    let router = router.layer(CatchPanicLayer);
    assert_eq!(ask(&router, keyed("k", "ten")).await.status(), 500);
    assert_eq!(inbox.log(), ["claim", "release"]);
}

/// Takes a hundred seconds and answers with the number of the call.
fn slow(layer: IdempotencyLayer) -> (Router, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = post(async move || {
        let call = counted.fetch_add(1, Ordering::SeqCst) + 1;
        sleep(Duration::from_secs(100)).await;
        format!("payment {call}")
    });
    let router = Router::new().route("/pay", handler).layer(layer);
    (router.layer(DeadlineLayer), calls)
}

/// Asks with so little time that the deadline passes first, or leaves then.
async fn asked_briefly(router: &Router, leaves: bool) {
    let second = Duration::from_secs(1);
    if leaves {
        let asking = router.clone().oneshot(keyed("k", "ten"));
        assert!(tokio::time::timeout(second, asking).await.is_err());
    } else {
        let mut request = keyed("k", "ten");
        let context = trunkline_core::Context::new().with_timeout(second);
        request.extensions_mut().insert(context);
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 504);
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_begun_is_done_once_although_the_client_leaves_or_its_deadline_passes() {
    for leaves in [true, false] {
        let inbox = TestInbox::default();
        let (router, calls) = slow(layer(&inbox));
        asked_briefly(&router, leaves).await;
        let meanwhile = router.clone().oneshot(keyed("k", "ten")).await.unwrap();
        assert_eq!(meanwhile.status(), 409);
        sleep(Duration::from_secs(100)).await;
        let again = ask(&router, keyed("k", "ten")).await;
        assert_eq!(
            (again.status().as_u16(), &again.body()[..]),
            (200, &b"payment 1"[..])
        );
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(inbox.count("release"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_claimed_for_nobody_is_given_back_and_nothing_is_done() {
    for leaves in [true, false] {
        let inbox = TestInbox::default();
        inbox.slow_claims(Duration::from_secs(2));
        let (router, calls) = slow(layer(&inbox));
        asked_briefly(&router, leaves).await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!(inbox.log(), ["claim", "release"]);
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        let again = router.oneshot(keyed("k", "ten")).await.unwrap();
        assert_eq!(again.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_without_its_client_keeps_its_place_among_what_is_under_way() {
    let inbox = TestInbox::default();
    let (router, _) = slow(layer(&inbox));
    let router = router.layer(InFlightLayer::new(1));
    asked_briefly(&router, true).await;
    let full = router
        .clone()
        .oneshot(posting("/pay", "ten"))
        .await
        .unwrap();
    assert_eq!(full.status(), 503);
    sleep(Duration::from_secs(100)).await;
    let again = router.oneshot(posting("/pay", "ten")).await.unwrap();
    assert_eq!(again.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_goes_on_and_cuts_off_what_is_late() {
    for (seconds, cut_off) in [(120, 0), (50, 1)] {
        let inbox = TestInbox::default();
        let layer = layer(&inbox);
        let (router, _) = slow(layer.clone());
        asked_briefly(&router, true).await;
        let deadline = Instant::now() + Duration::from_secs(seconds);
        assert_eq!(layer.shutdown(deadline).await, cut_off);
        assert_eq!(inbox.count("complete"), 1 - cut_off);
        // What was cut off may have been done: its key comes free when the reservation runs out, not before.
        assert_eq!(inbox.count("release"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_refused_once_is_tried_again_and_a_lost_claim_is_not_renewed() {
    for lost in [false, true] {
        let inbox = TestInbox::default();
        let (router, calls) = slow(layer(&inbox));
        let asking = async {
            let answer = router.clone().oneshot(keyed("k", "ten")).await.unwrap();
            assert_eq!(answer.status(), 200);
        };
        let away = async {
            sleep(Duration::from_secs(1)).await;
            if lost {
                inbox.lose_claims();
            } else {
                inbox.fail("extend");
            }
        };
        tokio::join!(asking, away);
        // Every twenty seconds, a hundred seconds long.
        assert_eq!(inbox.count("extend"), if lost { 1 } else { 4 });
        assert_eq!(
            (inbox.count("complete"), calls.load(Ordering::SeqCst)),
            (1, 1)
        );
    }
}

/// An answer whose body takes a second for each of its chunks.
fn trickling(chunks: u32) -> axum::routing::MethodRouter {
    post(async move || {
        let chunks = futures_util::stream::unfold(0, move |at| async move {
            sleep(Duration::from_secs(1)).await;
            (at < chunks).then(|| (Ok::<_, std::io::Error>(format!("{at}")), at + 1))
        });
        Body::from_stream(chunks)
    })
}

#[tokio::test(start_paused = true)]
async fn the_claim_is_kept_while_the_answer_is_produced_and_stored() {
    let inbox = TestInbox::default();
    let mut config = IdempotencyConfig::default();
    config.reservation = Duration::from_secs(3);
    let once = layer(&inbox).with_config(config);
    let router = Router::new().route("/pay", trickling(8)).layer(once);
    let first = trunkline_core::task::spawn("first", router.clone().oneshot(keyed("k", "ten")));
    sleep(Duration::from_secs(6)).await;
    let second = router.clone().oneshot(keyed("k", "ten")).await.unwrap();
    assert_eq!(second.status(), 409);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(ask(&router, keyed("k", "ten")).await.body(), "01234567");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_goes_on_and_on_is_sent_and_its_repetition_refused() {
    let inbox = TestInbox::default();
    let router = Router::new()
        .route("/pay", trickling(15))
        .layer(layer(&inbox));
    let began = Instant::now();
    let answer = router.clone().oneshot(keyed("k", "ten")).await.unwrap();
    assert!(
        began.elapsed() <= Duration::from_secs(11),
        "{:?}",
        began.elapsed()
    );
    let body = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
    assert_eq!(body, "01234567891011121314");
    let again = problem(&ask(&router, keyed("k", "ten")).await);
    assert_eq!(
        (&again["status"], &again["original_status"]),
        (&409.into(), &200.into())
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_stored_although_the_client_went_away() {
    let inbox = TestInbox::default();
    let layer = layer(&inbox);
    let router = Router::new()
        .route("/pay", trickling(3))
        .layer(layer.clone());
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
