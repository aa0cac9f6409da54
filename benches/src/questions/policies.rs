//! What each policy costs a call that it lets pass, beside the peers that have the same.
//!
//! Limits are so wide that nothing is ever refused. As tower layers all peers are used in one way: a clone of the service
//! for each thread, `ready` and `call` for each request. Where a peer can be used without tower it is, beside ours.
//!
//! The target is to be faster than the crates that do the same. governor and tower's own layers do less (no wait against a
//! deadline, nothing that a reload changes, no budget) and are there to show what that is worth.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use governor::{Quota, RateLimiter as Governor};
use tower::limit::{ConcurrencyLimitLayer, RateLimit};
use tower::timeout::Timeout as TowerTimeout;
use tower::{Layer as _, Service, ServiceExt as _};
use tower_resilience_adaptive::{AdaptiveLimiterLayer, Aimd, Gradient2};
use trunkline_core::Error;
use trunkline_resilience::Priority;
use trunkline_resilience::bulkhead::{Bulkhead, BulkheadLayer, BulkheadSettings};
use trunkline_resilience::concurrency::{
    ConcurrencyAlgorithm, ConcurrencyLayer, ConcurrencyLimiter, ConcurrencySettings,
};
use trunkline_resilience::ratelimit::{RateLimitLayer, RateLimitSettings, RateLimiter};
use trunkline_resilience::retry::{RetryLayer, RetrySettings};
use trunkline_resilience::timeout::TimeoutLayer;

use super::breaker::{nanoseconds_each, on};
use crate::entry::{Entry, Options};
use crate::race::{Better, Race};
use crate::report::Report;

pub(super) static ENTRY: Entry = Entry {
    name: "policies",
    about: "what does each policy cost a call that it lets pass, beside tower-resilience, governor and tower's own?",
    run,
};

const OURS: &str = "trunkline";
const TOWER: &str = "tower";
const TOWER_RESILIENCE: &str = "tower-resilience";
const GOVERNOR: &str = "governor";
/// More than any machine calls in a second.
const PLENTY: u32 = 1_000_000_000;
const AT_ONCE: u32 = 1_000;

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let calls = options.choose(1_000_000, 100_000);
    for threads in [1, 2] {
        for (race, peers) in races(threads, calls) {
            let results = race.run(options.rounds())?;
            results.put_into(&mut report);
            for peer in peers {
                results.target(&mut report, peer, 1.0)?;
            }
        }
    }
    report.note("tower's rate limit cannot be shared by threads, and its timeout sets up a timer for every call");
    report.note(format!(
        "reading the clock takes {:.0} ns here: ours is the runtime's, which tests can pause; governor reads the processor's counter",
        nanoseconds_each(1, calls, |_, calls| {
            for _ in 0..calls {
                black_box(tokio::time::Instant::now());
            }
        })?
    ));
    report.note("the circuit breaker has a benchmark of its own: `bench breaker`");
    Ok(report)
}

fn races<'a>(threads: usize, calls: u64) -> Vec<(Race<'a>, Vec<&'static str>)> {
    vec![
        rate_limit_alone(threads, calls),
        rate_limit(threads, calls),
        bulkhead(threads, calls),
        concurrency(threads, calls),
        timeout(threads, calls),
        retry(threads, calls),
    ]
}

fn race<'a>(what: &str, threads: usize) -> Race<'a> {
    Race::new(format!("{what}, {}", on(threads)), "ns", Better::Lower)
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The call: ready at once, so that only the policy is measured.
async fn answer(number: u64) -> Result<u64, BoxError> {
    Ok(black_box(number))
}

/// Nanoseconds a call takes through a service, a clone of it on each thread.
fn through<S>(service: &S, threads: usize, calls: u64) -> Result<f64>
where
    S: Service<u64, Response = u64> + Clone + Sync,
{
    nanoseconds_each(threads, calls, |runtime, calls| {
        let mut service = service.clone();
        runtime.block_on(async {
            for number in 0..calls {
                let Ok(ready) = service.ready().await else {
                    continue;
                };
                black_box(ready.call(number).await.is_ok());
            }
        });
    })
}

fn bare<'a>(race: Race<'a>, threads: usize, calls: u64) -> Race<'a> {
    race.peer("no policy", move || {
        through(&tower::service_fn(answer), threads, calls)
    })
}

fn rate_limit_alone<'a>(threads: usize, calls: u64) -> (Race<'a>, Vec<&'static str>) {
    let race = race("rate limit, without tower", threads)
        .peer(OURS, move || {
            let limiter = RateLimiter::new(RateLimitSettings::per_second(PLENTY));
            nanoseconds_each(threads, calls, |_, calls| {
                for _ in 0..calls {
                    black_box(limiter.try_acquire().is_ok());
                }
            })
        })
        .peer(GOVERNOR, move || {
            let plenty = NonZeroU32::new(PLENTY).unwrap_or(NonZeroU32::MIN);
            let limiter = Governor::direct(Quota::per_second(plenty));
            nanoseconds_each(threads, calls, |_, calls| {
                for _ in 0..calls {
                    black_box(limiter.check().is_ok());
                }
            })
        });
    (race, Vec::new())
}

fn rate_limit<'a>(threads: usize, calls: u64) -> (Race<'a>, Vec<&'static str>) {
    let mut race = race("rate limit", threads)
        .peer(OURS, move || {
            let limiter = RateLimiter::new(RateLimitSettings::per_second(PLENTY));
            let layer = RateLimitLayer::new(Arc::new(limiter));
            through(&layer.layer(tower::service_fn(answer)), threads, calls)
        })
        .peer(TOWER_RESILIENCE, move || {
            let layer = tower_resilience_ratelimiter::RateLimiterLayer::burst(PLENTY as usize, 0)
                .build()?;
            through(&layer.layer(tower::service_fn(answer)), threads, calls)
        });
    if threads == 1 {
        race = race.peer(TOWER, move || {
            let rate = tower::limit::rate::Rate::new(u64::MAX, Duration::from_secs(1));
            nanoseconds_each(1, calls, |runtime, calls| {
                runtime.block_on(async {
                    let mut service = RateLimit::new(tower::service_fn(answer), rate);
                    for number in 0..calls {
                        let Ok(ready) = service.ready().await else {
                            continue;
                        };
                        black_box(ready.call(number).await.is_ok());
                    }
                });
            })
        });
    }
    (bare(race, threads, calls), vec![TOWER_RESILIENCE])
}

fn bulkhead<'a>(threads: usize, calls: u64) -> (Race<'a>, Vec<&'static str>) {
    let race = race("bulkhead", threads)
        .peer(OURS, move || {
            let mut settings = BulkheadSettings::default();
            settings.max_concurrent = AT_ONCE;
            let layer = BulkheadLayer::new(Arc::new(Bulkhead::new(settings)));
            through(&layer.layer(tower::service_fn(answer)), threads, calls)
        })
        .peer(TOWER_RESILIENCE, move || {
            let layer = tower_resilience_bulkhead::BulkheadLayer::builder()
                .max_concurrent_calls(AT_ONCE as usize)
                .build()?;
            through(&layer.layer(tower::service_fn(answer)), threads, calls)
        })
        .peer(TOWER, move || {
            let layer = ConcurrencyLimitLayer::new(AT_ONCE as usize);
            through(&layer.layer(tower::service_fn(answer)), threads, calls)
        });
    (bare(race, threads, calls), vec![TOWER_RESILIENCE])
}

const OUR_AIMD: &str = "trunkline, AIMD";
const ITS_AIMD: &str = "tower-resilience, AIMD";

fn concurrency<'a>(threads: usize, calls: u64) -> (Race<'a>, Vec<&'static str>) {
    let ours = move |algorithm| {
        let mut settings = ConcurrencySettings::default();
        settings.algorithm = algorithm;
        settings.initial = AT_ONCE;
        let limiter = Arc::new(ConcurrencyLimiter::new("bench", settings));
        let layer = ConcurrencyLayer::new(limiter).prioritize(|_: &u64| Priority::Normal);
        through(&layer.layer(tower::service_fn(answer)), threads, calls)
    };
    let race = race("adaptive concurrency", threads)
        .peer(OURS, move || ours(ConcurrencyAlgorithm::Gradient))
        .peer(OUR_AIMD, move || ours(ConcurrencyAlgorithm::Aimd))
        .peer(TOWER_RESILIENCE, move || {
            let algorithm = Gradient2::builder()
                .initial_limit(AT_ONCE as usize)
                .max_limit(AT_ONCE as usize)
                .build()?;
            let layer = AdaptiveLimiterLayer::new(algorithm);
            through(&layer.layer(tower::service_fn(answer)), threads, calls)
        })
        .peer(ITS_AIMD, move || {
            let algorithm = Aimd::builder()
                .initial_limit(AT_ONCE as usize)
                .max_limit(AT_ONCE as usize)
                .build()?;
            let layer = AdaptiveLimiterLayer::new(algorithm);
            through(&layer.layer(tower::service_fn(answer)), threads, calls)
        });
    (bare(race, threads, calls), vec![TOWER_RESILIENCE, ITS_AIMD])
}

fn timeout<'a>(threads: usize, calls: u64) -> (Race<'a>, Vec<&'static str>) {
    const LIMIT: Duration = Duration::from_secs(30);
    let race = race("timeout", threads)
        .peer(OURS, move || {
            let layer = TimeoutLayer::new(LIMIT);
            through(&layer.layer(tower::service_fn(answer)), threads, calls)
        })
        .peer(TOWER_RESILIENCE, move || {
            let layer = tower_resilience_timelimiter::TimeLimiterLayer::builder()
                .timeout_duration(LIMIT)
                .build();
            through(&layer.layer(tower::service_fn(answer)), threads, calls)
        })
        .peer(TOWER, move || {
            let service = TowerTimeout::new(tower::service_fn(answer), LIMIT);
            through(&service, threads, calls)
        });
    (bare(race, threads, calls), vec![TOWER_RESILIENCE])
}

async fn answer_or_error(number: u64) -> Result<u64, Error> {
    Ok(black_box(number))
}

/// Repeats nothing, as nothing fails: what a retry costs while all is well.
#[derive(Clone)]
struct ThreeTimes(u32);

impl tower::retry::Policy<u64, u64, Error> for ThreeTimes {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, Error>) -> Option<Self::Future> {
        let again = result.is_err() && self.0 > 1;
        self.0 -= u32::from(again);
        again.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}

fn retry<'a>(threads: usize, calls: u64) -> (Race<'a>, Vec<&'static str>) {
    let race = race("retry, nothing to repeat", threads)
        .peer(OURS, move || {
            let layer = RetryLayer::new(RetrySettings::default());
            through(
                &layer.layer(tower::service_fn(answer_or_error)),
                threads,
                calls,
            )
        })
        .peer(TOWER_RESILIENCE, move || {
            let layer = tower_resilience_retry::RetryLayer::<u64, u64, Error>::builder()
                .max_attempts(3)
                .build();
            through(
                &layer.layer(tower::service_fn(answer_or_error)),
                threads,
                calls,
            )
        })
        .peer(TOWER, move || {
            let layer = tower::retry::RetryLayer::new(ThreeTimes(3));
            through(
                &layer.layer(tower::service_fn(answer_or_error)),
                threads,
                calls,
            )
        });
    (bare(race, threads, calls), vec![TOWER_RESILIENCE])
}
