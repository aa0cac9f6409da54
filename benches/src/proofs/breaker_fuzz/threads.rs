//! Callers on real threads: the machine decides about interleavings.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, anyhow};
use fastrand::Rng;
use futures_util::future::join_all;
use trunkline_resilience::breaker::Control;

use super::settings::World;
use super::{Tally, act, judge};

const THREADS: usize = 4;
/// Callers on each thread at the same time.
const CALLERS: usize = 8;
/// Spans are as short as timers allow: the longest of the settings is then some milliseconds.
const UNIT: Duration = Duration::from_micros(10);

pub(super) fn run(rounds: Range<u64>, acts: usize) -> Result<Tally> {
    let mut all = Tally::default();
    for round in rounds {
        let mut rng = Rng::with_seed(0x7EAD ^ round);
        let world = World::new(&mut rng, UNIT);
        let threads: Vec<Result<Tally>> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (world, rng) = (world.clone(), rng.fork());
                    scope.spawn(move || one_thread(&world, rng, acts / THREADS))
                })
                .collect();
            let ends = running.into_iter().map(|thread| thread.join());
            ends.map(|end| {
                end.map_err(|_| anyhow!("a thread died"))
                    .and_then(|tally| tally)
            })
            .collect()
        });
        for tally in threads {
            all.add(tally?);
        }
        let changes = world.changes.load(std::sync::atomic::Ordering::Relaxed) as u64;
        *all.done
            .entry("circuit opened, closed or probed")
            .or_default() += changes;
        let broken = runtime()?.block_on(judge::judge(&world));
        all.broken.extend(
            broken
                .into_iter()
                .map(|broken| format!("round {round}: {broken}")),
        );
    }
    Ok(all)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?)
}

fn one_thread(world: &World, mut rng: Rng, acts: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    let runtime = runtime()?;
    for _ in 0..acts.div_ceil(CALLERS) {
        match rng.u8(0..60) {
            0 => {
                world.reload(&mut rng);
                tally.count("configuration reloaded");
            }
            1 => {
                if let Some(breaker) = world.policy.breaker() {
                    let controls = [
                        Control::ForcedOpen,
                        Control::ForcedClosed,
                        Control::Disabled,
                    ];
                    breaker.force(controls[rng.usize(0..3)]);
                    breaker.force(Control::Automatic);
                    tally.count("operator intervened");
                }
            }
            _ => {}
        }
        let callers = (0..CALLERS).map(|_| act::act(world.clone(), rng.fork()));
        for done in runtime.block_on(join_all(callers.collect::<Vec<_>>())) {
            tally.add(done);
        }
    }
    Ok(tally)
}
