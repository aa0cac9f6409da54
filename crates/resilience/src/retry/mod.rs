//! Retry: repeats what failed, if that can help and do no harm, and never more than all callers together may.
//!
//! It belongs outside the breaker, the bulkhead and the attempt's timeout, so that each attempt is counted, limited and
//! timed by itself. The other way round, with the breaker outside, a call that failed three times would count once.
//!
//! Whether a failure may be repeated is what the place that failed says ([`trunkline_core::Retry`]): what provably was
//! not processed always, what may have been processed only where the call is repeatable (idempotent or keyed), the rest
//! never.

mod budget;
mod exhausted;
mod plan;
mod schedule;
mod service;

use std::sync::Arc;
use std::time::Duration;

use trunkline_core::ErrorKind;

pub use crate::config::Strategy;
pub use budget::{BudgetSettings, Reservation, RetryBudget};
pub use exhausted::{AttemptFailure, FailedAttempt, RetryExhausted, Stopped};
pub(crate) use plan::{Bounds, Next, Plan};
pub use schedule::Schedule;
pub(crate) use service::Attempts;
pub use service::{RetryLayer, RetryService};

/// When and how often a failed attempt is repeated, all of it settled.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetrySettings {
    /// Whether to retry at all.
    pub enabled: bool,
    /// Attempts altogether, the first one included.
    pub max_attempts: u32,
    /// How the waits grow.
    pub strategy: Strategy,
    /// Wait before the second attempt.
    pub delay: Duration,
    /// Factor by which each further wait grows where they grow exponentially.
    pub backoff: f64,
    /// No wait grows beyond this; a pause that the other side asks for may, within a deadline.
    pub max_delay: Duration,
    /// Whether each wait is shortened at random by up to a half.
    pub jitter: bool,
    /// No attempt begins later than this after the first one.
    pub max_elapsed: Option<Duration>,
    /// How many retries all callers of one destination may make together; `None` where nothing limits them.
    pub budget: Option<BudgetSettings>,
    /// HTTP statuses that are worth another attempt.
    pub on_status: Arc<[u16]>,
    /// Kinds of errors that are worth another attempt; `None` where every error that says so of itself is.
    pub on_error: Option<Arc<[ErrorKind]>>,
    /// HTTP methods, in capitals, that may be repeated although the first request may have been processed.
    pub methods: Arc<[String]>,
}

impl Default for RetrySettings {
    fn default() -> Self {
        let methods = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];
        Self {
            enabled: true,
            max_attempts: 3,
            strategy: Strategy::Exponential,
            delay: Duration::from_secs(1),
            backoff: 2.0,
            max_delay: Duration::from_secs(30),
            jitter: true,
            max_elapsed: None,
            budget: Some(BudgetSettings::default()),
            on_status: Arc::from([429, 502, 503, 504]),
            on_error: None,
            methods: methods.map(str::to_owned).into(),
        }
    }
}

impl RetrySettings {
    /// Attempts altogether; one where retries are switched off.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        if self.enabled {
            self.max_attempts.max(1)
        } else {
            1
        }
    }

    /// The waits between attempts.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule {
            strategy: self.strategy,
            delay: self.delay,
            backoff: self.backoff,
            max_delay: self.max_delay,
            jitter: self.jitter,
        }
    }
}
