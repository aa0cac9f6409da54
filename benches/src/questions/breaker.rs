//! What a closed circuit breaker costs a call that succeeds.
//!
//! Each peer is used as its documentation shows and set to what ours does by default: five failures in a row open it.
//! Threads share one breaker in the way the peer shares it. Recloser knows windows only; it takes part in both races.

use std::hint::black_box;
use std::io;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{Context as _, Result};
use failsafe::futures::CircuitBreaker as _;
use tokio::runtime::Runtime;
use tower::{Service as _, ServiceExt as _};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use trunkline_resilience::breaker::{Breaker, BreakerSettings, SlowCallSettings, WindowKind};

use crate::entry::{Entry, Options};
use crate::race::{Better, Race, Results};
use crate::report::{Report, Spread};
use crate::stopwatch::Stopwatch;

pub(super) static ENTRY: Entry = Entry {
    name: "breaker",
    about: "what does a closed circuit breaker cost a call that succeeds, on one and two threads?",
    run,
};

/// What window and slow-call modes may cost, in looks at the clock: 100 ns where one takes 21 ns, as on the machine that
/// the performance budget was written on.
const LOOKS_AT_THE_CLOCK: f64 = 100.0 / 21.0;

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let calls = options.choose(2_000_000, 200_000);
    for threads in [1, 2] {
        let results = in_a_row(threads, calls).run(options.rounds())?;
        results.put_into(&mut report);
        for peer in ["recloser", "failsafe", "tower-resilience"] {
            results.target(&mut report, peer, 1.0)?;
        }
    }
    for threads in [1, 2] {
        let results = windows(threads, calls).run(options.rounds())?;
        results.put_into(&mut report);
        for peer in ["recloser", "tower-resilience"] {
            results.target(&mut report, peer, 1.0)?;
        }
        for mode in [COUNT, TIME, SLOW] {
            within_budget(&mut report, &results, mode, threads)?;
        }
    }
    let results = without_futures(calls).run(options.rounds())?;
    results.put_into(&mut report);
    for peer in ["recloser", "failsafe"] {
        results.target(&mut report, peer, 1.0)?;
    }
    report.note("a time window looks at the clock once a call, slow calls twice");
    Ok(report)
}

const COUNT: &str = "trunkline, count window";
const TIME: &str = "trunkline, time window";
const SLOW: &str = "trunkline, time window and slow calls";
const CLOCK: &str = "one look at the clock";

fn within_budget(report: &mut Report, results: &Results, mode: &str, threads: usize) -> Result<()> {
    let cost = results.spread(mode).context("the mode was measured")?;
    let clock = results.spread(CLOCK).context("the clock was measured")?;
    let share = Spread {
        min: LOOKS_AT_THE_CLOCK * clock.min / cost.max,
        median: LOOKS_AT_THE_CLOCK * clock.median / cost.median,
        max: LOOKS_AT_THE_CLOCK * clock.max / cost.min,
    };
    let what = format!(
        "{mode}, {}: within 100 ns where the clock takes 21 ns",
        on(threads)
    );
    report.target(what, share, 1.0);
    Ok(())
}

/// The call: ready at once, so that only the breaker is measured.
async fn answer(number: u64) -> Result<u64, io::Error> {
    Ok(black_box(number))
}

fn in_a_row<'a>(threads: usize, calls: u64) -> Race<'a> {
    let title = format!("failures in a row, {}", on(threads));
    Race::new(title, "ns", Better::Lower)
        .peer("trunkline", move || {
            ours(BreakerSettings::default(), threads, calls)
        })
        .peer("recloser", move || recloser(threads, calls))
        .peer("failsafe", move || {
            let backoff = failsafe::backoff::constant(Duration::from_secs(60));
            let policy = failsafe::failure_policy::consecutive_failures(5, backoff);
            let breaker = failsafe::Config::new().failure_policy(policy).build();
            nanoseconds_each(threads, calls, |runtime, calls| {
                let breaker = breaker.clone();
                runtime.block_on(async {
                    for number in 0..calls {
                        black_box(breaker.call(answer(number)).await.is_ok());
                    }
                });
            })
        })
        .peer("tower-resilience", move || {
            let layer = CircuitBreakerLayer::builder()
                .consecutive_failures(5)
                .build()?;
            tower_resilience(&layer, threads, calls)
        })
        .peer("no breaker", move || bare(threads, calls))
}

fn windows<'a>(threads: usize, calls: u64) -> Race<'a> {
    let mut count = BreakerSettings::default();
    count.window.kind = WindowKind::Count;
    let mut time = BreakerSettings::default();
    time.window.kind = WindowKind::Time;
    let mut slow = time;
    slow.slow_call = Some(SlowCallSettings::new(Duration::from_secs(1), 50.0));
    let title = format!(
        "share of failures among the last 100 calls, {}",
        on(threads)
    );
    Race::new(title, "ns", Better::Lower)
        .peer(COUNT, move || ours(count, threads, calls))
        .peer(TIME, move || ours(time, threads, calls))
        .peer(SLOW, move || ours(slow, threads, calls))
        .peer("recloser", move || recloser(threads, calls))
        .peer("tower-resilience", move || {
            let layer = CircuitBreakerLayer::builder()
                .failure_rate_threshold(0.5)
                .sliding_window_size(100)
                .build()?;
            tower_resilience(&layer, threads, calls)
        })
        .peer("no breaker", move || bare(threads, calls))
        .peer(CLOCK, move || {
            nanoseconds_each(threads, calls, |_, calls| {
                for _ in 0..calls {
                    black_box(tokio::time::Instant::now());
                }
            })
        })
}

fn without_futures<'a>(calls: u64) -> Race<'a> {
    Race::new("without futures, one thread", "ns", Better::Lower)
        .peer("trunkline", move || {
            let breaker = Breaker::new("bench", BreakerSettings::default());
            nanoseconds_each(1, calls, |_, calls| {
                for number in 0..calls {
                    if let Ok(permit) = breaker.try_acquire() {
                        black_box(number);
                        permit.success();
                    }
                }
            })
        })
        .peer("recloser", move || {
            let breaker = recloser::Recloser::default();
            nanoseconds_each(1, calls, |_, calls| {
                for number in 0..calls {
                    let done = breaker.call(|| Ok::<_, io::Error>(black_box(number)));
                    black_box(done.is_ok());
                }
            })
        })
        .peer("failsafe", move || {
            let backoff = failsafe::backoff::constant(Duration::from_secs(60));
            let policy = failsafe::failure_policy::consecutive_failures(5, backoff);
            let breaker = failsafe::Config::new().failure_policy(policy).build();
            nanoseconds_each(1, calls, |_, calls| {
                for number in 0..calls {
                    let call = || Ok::<_, io::Error>(black_box(number));
                    black_box(failsafe::CircuitBreaker::call(&breaker, call).is_ok());
                }
            })
        })
}

pub(super) fn on(threads: usize) -> &'static str {
    if threads == 1 {
        "one thread"
    } else {
        "two threads"
    }
}

fn bare(threads: usize, calls: u64) -> Result<f64> {
    nanoseconds_each(threads, calls, |runtime, calls| {
        runtime.block_on(async {
            for number in 0..calls {
                black_box(answer(number).await.is_ok());
            }
        });
    })
}

fn ours(settings: BreakerSettings, threads: usize, calls: u64) -> Result<f64> {
    let breaker = Arc::new(Breaker::new("bench", settings));
    nanoseconds_each(threads, calls, |runtime, calls| {
        runtime.block_on(async {
            for number in 0..calls {
                black_box(breaker.call(answer(number)).await.is_ok());
            }
        });
    })
}

fn recloser(threads: usize, calls: u64) -> Result<f64> {
    let breaker = recloser::AsyncRecloser::from(recloser::Recloser::default());
    nanoseconds_each(threads, calls, |runtime, calls| {
        let breaker = breaker.clone();
        runtime.block_on(async {
            for number in 0..calls {
                black_box(breaker.call(answer(number)).await.is_ok());
            }
        });
    })
}

fn tower_resilience(layer: &CircuitBreakerLayer, threads: usize, calls: u64) -> Result<f64> {
    let service = layer.layer_fn(tower::service_fn(answer));
    nanoseconds_each(threads, calls / 4, |runtime, calls| {
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

/// Runs the same calls on so many threads at once, after a tenth of them as a warm-up; the mean of what each call took.
pub(super) fn nanoseconds_each(
    threads: usize,
    calls: u64,
    work: impl Fn(&Runtime, u64) + Sync,
) -> Result<f64> {
    let start = Barrier::new(threads);
    let one_thread = |runtime: &Runtime| {
        work(runtime, calls / 10);
        start.wait();
        let watch = Stopwatch::start();
        work(runtime, calls);
        watch.nanoseconds_each(calls)
    };
    let runtimes = (0..threads)
        .map(|_| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
        })
        .collect::<io::Result<Vec<_>>>()?;
    let sum: f64 = std::thread::scope(|scope| {
        let running: Vec<_> = runtimes
            .iter()
            .map(|runtime| scope.spawn(|| one_thread(runtime)))
            .collect();
        let times = running.into_iter().map(|thread| thread.join());
        times.sum::<std::thread::Result<f64>>()
    })
    .map_err(|_| anyhow::anyhow!("a measuring thread panicked"))?;
    Ok(sum / threads as f64)
}
