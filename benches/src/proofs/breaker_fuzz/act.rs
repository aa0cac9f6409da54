//! What one caller does: something wrong, most of the time.

use std::future::{Future, pending};
use std::panic::resume_unwind;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};
use trunkline_core::{Error, Retry};
use trunkline_resilience::{Attempt, Call, Classify, Outcome, Priority};

use super::Tally;
use super::settings::World;

/// Without these a run has shown nothing.
pub(super) const MUST_HAPPEN: [&str; 14] = [
    "call cancelled",
    "call panicked",
    "classifier panicked",
    "result ignored: permit dropped",
    "result reported late",
    "result judged as ignored",
    "wait in the queue cancelled",
    "place dropped by a panic",
    "retry reserved and not made",
    "wait for a turn cancelled",
    "place of the adaptive limit dropped by a panic",
    "circuit opened, closed or probed",
    "operator intervened",
    "configuration reloaded",
];

/// Unwinds as a panic does, without the message.
pub(super) fn panic_on_purpose() -> ! {
    resume_unwind(Box::new("on purpose"))
}

/// Judges as it likes, and panics now and then.
struct Shaky {
    panics_at: u32,
    seen: std::sync::atomic::AtomicU32,
    ignores: bool,
}

impl Shaky {
    fn new(rng: &mut Rng) -> Self {
        Self {
            panics_at: if rng.u8(0..8) == 0 {
                rng.u32(0..4)
            } else {
                u32::MAX
            },
            seen: 0.into(),
            ignores: rng.u8(0..6) == 0,
        }
    }

    fn look(&self) {
        let seen = self.seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if seen == self.panics_at {
            panic_on_purpose();
        }
    }

    fn panicked(&self) -> bool {
        self.seen.load(std::sync::atomic::Ordering::Relaxed) > self.panics_at
    }
}

impl Classify<Result<u32, Error>> for Shaky {
    fn outcome(&self, result: &Result<u32, Error>) -> Outcome {
        self.look();
        match result {
            _ if self.ignores => Outcome::Ignored,
            // A status of 500 and more, so to speak: an `Ok` that is a failure.
            Ok(status) if *status < 500 => Outcome::Success,
            Ok(_) | Err(_) => Outcome::Failure,
        }
    }

    fn retry(&self, result: &Result<u32, Error>) -> Retry {
        self.look();
        match result {
            Ok(_) => Retry::Never,
            Err(error) => error.retry(),
        }
    }
}

/// How an attempt goes.
#[derive(Clone, Copy)]
enum Course {
    Answers(u32),
    Fails,
    Hangs,
    PanicsAtOnce,
    PanicsLater,
}

fn course(rng: &mut Rng) -> Course {
    match rng.u8(0..20) {
        0..=9 => Course::Answers(200),
        10 | 11 => Course::Answers(503),
        12..=15 => Course::Fails,
        16 => Course::Hangs,
        17 => Course::PanicsAtOnce,
        _ => Course::PanicsLater,
    }
}

async fn go(course: Course, pause: Duration) -> Result<u32, Error> {
    if matches!(course, Course::PanicsAtOnce) {
        panic_on_purpose();
    }
    // A pause of nothing is an answer at once.
    if !pause.is_zero() {
        sleep(pause).await;
    }
    match course {
        Course::Answers(status) => Ok(status),
        Course::Fails => Err(Error::unavailable("down").with_retry(Retry::Safe)),
        Course::Hangs => pending().await,
        Course::PanicsAtOnce | Course::PanicsLater => panic_on_purpose(),
    }
}

fn pause(rng: &mut Rng, unit: Duration) -> Duration {
    unit * [0, 0, 1, 5, 60, 400][rng.usize(0..6)]
}

/// One caller doing one thing.
pub(super) async fn act(world: World, mut rng: Rng) -> Tally {
    let mut tally = Tally::default();
    match rng.u8(0..15) {
        0..=5 => through_the_policy(&world, &mut rng, &mut tally).await,
        6 | 7 => through_the_breaker(&world, &mut rng, &mut tally).await,
        8 => by_permit(&world, &mut rng, &mut tally).await,
        9 | 10 => in_the_bulkhead(&world, &mut rng, &mut tally).await,
        11 | 12 => at_the_rate(&world, &mut rng, &mut tally).await,
        13 => in_the_adaptive_limit(&world, &mut rng, &mut tally).await,
        _ => with_the_budget(&world, &mut rng, &mut tally).await,
    }
    tally
}

/// Ends a future as callers do: waits for it, gives up, or dies with it. Says whether it was given up.
async fn some_way<F: Future>(future: F, rng: &mut Rng, unit: Duration) -> Ended<F::Output> {
    use futures_util::FutureExt as _;
    let future = std::panic::AssertUnwindSafe(future).catch_unwind();
    let patience = match rng.u8(0..4) {
        0 => pause(rng, unit),
        // Longer than any total timeout.
        _ => unit * 10_000,
    };
    match tokio::time::timeout(patience, future).await {
        Ok(Ok(output)) => Ended::Done(output),
        Ok(Err(_)) => Ended::Panicked,
        Err(_) => Ended::GivenUp,
    }
}

enum Ended<T> {
    Done(T),
    Panicked,
    GivenUp,
}

async fn through_the_policy(world: &World, rng: &mut Rng, tally: &mut Tally) {
    let judge = Shaky::new(rng);
    let mut call = Call::default().repeatable(rng.bool());
    if rng.u8(0..4) == 0 {
        call.deadline = Some(Instant::now() + pause(rng, world.unit));
    }
    let mut own = rng.fork();
    let unit = world.unit;
    let operation = move |_: Attempt| go(course(&mut own), pause(&mut own, unit));
    let run = world.policy.run_with(call, &judge, operation);
    let ended = some_way(run, rng, unit).await;
    tally.count(match ended {
        Ended::Done(Ok(_)) => "call answered",
        Ended::Done(Err(_)) => "call failed or refused",
        Ended::Panicked if judge.panicked() => "classifier panicked",
        Ended::Panicked => "call panicked",
        Ended::GivenUp => "call cancelled",
    });
    if judge.ignores {
        tally.count("result judged as ignored");
    }
}

async fn through_the_breaker(world: &World, rng: &mut Rng, tally: &mut Tally) {
    let Some(breaker) = world.policy.breaker() else {
        return;
    };
    let judge = Shaky::new(rng);
    let future = go(course(rng), pause(rng, world.unit));
    let by_judge = |result: &Result<u32, Error>| judge.outcome(result);
    let ended = some_way(breaker.call_with(by_judge, future), rng, world.unit).await;
    tally.count(match ended {
        Ended::Done(_) => "call through a breaker alone",
        Ended::Panicked if judge.panicked() => "classifier panicked",
        Ended::Panicked => "call panicked",
        Ended::GivenUp => "call cancelled",
    });
}

async fn by_permit(world: &World, rng: &mut Rng, tally: &mut Tally) {
    let Some(breaker) = world.policy.breaker() else {
        return;
    };
    let Ok(mut permit) = breaker.try_acquire_owned() else {
        return;
    };
    // Longer than the lease of a probe, now and then.
    if rng.bool() {
        sleep(world.unit * rng.u32(0..2_000)).await;
        tally.count("result reported late");
    }
    if rng.u8(0..4) == 0 {
        permit.restart_clock();
    }
    match rng.u8(0..4) {
        0 => permit.success(),
        1 => permit.failure(),
        2 => permit.record(Outcome::Ignored),
        _ => {
            drop(permit);
            tally.count("result ignored: permit dropped");
        }
    }
}

async fn in_the_bulkhead(world: &World, rng: &mut Rng, tally: &mut Tally) {
    let Some(bulkhead) = world.policy.bulkhead() else {
        return;
    };
    let deadline = rng.bool().then(|| Instant::now() + pause(rng, world.unit));
    let held = pause(rng, world.unit);
    let panics = rng.u8(0..4) == 0;
    let stay = async {
        let place = bulkhead.acquire_owned(deadline).await;
        if place.is_ok() {
            sleep(held).await;
            if panics {
                panic_on_purpose();
            }
        }
        place.is_ok()
    };
    let ended = some_way(stay, rng, world.unit).await;
    tally.count(match ended {
        Ended::Done(true) => "place taken and left",
        Ended::Done(false) => "no place in time",
        Ended::Panicked => "place dropped by a panic",
        Ended::GivenUp => "wait in the queue cancelled",
    });
}

async fn at_the_rate(world: &World, rng: &mut Rng, tally: &mut Tally) {
    let Some(limiter) = world.policy.rate_limit() else {
        return;
    };
    let deadline = rng.bool().then(|| Instant::now() + pause(rng, world.unit));
    let ended = some_way(limiter.acquire(deadline), rng, world.unit).await;
    tally.count(match ended {
        Ended::Done(Ok(())) => "turn taken",
        Ended::Done(Err(_)) => "no turn in time",
        Ended::Panicked => "call panicked",
        Ended::GivenUp => "wait for a turn cancelled",
    });
}

async fn in_the_adaptive_limit(world: &World, rng: &mut Rng, tally: &mut Tally) {
    let Some(limiter) = world.policy.concurrency() else {
        return;
    };
    let priority = Priority::ALL[rng.usize(0..4)];
    let held = pause(rng, world.unit);
    let ending = rng.u8(0..5);
    let stay = async {
        let Ok(permit) = limiter.try_acquire_owned(priority) else {
            return false;
        };
        sleep(held).await;
        match ending {
            0 => permit.success(),
            1 => permit.overload(),
            2 => permit.record(Outcome::Ignored),
            3 => drop(permit),
            _ => panic_on_purpose(),
        }
        true
    };
    let ended = some_way(stay, rng, world.unit).await;
    tally.count(match ended {
        Ended::Done(true) => "place of the adaptive limit taken and left",
        Ended::Done(false) => "shed by the adaptive limit",
        Ended::Panicked => "place of the adaptive limit dropped by a panic",
        Ended::GivenUp => "call cancelled",
    });
}

async fn with_the_budget(world: &World, rng: &mut Rng, tally: &mut Tally) {
    world.budget.deposit(Instant::now());
    let wait = pause(rng, world.unit);
    let commits = rng.bool();
    let panics = rng.u8(0..3) == 0;
    let retry = async {
        let Some(reservation) = world.budget.reserve(Instant::now()) else {
            return;
        };
        sleep(wait).await;
        if panics {
            panic_on_purpose();
        }
        if commits {
            reservation.commit(Instant::now());
        }
    };
    let ended = some_way(retry, rng, world.unit).await;
    tally.count(match ended {
        Ended::Done(()) if commits => "retry reserved and made",
        _ => "retry reserved and not made",
    });
}
