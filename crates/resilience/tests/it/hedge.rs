use std::cell::{Cell, RefCell};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};
use trunkline_core::{Error, Retry};
use trunkline_resilience::breaker::State;
use trunkline_resilience::hedge::{Hedge, HedgeSettings};
use trunkline_resilience::{
    Call, EffectivePolicy, Layer, Policy, PolicyConfig, PolicyLayers, Refusal, RetryExhausted,
};

use crate::watch::Watch;

const MILLISECOND: Duration = Duration::from_millis(1);

fn fixed(delay: u32) -> HedgeSettings {
    let mut settings = HedgeSettings::default();
    settings.delay = Some(delay * MILLISECOND);
    settings
}

fn hedged() -> Call {
    Call::default().repeatable(true).hedge(true)
}

fn policy(json: serde_json::Value) -> EffectivePolicy {
    let config: PolicyConfig = serde_json::from_value(json).unwrap();
    PolicyLayers::new()
        .push(Layer::Service("services.users".into()), config, |_| None)
        .resolve()
        .unwrap()
        .policy
}

fn down() -> Error {
    Error::unavailable("down").with_retry(Retry::Safe)
}

/// Counts what is under way.
struct Under<'a>(&'a Cell<usize>);

impl<'a> Under<'a> {
    fn way(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_overtaken_and_the_loser_is_dropped() {
    let (running, began) = (Cell::new(0), Instant::now());
    let answer = Hedge::new(fixed(50))
        .run(hedged(), |number| {
            let running = &running;
            async move {
                let _under = Under::way(running);
                sleep(if number == 0 { 1000 } else { 10 } * MILLISECOND).await;
                Ok::<_, Error>(number)
            }
        })
        .await;
    assert_eq!(answer.unwrap(), 1);
    assert_eq!(began.elapsed(), 60 * MILLISECOND);
    assert_eq!(running.get(), 0, "the loser is cancelled");
}

#[tokio::test(start_paused = true)]
async fn the_first_request_may_still_win_and_then_the_hedge_is_dropped() {
    let (running, most) = (Cell::new(0), Cell::new(0));
    let answer = Hedge::new(fixed(50))
        .run(hedged(), |number| {
            let (running, most) = (&running, &most);
            async move {
                let _under = Under::way(running);
                most.set(running.get().max(most.get()));
                sleep(70 * MILLISECOND).await;
                Ok::<_, Error>(number)
            }
        })
        .await;
    assert_eq!((answer.unwrap(), most.get(), running.get()), (0, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_waits_for_a_better_one_that_is_under_way() {
    for (first, hedge) in [(60, 100), (100, 60)] {
        let answer = Hedge::new(fixed(50))
            .run(hedged(), |number| async move {
                if number == 0 {
                    sleep(first * MILLISECOND).await;
                    return Err(down());
                }
                sleep((hedge - 50) * MILLISECOND).await;
                Ok(number)
            })
            .await;
        assert_eq!(answer.unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_wait_is_over_is_no_reason_to_hedge() {
    let (asked, began) = (Cell::new(0), Instant::now());
    let failed = Hedge::new(fixed(50))
        .run(hedged(), |_| {
            asked.set(asked.get() + 1);
            async {
                sleep(10 * MILLISECOND).await;
                Err::<(), _>(down())
            }
        })
        .await;
    assert!(failed.is_err());
    assert_eq!((asked.get(), began.elapsed()), (1, 10 * MILLISECOND));
}

#[tokio::test(start_paused = true)]
async fn only_calls_that_say_so_are_hedged() {
    let policy = Policy::new(
        "users",
        policy(serde_json::json!({ "hedge": { "delay": "50ms" } })),
    );
    for (repeatable, hedge, expected) in [
        (true, true, 2),
        (true, false, 1),
        (false, true, 1),
        (false, false, 1),
    ] {
        let asked = Cell::new(0);
        let call = Call::default().repeatable(repeatable).hedge(hedge);
        let answer = policy
            .run(call, |_| {
                asked.set(asked.get() + 1);
                async {
                    sleep(100 * MILLISECOND).await;
                    Ok::<_, Error>(())
                }
            })
            .await;
        answer.unwrap();
        assert_eq!(asked.get(), expected, "{repeatable} {hedge}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_measured_and_the_beaten_count_as_slow() {
    let hedge = Hedge::new(HedgeSettings::default()).without_budget();
    assert_eq!(hedge.delay(), None);
    // One in twenty hangs: the 95th percentile is that of the others, however many are beaten by their hedge.
    let hedges = Cell::new(0);
    for number in 0..400_u32 {
        let answer = hedge.run(hedged(), |hedge| {
            hedges.set(hedges.get() + hedge);
            async move {
                let slow = number % 25 == 24 && hedge == 0;
                sleep(if slow { 5000 } else { 20 } * MILLISECOND).await;
                Ok::<_, Error>(())
            }
        });
        answer.await.unwrap();
    }
    let delay = hedge.delay().unwrap();
    assert!((20..=23).contains(&delay.as_millis()), "{delay:?}");
    assert_eq!(hedges.get(), 16, "all that hung and no other");
    let slowest = hedge
        .latencies()
        .percentile(97.5, Instant::now())
        .unwrap()
        .0;
    assert!(slowest >= 2 * delay, "{slowest:?}");
}

#[tokio::test(start_paused = true)]
async fn without_budget_left_nothing_more_is_sent_and_what_runs_goes_on() {
    let watch = Watch::new();
    let json = serde_json::json!({
        "hedge": { "delay": "50ms" }, "retry": { "budget": { "min_per_second": 0, "percent": 20 } }
    });
    let registry = trunkline_resilience::PolicyRegistry::builder()
        .observer(watch.clone())
        .build();
    let policy = registry.policy(&"users".into(), |_| Arc::new(policy(json.clone())));
    let sent = Cell::new(0);
    let call = || {
        policy.run(hedged(), |attempt| {
            sent.set(sent.get() + 1);
            async move {
                sleep(200 * MILLISECOND).await;
                Ok::<_, Error>(attempt.hedge)
            }
        })
    };
    let all: Vec<_> = (0..50).map(|_| call()).collect();
    let answers: Vec<_> = all
        .into_iter()
        .collect::<FuturesUnordered<_>>()
        .collect()
        .await;
    assert_eq!(answers.len(), 50);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(0))));
    assert_eq!(sent.get(), 60, "a fifth more than the calls");
    let budget = ("users".to_owned(), Refusal::RetryBudget);
    assert_eq!(watch.refusals(), vec![budget; 40]);
    assert_eq!(watch.hedges(), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn retries_and_hedges_pay_from_the_same_budget() {
    let json = serde_json::json!({
        "hedge": { "delay": "50ms" },
        "retry": { "delay": "1ms", "jitter": false, "budget": { "min_per_second": 0, "percent": 100 } }
    });
    let policy = Policy::new("users", policy(json));
    let sent = RefCell::new(Vec::new());
    // One call pays for one more request: the hedge takes it, and the retry has none left.
    let failed = policy
        .run(hedged(), |attempt| {
            sent.borrow_mut().push((attempt.number, attempt.hedge));
            async {
                sleep(100 * MILLISECOND).await;
                Err::<(), _>(down())
            }
        })
        .await
        .unwrap_err();
    assert_eq!(*sent.borrow(), [(1, 0), (1, 1)]);
    let exhausted = failed.find::<RetryExhausted>().unwrap();
    assert_eq!(
        exhausted.stopped,
        trunkline_resilience::retry::Stopped::Budget
    );
    assert_eq!(exhausted.earlier.len(), 1, "the first of the two is held");
    assert!(
        failed
            .report()
            .to_string()
            .contains("while another was under way"),
        "{}",
        failed.report()
    );
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_is_refused_here_harms_nobody_and_costs_nothing() {
    let json = serde_json::json!({
        "hedge": { "delay": "50ms" },
        "bulkhead": { "max_concurrent": 1, "max_queue": 0 },
    });
    let policy = Policy::new("users", policy(json));
    let answer = policy
        .run(hedged(), |attempt| async move {
            sleep(200 * MILLISECOND).await;
            Ok::<_, Error>(attempt.hedge)
        })
        .await;
    assert_eq!(answer.unwrap(), 0);
    assert_eq!(policy.bulkhead().unwrap().occupancy().running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_overtaken_gives_its_place_back() {
    let json = serde_json::json!({
        "hedge": { "delay": "50ms" },
        "retry": { "enabled": false },
        "circuit_breaker": {
            "failure_threshold": 1, "recovery_timeout": "1s", "half_open_max_calls": 2, "success_threshold": 1
        },
    });
    let policy = Policy::new("users", policy(json));
    let failed = policy
        .run(hedged(), |_| async { Err::<(), _>(down()) })
        .await;
    assert!(failed.is_err());
    sleep(Duration::from_secs(1)).await;
    let answer = policy
        .run(hedged(), |attempt| async move {
            sleep(if attempt.hedge == 0 { 5000 } else { 10 } * MILLISECOND).await;
            Ok::<_, Error>(())
        })
        .await;
    answer.unwrap();
    assert_eq!(policy.breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn as_a_tower_layer() {
    use tower::{ServiceBuilder, ServiceExt, service_fn};
    use trunkline_resilience::hedge::HedgeLayer;

    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let inner = service_fn(move |request: &'static str| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(if number == 0 { 1000 } else { 10 } * MILLISECOND).await;
            Ok::<_, Error>((request, number))
        }
    });
    let layer = HedgeLayer::new(Arc::new(Hedge::new(fixed(50)))).describe(|_: &&str| hedged());
    let service = ServiceBuilder::new().layer(layer).service(inner);
    assert_eq!(service.oneshot("ada").await.unwrap(), ("ada", 1));
    assert_eq!(sent.load(Ordering::Relaxed), 2);
}

/// What one request of a random run does.
#[derive(Clone, Copy, Debug)]
struct Step {
    takes: u32,
    ends: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u32..300, 0_u8..4).prop_map(|(takes, ends)| Step { takes, ends });
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Answers, failures, panics and cancelled calls in any order: every place and every reservation comes back.
    #[test]
    fn everything_taken_comes_back(steps in steps(), cancel_after in proptest::collection::vec(0_u32..400, 12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let json = serde_json::json!({
                "hedge": { "delay": "20ms", "max_hedges": 3 },
                "retry": { "delay": "5ms", "budget": { "min_per_second": 2, "percent": 50 } },
                "circuit_breaker": { "failure_threshold": 3, "recovery_timeout": "50ms", "half_open_max_calls": 2 },
                "bulkhead": { "max_concurrent": 4, "max_queue": 2, "max_wait": "30ms" },
            });
            let policy = Policy::new("users", policy(json));
            let running = Cell::new(0);
            let next = Cell::new(0);
            let calls: FuturesUnordered<_> = cancel_after.iter().map(|cancel| {
                let call = policy.run(hedged(), |_| {
                    let step = steps[next.replace(next.get() + 1) % steps.len()];
                    let running = &running;
                    async move {
                        let _under = Under::way(running);
                        sleep(step.takes * MILLISECOND).await;
                        match step.ends {
                            0 => Err(down()),
                            1 => panic!("a request that panics"),
                            _ => Ok(()),
                        }
                    }
                });
                let caught = std::panic::AssertUnwindSafe(call).catch_unwind();
                tokio::time::timeout(*cancel * MILLISECOND, caught)
            }).collect();
            quietly(calls.collect::<Vec<_>>()).await;
            let occupancy = policy.bulkhead().unwrap().occupancy();
            assert_eq!((running.get(), occupancy.running, occupancy.waiting), (0, 0, 0));
            // Whatever happened, the circuit lets calls through in the end.
            sleep(Duration::from_secs(30)).await;
            for _ in 0..4 {
                policy.run(hedged(), |_| async { Ok::<_, Error>(()) }).await.unwrap();
            }
            assert_eq!(policy.breaker().unwrap().state(), State::Closed);
        });
    }
}

/// Panics that are part of a test are not shown.
async fn quietly<T>(future: impl Future<Output = T>) -> T {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let expected = info
                .payload_as_str()
                .is_some_and(|text| text == "a request that panics");
            if !expected {
                before(info);
            }
        }));
    });
    future.await
}

#[tokio::test(start_paused = true)]
async fn what_a_cancelled_hedge_has_reserved_is_returned() {
    let watch = Watch::new();
    let (registry, json) = (
        trunkline_resilience::PolicyRegistry::builder()
            .observer(watch.clone())
            .build(),
        serde_json::json!({
            "hedge": { "delay": "10ms" },
            "bulkhead": { "max_concurrent": 1, "max_queue": 5, "max_wait": "10s" },
            "retry": { "budget": { "min_per_second": 0, "percent": 20 } },
        }),
    );
    let policy = registry.policy(&"users".into(), |_| Arc::new(policy(json.clone())));
    for _ in 0..5 {
        let quick = policy.run(hedged(), |_| async { Ok::<_, Error>(()) });
        quick.await.unwrap();
    }
    // Five calls pay for one hedge. It waits in the queue of the bulkhead when the call is cancelled, so it was not made.
    for _ in 0..4 {
        let slow = policy.run(hedged(), |_| async {
            sleep(Duration::from_secs(60)).await;
            Ok::<_, Error>(())
        });
        let cancelled = tokio::time::timeout(100 * MILLISECOND, slow).await;
        assert!(cancelled.is_err());
        assert_eq!(policy.bulkhead().unwrap().occupancy().waiting, 0);
    }
    assert_eq!(watch.refusals(), []);
    assert_eq!(watch.hedges(), (4, 0));
}
