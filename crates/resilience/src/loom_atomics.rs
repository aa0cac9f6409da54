//! Every interleaving of the hand-written atomics: `cargo xtask loom`.

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use tokio::time::Instant;

use crate::breaker::{Breaker, BreakerSettings, State, WindowKind};
use crate::bulkhead::Tally;
use crate::retry::{BudgetSettings, RetryBudget};

fn breaker(failure_threshold: u32, recovery: Duration) -> Arc<Breaker> {
    let mut settings = BreakerSettings::default();
    settings.failure_threshold = failure_threshold;
    settings.success_threshold = 1;
    settings.recovery_timeout = recovery;
    settings.probe_timeout = Duration::from_secs(3600);
    Arc::new(Breaker::new("loom", settings))
}

const LONG: Duration = Duration::from_secs(3600);

/// A success that takes no lock may come before or after a failure next to it, and never hides one that follows.
#[test]
fn a_success_without_a_lock_hides_no_later_failure() {
    loom::model(|| {
        let breaker = breaker(2, LONG);
        let other = Arc::clone(&breaker);
        let fails = thread::spawn(move || other.try_acquire().unwrap().failure());
        breaker.try_acquire().unwrap().success();
        fails.join().unwrap();
        let failures = breaker.snapshot().failure_count;
        assert!(failures <= 1);
        breaker.try_acquire().unwrap().failure();
        assert_eq!(breaker.state() == State::Open, failures == 1);
        if failures == 0 {
            breaker.try_acquire().unwrap().failure();
        }
        assert!(breaker.try_acquire().is_err());
    });
}

/// A success after a failure that is over resets the count, whichever thread it is on.
#[test]
fn a_success_after_a_failure_forgives_it() {
    loom::model(|| {
        let breaker = breaker(2, LONG);
        let other = Arc::clone(&breaker);
        let fails = thread::spawn(move || other.try_acquire().unwrap().failure());
        fails.join().unwrap();
        breaker.try_acquire().unwrap().success();
        assert_eq!(breaker.snapshot().failure_count, 0);
    });
}

/// Failures on two threads are both counted, and what was admitted before the circuit opened cannot close it.
#[test]
fn no_failure_is_lost_and_no_late_success_closes() {
    loom::model(|| {
        let breaker = breaker(2, LONG);
        let early = breaker.try_acquire().unwrap();
        let other = Arc::clone(&breaker);
        let fails = thread::spawn(move || {
            if let Ok(permit) = other.try_acquire() {
                permit.failure();
            }
        });
        breaker.try_acquire().unwrap().failure();
        fails.join().unwrap();
        assert_eq!(breaker.state(), State::Open);
        early.success();
        assert_eq!(breaker.state(), State::Open);
        assert!(breaker.try_acquire().is_err());
    });
}

/// Two threads at an open circuit whose time is over: one probe at a time, and its place comes back when it is dropped.
#[test]
fn half_open_admits_one_probe_and_gets_its_place_back() {
    loom::model(|| {
        let breaker = breaker(1, Duration::ZERO);
        breaker.try_acquire().unwrap().failure();
        let other = Arc::clone(&breaker);
        let probes = thread::spawn(move || {
            let probe = other.try_acquire();
            let admitted = probe.is_ok();
            drop(probe);
            admitted
        });
        let mine = breaker.try_acquire();
        let refused = mine.is_err();
        let admitted_there = probes.join().unwrap();
        assert!(admitted_there || !refused, "one of the two is let through");
        drop(mine);
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.try_acquire().unwrap().success();
        assert_eq!(breaker.state(), State::Closed);
    });
}

/// A probe that closes the circuit while another call asks: afterwards calls pass.
#[test]
fn a_circuit_that_closes_lets_everybody_through() {
    loom::model(|| {
        let breaker = breaker(1, Duration::ZERO);
        breaker.try_acquire().unwrap().failure();
        let probe = breaker.try_acquire().unwrap();
        let other = Arc::clone(&breaker);
        let asks = thread::spawn(move || {
            if let Ok(permit) = other.try_acquire() {
                permit.success();
            }
        });
        probe.success();
        asks.join().unwrap();
        assert_eq!(breaker.state(), State::Closed);
        breaker.try_acquire().unwrap().success();
    });
}

/// Calls counted while the second changes are counted once, and reservations balance.
#[test]
fn no_call_is_lost_from_the_budget() {
    loom::model(|| {
        let mut settings = BudgetSettings::default();
        settings.percent = 100.0;
        settings.min_per_second = 0;
        let budget = Arc::new(RetryBudget::new(settings));
        let start = Instant::now();
        let next = start + Duration::from_secs(2);
        let other = Arc::clone(&budget);
        let deposits = thread::spawn(move || {
            other.deposit(start);
            other.deposit(next);
        });
        budget.deposit(next);
        deposits.join().unwrap();
        let first = budget.reserve(next).unwrap();
        let second = budget.reserve(next).unwrap();
        let third = budget.reserve(next).unwrap();
        assert!(budget.reserve(next).is_none());
        drop((first, second, third));
    });
}

/// Successes counted without the lock are in the window once, whenever a failure takes them over.
#[test]
fn a_window_counts_every_call_once() {
    loom::model(|| {
        let mut settings = BreakerSettings::default();
        settings.window.kind = WindowKind::Count;
        let breaker = Arc::new(Breaker::new("loom", settings));
        let other = Arc::clone(&breaker);
        let calls = thread::spawn(move || {
            other.try_acquire().unwrap().success();
            other.try_acquire().unwrap().success();
        });
        breaker.try_acquire().unwrap().failure();
        breaker.try_acquire().unwrap().success();
        calls.join().unwrap();
        let seen = breaker.snapshot();
        assert_eq!((seen.calls, seen.failure_count), (4, 1));
    });
}

/// The queue of a bulkhead never holds more than it may, and nobody is refused for who was refused.
#[test]
fn a_queue_is_as_long_as_it_may_be() {
    loom::model(|| {
        let tally = Arc::new(Tally::new());
        let mine = tally.join(2).unwrap();
        let others = [Arc::clone(&tally), Arc::clone(&tally)].map(|tally| {
            thread::spawn(move || {
                let queued = tally.join(2);
                let waiting = tally.waiting();
                assert!(waiting <= 2);
                queued.is_some()
            })
        });
        let joined = others.map(|other| other.join().unwrap());
        assert!(joined.contains(&true), "there was room for one of the two");
        drop(mine);
        assert_eq!(tally.waiting(), 0);
    });
}

/// Places that are owed are paid back once, by whoever leaves, also while the limit changes.
#[test]
fn a_debt_is_paid_once() {
    loom::model(|| {
        let tally = Arc::new(Tally::new());
        tally.owe(1);
        let shrinks = Arc::clone(&tally);
        let leaves = Arc::clone(&tally);
        let shrinks = thread::spawn(move || shrinks.owe(1));
        let leaves = thread::spawn(move || leaves.pay(1));
        let paid = tally.pay(2) + leaves.join().unwrap();
        shrinks.join().unwrap();
        assert_eq!(paid + tally.owed(), 2);
    });
}
