//! What must be true once every caller is gone, however it went.

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use tokio::time::{Instant, sleep};
use trunkline_resilience::Priority;
use trunkline_resilience::breaker::{Breaker, State};
use trunkline_resilience::bulkhead::Bulkhead;
use trunkline_resilience::concurrency::ConcurrencyLimiter;
use trunkline_resilience::ratelimit::RateLimiter;
use trunkline_resilience::retry::RetryBudget;

use super::settings::World;

/// Everything that does not hold; empty is good. Takes virtual time, or a few units of the real one.
pub(super) async fn judge(world: &World) -> Vec<String> {
    let mut broken = Vec::new();
    if let Some(bulkhead) = world.policy.bulkhead() {
        broken.extend(places(&bulkhead));
    }
    if let Some(limiter) = world.policy.concurrency() {
        broken.extend(sheds_nobody(&limiter));
    }
    if let Some(limiter) = world.policy.rate_limit() {
        broken.extend(grants_its_rate(&limiter).await);
    }
    if let Some(breaker) = world.policy.breaker() {
        broken.extend(heals_on(world, &breaker).await);
        broken.extend(probes(&breaker).await);
        broken.extend(heals_on(world, &breaker).await);
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

/// Nobody is counted, the limit is within its bounds, and as many find room as it says.
fn sheds_nobody(limiter: &ConcurrencyLimiter) -> Vec<String> {
    let mut broken = Vec::new();
    let (seen, settings) = (limiter.measured(), limiter.settings());
    if seen.in_flight != 0 {
        broken.push(format!(
            "adaptive limit: {} run though nobody is there",
            seen.in_flight
        ));
    }
    if seen.limit == 0 || seen.limit > settings.max {
        broken.push(format!(
            "adaptive limit: {} of at most {}",
            seen.limit, settings.max
        ));
    }
    let room = std::iter::from_fn(|| limiter.try_acquire(Priority::Critical).ok());
    let room = room.take(seen.limit as usize + 1).collect::<Vec<_>>().len();
    if room != seen.limit as usize {
        broken.push(format!("adaptive limit: room for {room} of {}", seen.limit));
    }
    broken
}

/// After a while without anybody, the burst is there again, whole and no larger.
async fn grants_its_rate(limiter: &RateLimiter) -> Option<String> {
    let settings = limiter.settings();
    // What was taken ahead by those who gave up waiting, and the burst.
    sleep(
        settings.max_wait
            + settings
                .per
                .mul_f64(f64::from(settings.burst) / f64::from(settings.limit)),
    )
    .await;
    // The numbers may have been others when it was taken.
    for _ in 0..1_000 {
        if limiter.available() >= u64::from(settings.burst) {
            break;
        }
        sleep(settings.per).await;
    }
    let free = limiter.available();
    (free != u64::from(settings.burst))
        .then(|| format!("rate limit: {free} turns of {}", settings.burst))
}

/// Where time is real the machine may stop the judge in the middle of a probe, whose success is then a slow call, and the
/// circuit begins anew: several times in a row it does not.
async fn heals_on(world: &World, breaker: &Breaker) -> Option<String> {
    let tries = if world.has_real_time() { 5 } else { 1 };
    let mut broken = None;
    for _ in 0..tries {
        broken = heals(breaker).await;
        if broken.is_none() {
            break;
        }
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
        control(
            "a place of an adaptive limit that is never given back",
            |world| {
                if let Some(limiter) = world.policy.concurrency() {
                    Box::leak(Box::new(limiter.try_acquire_owned(Priority::Critical)));
                }
            },
        ),
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
