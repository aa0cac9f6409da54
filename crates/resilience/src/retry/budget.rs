//! A budget for retries that all callers of one destination share.
//!
//! Retries are allowed up to a share of the recent calls, and a few a second in any case. When the destination is down
//! everybody wants to retry at once; the budget keeps that to a fifth more load in place of three times the load. A
//! retry takes its part when it is decided on, so that attempts waiting in their back-off count, and gives it back when
//! it does not come to pass.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::Scope;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::window::{TimeWindow, Totals};

/// How many retries are allowed, all of it settled.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BudgetSettings {
    /// Retries in percent of the calls of the last ten seconds.
    pub percent: f64,
    /// Retries a second that are allowed in any case, counted over the same ten seconds.
    pub min_per_second: u32,
    /// Whose calls are counted together.
    pub scope: Scope,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self {
            percent: 20.0,
            min_per_second: 10,
            scope: Scope::Service,
        }
    }
}

/// Seconds that the budget looks back.
const SECONDS: u32 = 10;

/// The budget of one destination. Share it behind an `Arc`, or by reference.
///
/// ```
/// use tokio::time::Instant;
/// use trunkline_resilience::retry::{BudgetSettings, RetryBudget};
///
/// let mut settings = BudgetSettings::default();
/// settings.min_per_second = 0;
/// let budget = RetryBudget::new(settings);
/// let now = Instant::now();
/// for _ in 0..5 {
///     budget.deposit(now);
/// }
/// // A fifth of five calls is one retry.
/// let first = budget.reserve(now).expect("one is allowed");
/// assert!(budget.reserve(now).is_none());
/// drop(first);
/// budget.reserve(now).expect("it was not made").commit(now);
/// assert!(budget.reserve(now).is_none());
/// ```
#[derive(Debug)]
pub struct RetryBudget {
    origin: Instant,
    /// The second since `origin` that `fresh` belongs to.
    second: AtomicU64,
    /// Calls of this second; the ledger takes them over when it is asked or the second is over.
    fresh: AtomicU64,
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    settings: BudgetSettings,
    /// Calls, and as its "failures" the retries made.
    window: TimeWindow,
    /// Retries decided on and not made yet.
    reserved: u64,
}

impl RetryBudget {
    /// Makes a budget from which nothing has been taken.
    #[must_use]
    pub fn new(settings: BudgetSettings) -> Self {
        let origin = Instant::now();
        Self {
            origin,
            second: AtomicU64::new(0),
            fresh: AtomicU64::new(0),
            ledger: Mutex::new(Ledger {
                settings,
                window: TimeWindow::new(Duration::from_secs(SECONDS.into()), origin),
                reserved: 0,
            }),
        }
    }

    /// Counts a call. Once a second this takes a lock, else it is one addition.
    pub fn deposit(&self, now: Instant) {
        if self.second_of(now) > self.second.load(Ordering::Relaxed) {
            self.roll(&mut self.lock(), now);
        }
        self.fresh.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the leave for one retry, at the moment it is decided on. `None` when the budget is used up: then this
    /// retry is not made; those under way go on.
    #[must_use]
    pub fn reserve(&self, now: Instant) -> Option<Reservation<'_>> {
        let mut ledger = self.lock();
        self.roll(&mut ledger, now);
        let Totals {
            calls,
            failures: made,
            ..
        } = ledger.window.totals(now);
        let floor = f64::from(ledger.settings.min_per_second) * f64::from(SECONDS);
        let allowed = floor + calls as f64 * ledger.settings.percent / 100.0;
        if (made + ledger.reserved + 1) as f64 > allowed {
            return None;
        }
        ledger.reserved += 1;
        Some(Reservation {
            budget: self,
            open: true,
        })
    }

    /// Takes new numbers and keeps what was counted.
    pub fn reconfigure(&self, settings: BudgetSettings) {
        self.lock().settings = settings;
    }

    fn second_of(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs()
    }

    /// Moves the calls counted since the last time into the ledger, under the second they were counted in.
    fn roll(&self, ledger: &mut Ledger, now: Instant) {
        let counted_in = self.second.load(Ordering::Relaxed);
        let at = self.origin + Duration::from_secs(counted_in);
        let calls = self.fresh.swap(0, Ordering::Relaxed);
        if calls > 0 {
            let added = Totals {
                calls,
                ..Totals::default()
            };
            ledger.window.add(added, at);
        }
        self.second
            .store(self.second_of(now).max(counted_in), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave for one retry. Dropped without [`Reservation::commit`], because the wait was cancelled or the attempt refused,
/// it goes back into the budget.
#[derive(Debug)]
#[must_use = "dropped at once it reserves nothing"]
pub struct Reservation<'a> {
    budget: &'a RetryBudget,
    open: bool,
}

impl Reservation<'_> {
    /// The retry is made now.
    pub fn commit(mut self, now: Instant) {
        self.open = false;
        let mut ledger = self.budget.lock();
        ledger.reserved = ledger.reserved.saturating_sub(1);
        let made = Totals {
            failures: 1,
            ..Totals::default()
        };
        ledger.window.add(made, now);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.open {
            let mut ledger = self.budget.lock();
            ledger.reserved = ledger.reserved.saturating_sub(1);
        }
    }
}
