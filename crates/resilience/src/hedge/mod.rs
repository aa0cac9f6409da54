//! Hedging: asks a second time when the first answer is late, takes the first good answer and drops the rest.
//!
//! It cuts the slow tail of latencies: of calls that are answered in 10 ms but for one in a hundred, which takes a
//! second, nearly all are answered in 20 ms, for a few percent more requests. It is part of the retry, outside breaker,
//! bulkhead and attempt timeout, so that each request sent is counted and limited by itself; inside them, one place would
//! be held by two requests. A hedge is paid from the [`RetryBudget`] that retries of the same
//! destination use: when everything is slow at once, hedging would only add load, and the budget ends it. What runs
//! already goes on when the budget is used up.
//!
//! The wait before a hedge is a percentile of what answers took lately, measured here, or fixed. Only calls that say so
//! are hedged ([`Call::hedge`](crate::Call::hedge)): both requests may be processed, and at the same time.
//!
//! Use it alone ([`Hedge::run`]), as a tower layer ([`HedgeLayer`]), or through a [`crate::Policy`].

mod latencies;
mod race;
mod service;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::call::Call;
use crate::failure::{Classify, Outcome, Standard};
use crate::retry::{BudgetSettings, RetryBudget};

pub use latencies::Latencies;
pub(crate) use race::{Race, Raced, Told, Verdict, race};
pub use service::{HedgeLayer, HedgeService};

/// When a call is asked a second time, all of it settled.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HedgeSettings {
    /// The wait before a hedge; `None` where it is measured.
    pub delay: Option<Duration>,
    /// The share of answers, in percent, that come before the measured wait is over.
    pub percentile: f64,
    /// A measured wait is never shorter than this.
    pub min_delay: Duration,
    /// With fewer answers than this in the last half minute nothing is known, and nothing is hedged.
    pub minimum_calls: u32,
    /// Hedges of one attempt, each after another such wait.
    pub max_hedges: u32,
    /// HTTP methods, in capitals, whose requests are hedged.
    pub methods: Arc<[String]>,
}

impl Default for HedgeSettings {
    fn default() -> Self {
        Self {
            delay: None,
            percentile: 95.0,
            min_delay: Duration::from_millis(5),
            minimum_calls: 20,
            max_hedges: 1,
            methods: ["GET", "HEAD", "OPTIONS", "TRACE"]
                .map(str::to_owned)
                .into(),
        }
    }
}

/// Hedges operations by what their answers took. Share it behind an `Arc`, or by reference.
///
/// ```
/// use std::time::Duration;
/// use trunkline_core::Error;
/// use trunkline_resilience::Call;
/// use trunkline_resilience::hedge::{Hedge, HedgeSettings};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Error> {
/// let mut settings = HedgeSettings::default();
/// settings.delay = Some(Duration::from_millis(50));
/// let hedge = Hedge::new(settings);
/// let call = Call::default().repeatable(true).hedge(true);
/// let answered = hedge
///     .run(call, |number| async move {
///         if number == 0 {
///             tokio::time::sleep(Duration::from_secs(10)).await; // an instance that hangs
///         }
///         Ok::<_, Error>(number)
///     })
///     .await?;
/// assert_eq!(answered, 1);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Hedge {
    settings: HedgeSettings,
    latencies: Latencies,
    budget: Option<Arc<RetryBudget>>,
}

impl Hedge {
    /// Hedges within a budget of its own, that of [`BudgetSettings::default`].
    #[must_use]
    pub fn new(settings: HedgeSettings) -> Self {
        Self {
            settings,
            latencies: Latencies::new(),
            budget: Some(Arc::new(RetryBudget::new(BudgetSettings::default()))),
        }
    }

    /// Pays from a budget that retries and others share.
    #[must_use]
    pub fn budget(mut self, budget: Arc<RetryBudget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Hedges as often as the settings allow.
    #[must_use]
    pub fn without_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    /// The wait before a hedge at this moment; `None` as long as too little is known.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.latencies.delay(&self.settings, Instant::now())
    }

    /// What answers took.
    #[must_use]
    pub const fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Runs an operation, and after the wait beside it once more; the first result that is a success by the [`Standard`]
    /// rule ends it. The operation is given 0 for the first request and counts up for hedges.
    ///
    /// # Errors
    /// The operation's own error: that of the request that ended last, when none had a good answer.
    ///
    /// # Panics
    /// Outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    /// Dropping it drops every request under way.
    pub async fn run<T, E, F, Fut>(&self, call: Call, operation: F) -> Result<T, E>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: 'static,
    {
        self.run_with(call, &Standard, operation).await
    }

    /// Like [`Hedge::run`], with one's own judge.
    ///
    /// # Errors
    /// As [`Hedge::run`]; an `Ok` that the judge counts as a failure is returned as it is when it came last.
    ///
    /// # Panics
    /// As [`Hedge::run`].
    ///
    /// # Cancel safety
    /// As [`Hedge::run`].
    pub async fn run_with<T, E, F, Fut, C>(
        &self,
        call: Call,
        judge: &C,
        mut operation: F,
    ) -> Result<T, E>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<Result<T, E>>,
    {
        let began = Instant::now();
        let budget = self.budget.as_deref();
        if let Some(budget) = budget {
            budget.deposit(began);
        }
        let mut allowed = self.settings.max_hedges;
        if !call.hedge {
            allowed = 0;
        }
        let rules = Race {
            settings: &self.settings,
            latencies: &self.latencies,
            budget,
            began,
            allowed,
        };
        let start = |number, reservation: Option<crate::retry::Reservation<'_>>| {
            if let Some(reservation) = reservation {
                reservation.commit(Instant::now());
            }
            operation(number)
        };
        let verdict = |result: &Result<T, E>| match judge.outcome(result) {
            Outcome::Success => Verdict::Good,
            Outcome::Failure | Outcome::Ignored => Verdict::Bad,
        };
        race(rules, start, verdict, |_| ()).await.result
    }
}
