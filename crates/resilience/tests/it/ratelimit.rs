use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::{Instant, advance};
use trunkline_core::{Error, ErrorKind, Retry};
use trunkline_resilience::ratelimit::{
    KeyedRateLimiter, RateLimitSettings, RateLimiter, SharedRateLimiter, Verdict,
};
use trunkline_resilience::{RateLimited, retry_after};

const SECOND: Duration = Duration::from_secs(1);

fn settings(limit: u32, burst: u32, max_wait: Duration) -> RateLimitSettings {
    let mut settings = RateLimitSettings::per_second(limit);
    settings.burst = burst;
    settings.max_wait = max_wait;
    settings
}

#[tokio::test(start_paused = true)]
async fn a_burst_passes_then_the_rate_and_a_refusal_says_when_to_come_back() {
    let limiter = RateLimiter::new(settings(10, 2, Duration::ZERO));
    assert_eq!(limiter.available(), 2);
    limiter.try_acquire().unwrap();
    limiter.acquire(None).await.unwrap();
    let refused = limiter.acquire(None).await.unwrap_err();
    assert_eq!(refused.retry_after, SECOND / 10);
    advance(refused.retry_after - Duration::from_nanos(1)).await;
    assert!(limiter.try_acquire().is_err());
    advance(Duration::from_nanos(1)).await;
    assert!(limiter.try_acquire().is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_served_in_order_at_the_rate() {
    let limiter = Arc::new(RateLimiter::new(settings(10, 1, SECOND)));
    let began = Instant::now();
    let waits = (0..5).map(|_| async {
        limiter.acquire(None).await.unwrap();
        began.elapsed().as_millis()
    });
    assert_eq!(join_all(waits).await, [0, 100, 200, 300, 400]);
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_or_past_the_deadline_is_refused_at_once() {
    let limiter = RateLimiter::new(settings(1, 1, 2 * SECOND));
    limiter.try_acquire().unwrap();
    let began = Instant::now();
    let soon = began + SECOND / 2;
    assert!(limiter.acquire(Some(soon)).await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
    // The refused one used nothing up: the next turn is still in a second.
    limiter.acquire(Some(began + SECOND)).await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
    let waits = [
        limiter.acquire(None),
        limiter.acquire(None),
        limiter.acquire(None),
    ];
    let ends: Vec<bool> = join_all(waits).await.iter().map(Result::is_ok).collect();
    assert_eq!(ends, [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_gives_the_turn_back() {
    let limiter = RateLimiter::new(settings(1, 1, 10 * SECOND));
    limiter.try_acquire().unwrap();
    for _ in 0..100 {
        let mut waits = Box::pin(limiter.acquire(None));
        assert!(waits.as_mut().now_or_never().is_none());
    }
    let began = Instant::now();
    limiter.acquire(None).await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn new_numbers_hold_at_once_and_what_was_counted_stays() {
    let limiter = RateLimiter::new(settings(1, 1, Duration::ZERO));
    limiter.try_acquire().unwrap();
    limiter.reconfigure(settings(100, 1, Duration::ZERO));
    // The call before counts, and for as much as a call does now.
    assert_eq!(limiter.try_acquire().unwrap_err().retry_after, SECOND / 100);
    advance(SECOND / 100).await;
    limiter.try_acquire().unwrap();
    // A slower rate does not make calls heavier that were made under the faster one.
    limiter.reconfigure(settings(1, 1, Duration::ZERO));
    let early = limiter.try_acquire().unwrap_err().retry_after;
    assert_eq!(early, SECOND / 100);
    advance(early).await;
    limiter.try_acquire().unwrap();
    assert_eq!(limiter.try_acquire().unwrap_err().retry_after, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_becomes_a_core_error_that_says_when_and_that_nothing_was_sent() {
    let limiter = RateLimiter::new(settings(2, 1, Duration::ZERO));
    limiter.try_acquire().unwrap();
    let error = Error::from(limiter.try_acquire().unwrap_err());
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Rejected, Retry::Safe)
    );
    assert!(error.find::<RateLimited>().is_some());
    assert_eq!(retry_after(&error), Some(SECOND / 2));
    let text = "rate limit of 2 calls in 1s is used up, next try in 500ms";
    assert_eq!(error.to_string(), text);
}

/// What every shared limiter owes.
async fn counts_by_key(limiter: &dyn SharedRateLimiter) {
    let settings = settings(1, 2, Duration::ZERO);
    let check = async |key| limiter.check(key, settings).await.unwrap();
    assert_eq!(check("ada").await, Verdict::Granted { remaining: 1 });
    assert_eq!(check("ada").await, Verdict::Granted { remaining: 0 });
    let Verdict::Refused { retry_after } = check("ada").await else {
        panic!("the third of two is refused");
    };
    assert_eq!(check("bob").await, Verdict::Granted { remaining: 1 });
    advance(retry_after).await;
    assert_eq!(check("ada").await, Verdict::Granted { remaining: 0 });
}

#[tokio::test(start_paused = true)]
async fn keys_are_counted_each_by_itself() {
    counts_by_key(&KeyedRateLimiter::new(10)).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_bounded_and_forgetting_one_gives_nothing_away() {
    let limiter = KeyedRateLimiter::new(3);
    let settings = settings(1, 1, Duration::ZERO);
    let granted = |key: &str| matches!(limiter.judge(key, settings), Verdict::Granted { .. });
    assert!(["a", "b", "c"].iter().all(|key| granted(key)));
    // The others share one count while all are in use.
    assert!(granted("d"));
    assert!(!granted("e"));
    assert_eq!(limiter.len(), 3);
    advance(SECOND / 2).await;
    assert!(
        !granted("f"),
        "nobody was forgotten who had used something up"
    );
    assert!(!granted("a"));
    advance(SECOND).await;
    assert!(granted("f") && granted("a"));
    assert_eq!(limiter.len(), 2);
}
