use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use trunkline_resilience::retry::{BudgetSettings, RetryBudget};

fn settings(percent: f64, min_per_second: u32) -> BudgetSettings {
    let mut settings = BudgetSettings::default();
    settings.percent = percent;
    settings.min_per_second = min_per_second;
    settings
}

fn allowed(budget: &RetryBudget, now: Instant) -> usize {
    let held: Vec<_> = std::iter::from_fn(|| budget.reserve(now))
        .take(10_000)
        .collect();
    held.len()
}

#[test]
fn allows_a_share_of_the_calls_and_a_few_in_any_case() {
    let budget = RetryBudget::new(settings(20.0, 10));
    let now = Instant::now();
    assert_eq!(allowed(&budget, now), 100, "ten a second over ten seconds");
    for _ in 0..1000 {
        budget.deposit(now);
    }
    assert_eq!(allowed(&budget, now), 300);
}

#[test]
fn forgets_calls_and_retries_after_ten_seconds() {
    let budget = RetryBudget::new(settings(50.0, 0));
    let start = Instant::now();
    for _ in 0..10 {
        budget.deposit(start);
    }
    budget.reserve(start).unwrap().commit(start);
    assert_eq!(allowed(&budget, start), 4);
    let later = start + Duration::from_secs(11);
    assert_eq!(allowed(&budget, later), 0);
    for _ in 0..10 {
        budget.deposit(later);
    }
    assert_eq!(allowed(&budget, later), 5);
}

#[test]
fn counts_retries_that_wait_and_takes_back_those_that_are_not_made() {
    let budget = RetryBudget::new(settings(100.0, 0));
    let now = Instant::now();
    budget.deposit(now);
    let waiting = budget.reserve(now).unwrap();
    assert!(budget.reserve(now).is_none());
    drop(waiting);
    budget.reserve(now).unwrap().commit(now);
    assert!(budget.reserve(now).is_none());
}

#[test]
fn new_numbers_apply_to_what_was_counted() {
    let budget = RetryBudget::new(settings(20.0, 0));
    let now = Instant::now();
    for _ in 0..10 {
        budget.deposit(now);
    }
    assert_eq!(allowed(&budget, now), 2);
    budget.reconfigure(settings(100.0, 0));
    assert_eq!(allowed(&budget, now), 10);
}

proptest! {
    /// However calls, reservations, retries and time are mixed, retries made or waiting never exceed the share.
    #[test]
    fn is_never_overdrawn(steps in proptest::collection::vec((0u8..5, 0u64..1500), 1..300)) {
        let budget = RetryBudget::new(settings(50.0, 0));
        let mut now = Instant::now();
        let mut calls: Vec<Instant> = Vec::new();
        let mut made: Vec<Instant> = Vec::new();
        let mut waiting = Vec::new();
        for (step, millis) in steps {
            match step {
                0 | 1 => {
                    budget.deposit(now);
                    calls.push(now);
                }
                2 => waiting.extend(budget.reserve(now)),
                3 => if let Some(reservation) = waiting.pop() {
                    reservation.commit(now);
                    made.push(now);
                },
                _ if millis % 2 == 0 => drop(waiting.pop()),
                _ => now += Duration::from_millis(millis),
            }
            // Calls count for up to eleven seconds, retries for at least nine: whoever looks back ten sees no more.
            let recent = |times: &[Instant], seconds| {
                times.iter().filter(|at| now - **at < Duration::from_secs(seconds)).count()
            };
            let used = recent(&made, 9) + waiting.len();
            let earned = recent(&calls, 11);
            if let Some(extra) = budget.reserve(now) {
                prop_assert!((used + 1) * 2 <= earned, "{used} used of {earned}");
                drop(extra);
            }
        }
    }
}
