use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::time::{Instant, sleep};
use trunkline_core::{Error, ErrorKind, Retry, task};
use trunkline_resilience::BulkheadFull;
use trunkline_resilience::bulkhead::{Bulkhead, BulkheadSettings, Full};

const SECOND: Duration = Duration::from_secs(1);

fn settings(max_concurrent: u32, max_queue: u32) -> BulkheadSettings {
    let mut settings = BulkheadSettings::default();
    settings.max_concurrent = max_concurrent;
    settings.max_queue = max_queue;
    settings
}

#[tokio::test(start_paused = true)]
async fn bounds_what_runs_and_what_waits() {
    let bulkhead = Bulkhead::new(settings(2, 1));
    let first = bulkhead.acquire(None).await.unwrap();
    let _second = bulkhead.acquire(None).await.unwrap();
    let mut third = Box::pin(bulkhead.acquire(None));
    assert!(third.as_mut().now_or_never().is_none());
    let refused = bulkhead.acquire(None).await.unwrap_err();
    assert_eq!(
        (refused.full, refused.waited),
        (Full::Queue, Duration::ZERO)
    );
    assert_eq!(bulkhead.occupancy().waiting, 1);
    drop(first);
    assert!(third.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_after_its_time_and_never_later_than_the_deadline() {
    let bulkhead = Bulkhead::new(settings(1, 10));
    let _place = bulkhead.acquire(None).await.unwrap();
    let began = Instant::now();
    let refused = bulkhead.acquire(None).await.unwrap_err();
    assert_eq!((refused.full, refused.waited), (Full::Wait, SECOND));
    assert_eq!(began.elapsed(), SECOND);

    let began = Instant::now();
    let deadline = Some(began + SECOND / 4);
    assert!(bulkhead.acquire(deadline).await.is_err());
    assert_eq!(began.elapsed(), SECOND / 4);
    assert_eq!(bulkhead.occupancy().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn places_are_given_in_the_order_of_asking() {
    let bulkhead = Arc::new(Bulkhead::new(settings(1, 10)));
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let held = bulkhead.acquire(None).await.unwrap();
    let mut waiting = Vec::new();
    for number in 0..5 {
        let (own, order) = (Arc::clone(&bulkhead), Arc::clone(&order));
        waiting.push(task::spawn("waits", async move {
            let _place = own.acquire_owned(None).await.unwrap();
            order.lock().unwrap().push(number);
        }));
        tokio::task::yield_now().await;
    }
    drop(held);
    join_all(waiting).await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_leaves_the_queue_and_loses_no_place() {
    let bulkhead = Bulkhead::new(settings(1, 1));
    for _ in 0..3 {
        let held = bulkhead.acquire(None).await.unwrap();
        let mut waits = Box::pin(bulkhead.acquire(None));
        assert!(waits.as_mut().now_or_never().is_none());
        // The place is won by the one that waits and given back when it is dropped unseen.
        drop(held);
        drop(waits);
        assert_eq!(
            (bulkhead.occupancy().running, bulkhead.occupancy().waiting),
            (0, 0)
        );
    }
    assert!(bulkhead.try_acquire().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_smaller_limit_cuts_nothing_off_and_then_holds() {
    let bulkhead = Bulkhead::new(settings(4, 0));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(bulkhead.acquire(None).await.unwrap());
    }
    bulkhead.reconfigure(settings(2, 0));
    assert_eq!(bulkhead.occupancy().running, 4);
    held.truncate(2);
    assert!(bulkhead.try_acquire().is_none(), "two of two run");
    held.truncate(1);
    let second = bulkhead.try_acquire();
    assert!(second.is_some());
    bulkhead.reconfigure(settings(3, 0));
    let third = bulkhead.try_acquire();
    assert!(third.is_some());
    assert!(bulkhead.try_acquire().is_none());
    drop((held, second, third));
    assert_eq!(bulkhead.occupancy().running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_becomes_a_core_error_that_says_nothing_was_sent() {
    let bulkhead = Bulkhead::new(settings(1, 0));
    let _place = bulkhead.try_acquire().unwrap();
    let error = Error::from(bulkhead.acquire(None).await.unwrap_err());
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Rejected, Retry::Safe)
    );
    assert!(error.find::<BulkheadFull>().is_some());
    assert_eq!(
        error.to_string(),
        "bulkhead is full: 1 calls run and 0 wait"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_gives_the_place_back() {
    let bulkhead = Arc::new(Bulkhead::new(settings(1, 0)));
    let own = Arc::clone(&bulkhead);
    let panicked = task::spawn("panics", async move {
        let _place = own.acquire_owned(None).await.unwrap();
        sleep(SECOND).await;
        panic!("on purpose");
    });
    assert!(panicked.await.is_err());
    assert!(bulkhead.try_acquire().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Under any mix of taking, waiting, giving up, giving back and new limits, places are neither lost nor made.
    #[test]
    fn places_are_conserved(steps in proptest::collection::vec((0u8..6, 1u32..6), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let bulkhead = Bulkhead::new(settings(3, 4));
            let mut limit = 3;
            let mut held = Vec::new();
            let mut waiting = Vec::new();
            for (step, number) in steps {
                match step {
                    0 | 1 => held.extend(bulkhead.try_acquire()),
                    2 => {
                        let mut wait = Box::pin(bulkhead.acquire(None));
                        match wait.as_mut().now_or_never() {
                            Some(Ok(place)) => held.push(place),
                            Some(Err(_)) => {}
                            None => waiting.push(wait),
                        }
                    }
                    3 => drop(waiting.pop()),
                    4 => drop(held.pop()),
                    _ => {
                        bulkhead.reconfigure(settings(number, 4));
                        limit = number as usize;
                    }
                }
                let mut still = Vec::new();
                for mut wait in waiting {
                    match wait.as_mut().now_or_never() {
                        Some(Ok(place)) => held.push(place),
                        Some(Err(_)) => {}
                        None => still.push(wait),
                    }
                }
                waiting = still;
                assert_eq!(bulkhead.occupancy().running, held.len());
            }
            drop((waiting, held));
            let all: Vec<_> = std::iter::from_fn(|| bulkhead.try_acquire()).take(100).collect();
            assert_eq!(all.len(), limit);
        });
    }
}
