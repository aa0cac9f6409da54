//! Chaos: makes calls slow, fail, or lose their answers, at a rate and where it matches, for tests and game days.
//!
//! It stands where the other side would be, right around the attempt and inside all policies, so that they see what they
//! would see in earnest: a delay runs into the attempt's timeout, an error counts in the breaker, an answer that is lost
//! was processed and is only repeated where that does no harm.
//!
//! It is off unless it is switched on, and in the production profile the configuration refuses it unless
//! `allow_in_production` is said beside it.

mod error;
mod service;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use trunkline_core::Context;

pub use crate::config::ChaosErrorKind;
use crate::target::Target;

pub use error::InjectedFault;
pub use service::{ChaosLayer, ChaosService};

/// What goes wrong, how often and where, all of it settled. Shares are in percent of the calls that match.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChaosSettings {
    /// Calls that are delayed.
    pub latency_percent: f64,
    /// How long they are.
    pub latency: Duration,
    /// Calls that fail without being sent.
    pub error_percent: f64,
    /// How they fail.
    pub error: ChaosErrorKind,
    /// Calls that are sent and whose answer is lost.
    pub abort_percent: f64,
    /// Endpoints that it is about, `*` standing for any text at the end; all where it is empty.
    pub endpoints: Arc<[String]>,
    /// Attempts that it is about, the first being 1; all where it is empty.
    pub attempts: Arc<[u32]>,
    /// Whether it is only about calls whose context is marked, see [`Chaos::mark`].
    pub marked: bool,
    /// Where the dice begin, so that a run can be repeated.
    pub seed: Option<u64>,
}

impl Default for ChaosSettings {
    fn default() -> Self {
        Self {
            latency_percent: 0.0,
            latency: Duration::from_millis(500),
            error_percent: 0.0,
            error: ChaosErrorKind::Unavailable,
            abort_percent: 0.0,
            endpoints: Arc::from([]),
            attempts: Arc::from([]),
            marked: false,
            seed: None,
        }
    }
}

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// It is delayed.
    Latency,
    /// It fails without being sent.
    Error,
    /// It is sent and its answer is lost.
    Abort,
}

impl Fault {
    /// The fault as one word, as metrics show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Error => "error",
            Self::Abort => "abort",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was drawn for one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// How long it is delayed first.
    pub delay: Option<Duration>,
    /// How it fails in place of being sent.
    pub error: Option<InjectedFault>,
    /// How it fails in place of its answer.
    pub abort: Option<InjectedFault>,
}

impl Plan {
    /// What happens, in order.
    pub fn faults(&self) -> impl Iterator<Item = Fault> + use<> {
        let delay = self.delay.map(|_| Fault::Latency);
        let error = self.error.map(|_| Fault::Error);
        let abort = self.abort.map(|_| Fault::Abort);
        [delay, error, abort].into_iter().flatten()
    }
}

/// Draws for each call what goes wrong. Share it behind an `Arc`, or by reference.
///
/// ```
/// use trunkline_resilience::Target;
/// use trunkline_resilience::chaos::{Chaos, ChaosSettings};
///
/// let mut settings = ChaosSettings::default();
/// settings.error_percent = 100.0;
/// settings.attempts = [1].into();
/// let chaos = Chaos::new(settings);
/// let users = Target::service("users");
/// assert!(chaos.draw(&users, 1, false).error.is_some());
/// assert!(chaos.draw(&users, 2, false).error.is_none(), "only first attempts are hit");
/// ```
#[derive(Debug)]
pub struct Chaos {
    settings: ChaosSettings,
    dice: AtomicU64,
}

/// The step of SplitMix64.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl Chaos {
    /// The name under which a mark travels in the baggage of a context.
    pub const KEY: &'static str = "chaos";

    /// Draws by these numbers.
    #[must_use]
    pub fn new(settings: ChaosSettings) -> Self {
        let seed = settings.seed.unwrap_or_else(|| fastrand::u64(..));
        Self {
            settings,
            dice: AtomicU64::new(seed),
        }
    }

    /// Marks a context, so that what is done on its behalf, here and at other services, may be hit where only marked
    /// calls are.
    #[must_use]
    pub fn mark(context: Context) -> Context {
        let baggage = context.baggage().clone().with(Self::KEY, "on");
        context.with_baggage(baggage)
    }

    /// Whether a context is marked.
    #[must_use]
    pub fn is_marked(context: &Context) -> bool {
        context.baggage().get(Self::KEY) == Some("on")
    }

    /// The numbers in force.
    #[must_use]
    pub fn settings(&self) -> &ChaosSettings {
        &self.settings
    }

    /// What goes wrong with this attempt.
    #[must_use]
    pub fn draw(&self, target: &Target, attempt: u32, marked: bool) -> Plan {
        let only = &self.settings;
        let here =
            only.endpoints.is_empty() || only.endpoints.iter().any(|pattern| fits(pattern, target));
        let now = only.attempts.is_empty() || only.attempts.contains(&attempt);
        if !here || !now || (only.marked && !marked) {
            return Plan::default();
        }
        let delay = self.hits(only.latency_percent).then_some(only.latency);
        let error = self.hits(only.error_percent);
        // What was not sent has no answer to lose.
        let abort = self.hits(only.abort_percent) && !error;
        Plan {
            delay,
            error: error.then(|| InjectedFault::error(only.error)),
            abort: abort.then(InjectedFault::abort),
        }
    }

    fn hits(&self, percent: f64) -> bool {
        if percent <= 0.0 {
            return false;
        }
        // SplitMix64: one addition that threads share, and a sequence that a seed repeats.
        let mut drawn = self
            .dice
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        drawn ^= drawn >> 31;
        let share = (drawn >> 11) as f64 / (1_u64 << 53) as f64;
        share * 100.0 < percent
    }
}

fn fits(pattern: &str, target: &Target) -> bool {
    let Some(endpoint) = target.endpoint.as_deref() else {
        return pattern == "*";
    };
    match pattern.strip_suffix('*') {
        Some(beginning) => endpoint.starts_with(beginning),
        None => endpoint == pattern,
    }
}
