//! Load shedding and rate limits, on a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use tokio::time::{advance, sleep};
use trunkline_core::{BoxFuture, Error, Propagation};
use trunkline_resilience::concurrency::{ConcurrencyLimiter, ConcurrencySettings};
use trunkline_resilience::ratelimit::{
    KeyedRateLimiter, RateLimitSettings, SharedRateLimiter, Verdict,
};
use trunkline_server::layers::{ContextLayer, DeadlineLayer, LoadShedLayer, RateLimitLayer};

use crate::client::{ask, problem};

fn asking(name: &str, value: &str) -> Request<Body> {
    let request = Request::builder().uri("/").header(name, value);
    request.body(Body::empty()).unwrap()
}

fn limiter(initial: u32) -> Arc<ConcurrencyLimiter> {
    let mut settings = ConcurrencySettings::default();
    (settings.initial, settings.min) = (initial, 1);
    Arc::new(ConcurrencyLimiter::new("served", settings))
}

#[tokio::test(start_paused = true)]
async fn the_least_important_requests_are_shed_first() {
    let limiter = limiter(10);
    let slow = async || {
        sleep(Duration::from_millis(10)).await;
        "served"
    };
    let router = Router::new()
        .route("/", get(slow))
        .layer(LoadShedLayer::new(Arc::clone(&limiter)))
        .layer(ContextLayer::new(Propagation::default()));
    let wave = ["low"; 10].into_iter().chain(["critical"; 10]);
    let asked =
        wave.map(|priority| ask(&router, asking("baggage", &format!("priority={priority}"))));
    let answers = join_all(asked).await;
    let served = |from: usize, to: usize| {
        let answers = answers[from..to].iter();
        answers.filter(|answer| answer.status() == 200).count()
    };
    assert_eq!((served(0, 10), served(10, 20)), (7, 3));
    let shed = &answers[9];
    assert_eq!(shed.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shed.headers()["retry-after"], "1");
    assert_eq!(problem(shed)["status"], 503);
    assert_eq!(limiter.measured().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn handlers_that_are_overloaded_lower_the_limit_and_a_client_that_leaves_frees_its_place() {
    let limiter = limiter(20);
    let overloaded = async || {
        sleep(Duration::from_millis(200)).await;
        StatusCode::SERVICE_UNAVAILABLE
    };
    let router = Router::new()
        .route("/", get(overloaded))
        .layer(LoadShedLayer::new(Arc::clone(&limiter)));
    let gone = tokio::time::timeout(Duration::from_millis(1), ask(&router, asking("a", "b")));
    assert!(gone.await.is_err());
    assert_eq!(limiter.measured().in_flight, 0);
    join_all((0..12).map(|_| ask(&router, asking("a", "b")))).await;
    assert!(limiter.measured().limit < 20, "{:?}", limiter.measured());
}

/// Whoever asks could else shed the requests of everybody.
#[tokio::test(start_paused = true)]
async fn requests_that_bring_no_time_and_dependencies_that_are_down_do_not_lower_the_limit() {
    let slow = async || {
        sleep(Duration::from_millis(200)).await;
        StatusCode::OK
    };
    let relayed = async || {
        sleep(Duration::from_millis(200)).await;
        let told = [("x-retries-exhausted", "true")];
        (StatusCode::SERVICE_UNAVAILABLE, told)
    };
    let in_time = Duration::from_secs(30);
    // The first two answers are 504 by the deadline, the third is a 503 that is about somebody else.
    for (handler, header, value, own_limit, falls) in [
        (get(slow), "x-request-timeout-ms", "0", in_time, false),
        (get(slow), "x-request-timeout-ms", "100", in_time, false),
        (get(relayed), "a", "b", in_time, false),
        (get(slow), "a", "b", Duration::from_millis(100), true),
    ] {
        let limiter = limiter(20);
        let shed =
            LoadShedLayer::new(Arc::clone(&limiter)).with_fair(own_limit.min(in_time / 60) / 2);
        let router = Router::new()
            .route("/", handler)
            .layer(DeadlineLayer)
            .layer(shed)
            .layer(ContextLayer::new(Propagation::default()).with_timeout(own_limit));
        for _ in 0..3 {
            let wave = (0..12).map(|_| ask(&router, asking(header, value)));
            for answer in join_all(wave).await {
                assert!(answer.status().is_server_error(), "{}", answer.status());
            }
        }
        let limit = limiter.measured().limit;
        assert_eq!(limit < 20, falls, "{header}: {value}, {limit}");
    }
}

fn limited(limiter: Arc<dyn SharedRateLimiter>, calls: &Arc<AtomicU32>) -> Router {
    let settings = RateLimitSettings::new(2, Duration::from_secs(60));
    let layer = RateLimitLayer::new(limiter, settings, |headers, _| {
        Some(headers.get("x-api-key")?.to_str().ok()?.to_owned())
    });
    let calls = Arc::clone(calls);
    let handler = async move || calls.fetch_add(1, Ordering::SeqCst).to_string();
    Router::new().route("/", get(handler)).layer(layer)
}

#[tokio::test(start_paused = true)]
async fn each_client_has_a_rate_and_is_told_when_to_come_back() {
    let calls = Arc::default();
    let router = limited(Arc::new(KeyedRateLimiter::new(10)), &calls);
    let status = async |key| ask(&router, asking("x-api-key", key)).await.status();
    assert_eq!(status("ada").await, 200);
    assert_eq!(status("ada").await, 200);
    let refused = ask(&router, asking("x-api-key", "ada")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "30");
    assert_eq!(problem(&refused)["status"], 429);
    assert_eq!(status("bob").await, 200);
    // Who has no key is not limited.
    for _ in 0..5 {
        assert_eq!(ask(&router, asking("a", "b")).await.status(), 200);
    }
    advance(Duration::from_secs(30)).await;
    assert_eq!(status("ada").await, 200);
    assert_eq!(calls.load(Ordering::SeqCst), 9);
}

#[derive(Debug)]
struct Away;

impl SharedRateLimiter for Away {
    fn check<'a>(
        &'a self,
        _: &'a str,
        _: RateLimitSettings,
    ) -> BoxFuture<'a, Result<Verdict, Error>> {
        Box::pin(std::future::ready(Err(Error::unavailable(
            "the store is away",
        ))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_refuses_nobody() {
    let calls = Arc::default();
    let router = limited(Arc::new(Away), &calls);
    assert_eq!(ask(&router, asking("x-api-key", "ada")).await.status(), 200);
}
