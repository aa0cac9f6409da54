//! Many callers on one thread whose clock jumps: every run can be repeated by its seed.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use futures_util::future::join_all;
use tokio::runtime::Runtime;
use tokio::time::{Instant, advance, sleep};
use trunkline_core::{Timestamp, task};
use trunkline_resilience::breaker::Control;
use trunkline_resilience::retry::BudgetSettings;

use super::settings::World;
use super::{Tally, act, judge};

const UNIT: Duration = Duration::from_millis(1);
const CALLERS: usize = 24;
const ACTS: usize = 12;

pub(super) fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    Ok(runtime)
}

pub(super) fn run(seeds: Range<u64>) -> Result<Tally> {
    let mut all = Tally::default();
    for seed in seeds {
        let mut tally = runtime()?.block_on(one(seed));
        for broken in &mut tally.broken {
            *broken = format!("seed {seed}: {broken}");
        }
        all.add(tally);
    }
    Ok(all)
}

async fn one(seed: u64) -> Tally {
    // The waits between retries are drawn from the thread's generator.
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed);
    let world = World::new(&mut rng, UNIT);
    let callers = (0..CALLERS).map(|_| {
        let (world, mut rng) = (world.clone(), rng.fork());
        task::spawn("caller", async move {
            let mut tally = Tally::default();
            for _ in 0..ACTS {
                sleep(UNIT * rng.u32(0..100)).await;
                let act = act::act(world.clone(), rng.fork());
                if rng.u8(0..10) > 0 {
                    tally.add(act.await);
                    continue;
                }
                // A task that is aborted from outside, wherever it is.
                let act = task::spawn("aborted", act);
                sleep(UNIT * rng.u32(0..100)).await;
                act.abort();
                match act.await {
                    Ok(done) => tally.add(done),
                    Err(_) => tally.count("task aborted"),
                }
            }
            tally
        })
    });
    let mut tally = Tally::default();
    let (outcomes, trouble) = tokio::join!(join_all(callers), trouble(&world, rng.fork()));
    tally.add(trouble);
    for outcome in outcomes {
        match outcome {
            Ok(done) => tally.add(done),
            Err(error) => tally.broken.push(format!("a caller died: {error}")),
        }
    }
    let changes = world.changes.load(std::sync::atomic::Ordering::Relaxed) as u64;
    *tally
        .done
        .entry("circuit opened, closed or probed")
        .or_default() += changes;
    tally.broken.extend(judge::judge(&world).await);
    let mut floor = BudgetSettings::default();
    floor.min_per_second = 3;
    world.budget.reconfigure(floor);
    advance(Duration::from_secs(12)).await;
    tally
        .broken
        .extend(judge::grants_its_floor(&world.budget, 3, Instant::now()));
    tally
}

/// Clocks that jump, operators, reloads.
async fn trouble(world: &World, mut rng: Rng) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..ACTS {
        sleep(UNIT * rng.u32(0..150)).await;
        match rng.u8(0..6) {
            0 => {
                advance(UNIT * rng.u32(0..5_000)).await;
                tally.count("clock jumped ahead");
            }
            1 => {
                let day = 24 * 3600 * 1_000_000;
                world
                    .wall
                    .set(Timestamp::from_unix_micros(rng.i64(-day..day)));
                tally.count("wall clock set, also back");
            }
            2 | 3 => {
                world.reload(&mut rng);
                tally.count("configuration reloaded");
            }
            4 => {
                let Some(breaker) = world.policy.breaker() else {
                    continue;
                };
                let controls = [
                    Control::ForcedOpen,
                    Control::ForcedClosed,
                    Control::Disabled,
                ];
                breaker.force(controls[rng.usize(0..3)]);
                sleep(UNIT * rng.u32(0..50)).await;
                // Handed back in the middle, so that callers have the last word on its state.
                breaker.force(Control::Automatic);
                tally.count("operator intervened");
            }
            _ => {}
        }
    }
    tally
}
