//! What must be true once every caller is gone, however it went.

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use tokio::time::{Instant, sleep};
use trunkline_resilience::breaker::{Breaker, State};
use trunkline_resilience::bulkhead::Bulkhead;
use trunkline_resilience::retry::RetryBudget;

use super::settings::World;

/// Everything that does not hold; empty is good. Takes virtual time, or a few units of the real one.
pub(super) async fn judge(world: &World) -> Vec<String> {
    let mut broken = Vec::new();
    if let Some(bulkhead) = world.policy.bulkhead() {
        broken.extend(places(&bulkhead));
    }
    if let Some(breaker) = world.policy.breaker() {
        broken.extend(heals(&breaker).await);
        broken.extend(probes(&breaker).await);
        broken.extend(heals(&breaker).await);
    }
    broken
}

/// Nobody runs, nobody waits, and there are as many places as there should be.
fn places(bulkhead: &Bulkhead) -> Vec<String> {
    let mut broken = Vec::new();
    let seen = bulkhead.occupancy();
    if (seen.running, seen.waiting) != (0, 0) {
        broken.push(format!(
            "bulkhead: {} run and {} wait though nobody is there",
            seen.running, seen.waiting
        ));
    }
    let most = seen.max_concurrent as usize;
    let free: Vec<_> = std::iter::from_fn(|| bulkhead.try_acquire())
        .take(most + 1)
        .collect();
    if free.len() != most {
        broken.push(format!("bulkhead: {} places of {most}", free.len()));
    }
    broken
}

/// With the other side well again, waiting as long as it says and no longer, a circuit closes after its successes.
async fn heals(breaker: &Breaker) -> Option<String> {
    let settings = breaker.settings();
    // What may be in the way is an open circuit, and leases of probes that are gone: none, as each gave its place back.
    let mut refusals = 0;
    for _ in 0..=settings.success_threshold {
        match breaker.try_acquire() {
            Ok(permit) => permit.success(),
            Err(open) => {
                refusals += 1;
                if refusals > 1 {
                    return Some(format!(
                        "circuit: still refused after waiting as long as it said: {open}"
                    ));
                }
                sleep(open.retry_after).await;
            }
        }
    }
    let state = breaker.state();
    (state != State::Closed).then(|| {
        format!(
            "circuit: {state} after {} successes",
            settings.success_threshold
        )
    })
}

/// Half-open it has as many probes as it should, also after all of them were dropped.
async fn probes(breaker: &Breaker) -> Option<String> {
    let settings = breaker.settings();
    for _ in 0..100_000 {
        if breaker.state() != State::Closed {
            break;
        }
        if let Ok(permit) = breaker.try_acquire() {
            permit.failure();
        }
    }
    if breaker.state() == State::Closed {
        return Some("circuit: failures alone did not open it".to_owned());
    }
    sleep(breaker.snapshot().retry_after).await;
    let most = settings.half_open_max_calls as usize;
    for _ in 0..3 {
        let all: Vec<_> = std::iter::from_fn(|| breaker.try_acquire().ok())
            .take(most + 1)
            .collect();
        // Leases that run out meanwhile make room for more, never for fewer.
        let leased = settings.probe_timeout >= Duration::from_millis(50);
        if all.len() < most || (leased && all.len() > most) {
            return Some(format!(
                "circuit: {} probes of {most} when half-open",
                all.len()
            ));
        }
    }
    None
}

/// With nothing counted for longer than it looks back, a budget grants its floor and not one more.
pub(super) fn grants_its_floor(
    budget: &RetryBudget,
    per_second: u32,
    now: Instant,
) -> Option<String> {
    let floor = per_second as usize * 10;
    let granted: Vec<_> = std::iter::from_fn(|| budget.reserve(now))
        .take(floor + 1)
        .collect();
    (granted.len() != floor).then(|| format!("budget: {} reservations of {floor}", granted.len()))
}

/// Leaks that are made on purpose, and what the judge says of them.
pub(super) fn controls() -> Result<Vec<(&'static str, Option<String>)>> {
    let runtime = super::virtual_time::runtime()?;
    let control = |what, leak: fn(&World)| {
        runtime.block_on(async {
            let world = World::new(&mut Rng::with_seed(7), Duration::from_millis(1));
            leak(&world);
            (what, judge(&world).await.into_iter().next())
        })
    };
    Ok(vec![
        control("a place of a bulkhead that is never given back", |world| {
            if let Some(bulkhead) = world.policy.bulkhead() {
                let bulkhead: &'static Bulkhead = Box::leak(Box::new(bulkhead));
                Box::leak(Box::new(bulkhead.try_acquire()));
            }
        }),
        control("a probe that never comes back", |world| {
            if let Some(breaker) = world.policy.breaker() {
                let mut settings = breaker.settings();
                settings.recovery_timeout = Duration::ZERO;
                settings.half_open_max_calls = 1;
                settings.probe_timeout = Duration::from_secs(3600);
                breaker.reconfigure(settings);
                while breaker.state() == State::Closed {
                    if let Ok(permit) = breaker.try_acquire() {
                        permit.failure();
                    }
                }
                let breaker: &'static Breaker = Box::leak(Box::new(breaker));
                Box::leak(Box::new(breaker.try_acquire()));
            }
        }),
    ])
}
