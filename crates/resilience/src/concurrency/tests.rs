//! The limit against a simulated server with a queue: so many at once, each taking so long, whoever comes then waits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

const MILLI: Duration = Duration::from_millis(1);

/// A server that works on `workers` calls at once, each for `service`, first come, first served.
struct Server {
    free: BinaryHeap<Reverse<Instant>>,
    service: Duration,
}

impl Server {
    fn new(workers: usize, service: Duration, now: Instant) -> Self {
        Self {
            free: (0..workers).map(|_| Reverse(now)).collect(),
            service,
        }
    }

    /// When a call that comes now is done.
    fn serve(&mut self, now: Instant) -> Instant {
        let Reverse(free) = self.free.pop().expect("there is a worker");
        let done = free.max(now) + self.service;
        self.free.push(Reverse(done));
        done
    }
}

struct World<'a> {
    limiter: &'a ConcurrencyLimiter,
    server: Server,
    running: Vec<(Instant, Permit<'a>)>,
    now: Instant,
    /// Calls that take longer count as run out of time.
    timeout: Duration,
    served: u64,
    refused: u64,
}

impl<'a> World<'a> {
    fn new(limiter: &'a ConcurrencyLimiter, workers: usize, service: Duration) -> Self {
        let now = limiter.origin;
        Self {
            limiter,
            server: Server::new(workers, service, now),
            running: Vec::new(),
            now,
            timeout: Duration::from_secs(3600),
            served: 0,
            refused: 0,
        }
    }

    /// Offers a call every `every`, for `span`; says the lowest and highest limit of the last half of it.
    fn offer(&mut self, every: Duration, span: Duration) -> (u32, u32) {
        let (begin, end) = (self.now, self.now + span);
        let mut seen = (u32::MAX, 0);
        while self.now < end {
            self.now += every;
            let now = self.now;
            let mut at = 0;
            while at < self.running.len() {
                if self.running[at].0 <= now {
                    let (done, permit) = self.running.swap_remove(at);
                    let outcome = if permit_age(&permit, self.limiter, done) > self.timeout {
                        Outcome::Failure
                    } else {
                        Outcome::Success
                    };
                    permit.record_at(outcome, done);
                    self.served += 1;
                } else {
                    at += 1;
                }
            }
            match self.limiter.enter(Priority::Critical, now) {
                Ok(permit) => self.running.push((self.server.serve(now), permit)),
                Err(_) => self.refused += 1,
            }
            if now - begin > span / 2 {
                let limit = self.limiter.measured().limit;
                seen = (seen.0.min(limit), seen.1.max(limit));
            }
        }
        seen
    }
}

fn permit_age(permit: &Permit<'_>, limiter: &ConcurrencyLimiter, done: Instant) -> Duration {
    Duration::from_nanos(limiter.stamp(done) - permit.ticket.began)
}

fn gradient() -> ConcurrencyLimiter {
    ConcurrencyLimiter::new("simulated", ConcurrencySettings::default())
}

#[test]
fn under_overload_it_finds_what_the_server_can_take() {
    let limiter = gradient();
    let mut world = World::new(&limiter, 50, 10 * MILLI);
    // Twice what the server can do: 5 calls a millisecond.
    let (_, high) = world.offer(MILLI / 10, Duration::from_secs(6));
    assert!(high <= 110, "{high}");
    let used = world.served as f64 / (6.0 * 5_000.0);
    assert!(used > 0.9, "the server is kept busy: {used}");
}

/// What others get wrong: a baseline that is an average of what is seen rises under lasting overload, and the limit with it.
#[test]
fn neither_limit_nor_baseline_drifts_under_an_hour_of_overload() {
    let limiter = gradient();
    let mut world = World::new(&limiter, 20, 100 * MILLI);
    // A quarter more than can be served.
    let every = 4 * MILLI;
    let first = world.offer(every, Duration::from_secs(60));
    let last = world.offer(every, Duration::from_secs(3_540));
    assert!(last.1 <= first.1.max(60), "{first:?} then {last:?}");
    let baseline = limiter.measured().baseline.unwrap();
    assert!(baseline < 130 * MILLI, "{baseline:?}");
}

/// A load that is only a little too high is what a moving average follows best.
#[test]
fn it_does_not_creep_up_under_modest_overload() {
    let limiter = gradient();
    let mut world = World::new(&limiter, 20, 100 * MILLI);
    // 210 calls a second where 200 can be served.
    let (_, high) = world.offer(Duration::from_micros(4_762), Duration::from_secs(1_800));
    assert!(high <= 60, "{high}");
}

#[test]
fn a_server_that_becomes_slower_by_itself_gets_its_share_again() {
    let limiter = gradient();
    let mut world = World::new(&limiter, 50, 10 * MILLI);
    world.offer(MILLI / 2, Duration::from_secs(10));
    // Every call takes four times as long: 80 at once are needed for the same load, and 100 can be served.
    let now = world.now;
    world.server = Server::new(100, 40 * MILLI, now);
    world.offer(MILLI / 2, Duration::from_secs(60));
    world.refused = 0;
    let (low, _) = world.offer(MILLI / 2, Duration::from_secs(20));
    assert!(low >= 20, "{low}");
    let refused = world.refused as f64 / (20.0 * 2_000.0);
    assert!(refused < 0.1, "{refused}");
}

#[test]
fn a_pinned_baseline_is_believed() {
    let settings = ConcurrencySettings {
        baseline: Some(10 * MILLI),
        ..ConcurrencySettings::default()
    };
    let limiter = ConcurrencyLimiter::new("simulated", settings);
    let mut world = World::new(&limiter, 20, 10 * MILLI);
    let (_, high) = world.offer(MILLI / 4, Duration::from_secs(30));
    assert!(high <= 60, "{high}");
    assert_eq!(limiter.measured().baseline, Some(10 * MILLI));
}

#[test]
fn aimd_backs_off_at_timeouts_and_comes_back() {
    let settings = ConcurrencySettings {
        algorithm: ConcurrencyAlgorithm::Aimd,
        ..ConcurrencySettings::default()
    };
    let limiter = ConcurrencyLimiter::new("simulated", settings);
    let mut world = World::new(&limiter, 20, 10 * MILLI);
    world.timeout = 40 * MILLI;
    let (low, high) = world.offer(MILLI / 4, Duration::from_secs(20));
    assert!(low >= 20 && high <= 90, "{low} to {high}");
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let limiter = gradient();
    let mut world = World::new(&limiter, 100, 10 * MILLI);
    // Five at once.
    let (low, high) = world.offer(2 * MILLI, Duration::from_secs(60));
    assert_eq!((low, high), (20, 20));
    assert_eq!(world.refused, 0);
}

#[test]
fn failures_that_come_at_once_are_no_fast_answers() {
    let limiter = gradient();
    let now = limiter.origin;
    for step in 0..10_000_u32 {
        let permit = limiter.enter(Priority::Normal, now + MILLI * step).unwrap();
        permit.record_at(Outcome::Ignored, now + MILLI * step);
    }
    let seen = limiter.measured();
    assert_eq!((seen.limit, seen.baseline, seen.in_flight), (20, None, 0));
}

#[test]
fn the_least_important_are_refused_first() {
    let settings = ConcurrencySettings {
        initial: 100,
        ..ConcurrencySettings::default()
    };
    let limiter = ConcurrencyLimiter::new("shared", settings);
    let mut held = Vec::new();
    for (priority, most) in [
        (Priority::Low, 70),
        (Priority::Normal, 90),
        (Priority::High, 95),
        (Priority::Critical, 100),
    ] {
        while let Ok(permit) = limiter.try_acquire(priority) {
            held.push(permit);
        }
        assert_eq!(held.len(), most, "{priority}");
    }
    let refused = limiter.try_acquire(Priority::Critical).unwrap_err();
    assert_eq!((refused.limit, refused.priority), (100, Priority::Critical));
    // As many as run are not cut off by those that matter more.
    drop(held.split_off(60));
    assert!(limiter.try_acquire(Priority::Low).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is reported, however late, and whatever is reconfigured: the limit stays within its bounds, and places are
    /// neither lost nor made.
    #[test]
    fn bounds_hold_and_places_are_conserved(
        aimd in any::<bool>(),
        steps in proptest::collection::vec((0u8..8, 0u64..400, 1u32..40), 1..400),
    ) {
        let settings = |min: u32| {
            let algorithm = if aimd { ConcurrencyAlgorithm::Aimd } else { ConcurrencyAlgorithm::Gradient };
            ConcurrencySettings {
                algorithm,
                min,
                max: min + 50,
                initial: min + 5,
                max_latency: aimd.then_some(100 * MILLI),
                ..ConcurrencySettings::default()
            }
        };
        let mut bounds = (3, 53);
        let limiter = ConcurrencyLimiter::new("any", settings(3));
        let mut now = limiter.origin;
        let mut held = Vec::new();
        for (step, pause, number) in steps {
            now += MILLI * u32::try_from(pause).unwrap();
            match step {
                0..=3 => held.extend(limiter.enter(Priority::ALL[number as usize % 4], now)),
                4 => held.pop().into_iter().for_each(|permit: Permit<'_>| permit.record_at(Outcome::Success, now)),
                5 => held.drain(..held.len() / 2).for_each(|permit| permit.record_at(Outcome::Failure, now)),
                6 => drop(held.pop()),
                _ => {
                    limiter.reconfigure(settings(number));
                    bounds = (number, number + 50);
                }
            }
            let seen = limiter.measured();
            prop_assert!(seen.limit >= 1 && seen.limit <= bounds.1, "{seen:?} {bounds:?}");
            prop_assert_eq!(seen.in_flight, held.len() as u64);
        }
        drop(held);
        prop_assert_eq!(limiter.measured().in_flight, 0);
    }
}
