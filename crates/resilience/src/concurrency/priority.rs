//! How much a call matters when not all can be served.

use std::fmt;
use std::str::FromStr;

use trunkline_core::Context;

/// How much a call matters when not all can be served: the least important ones are refused first.
///
/// It travels in the baggage of the [`Context`] under [`Priority::KEY`], through HTTP, gRPC and messages alike, so that
/// what is done on behalf of an important call is as important as the call.
///
/// ```
/// use trunkline_core::Context;
/// use trunkline_resilience::Priority;
///
/// assert_eq!(Priority::of(&Context::new()), Priority::Normal);
/// let nightly = Priority::Low.put_into(Context::new());
/// assert_eq!(Priority::of(&nightly), Priority::Low);
/// ```
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Nobody waits for it: batches, prefetching, reports.
    Low,
    /// The rule.
    #[default]
    Normal,
    /// Somebody waits for it and would notice.
    High,
    /// Last to be refused: payments, health, what operators do.
    Critical,
}

impl Priority {
    /// The name under which it travels in the baggage.
    pub const KEY: &'static str = "priority";

    /// All of them, the least important first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// The priority as one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// What a context says; normal where it says nothing that is known.
    #[must_use]
    pub fn of(context: &Context) -> Self {
        let said = context.baggage().get(Self::KEY);
        said.and_then(|said| said.parse().ok()).unwrap_or_default()
    }

    /// The context with this priority.
    #[must_use]
    pub fn put_into(self, context: Context) -> Context {
        let baggage = context.baggage().clone().with(Self::KEY, self.as_str());
        context.with_baggage(baggage)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a priority: allowed are low, normal, high, critical")]
pub struct ParsePriorityError;

impl FromStr for Priority {
    type Err = ParsePriorityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter();
        let mut same = known.filter(|known| known.as_str().eq_ignore_ascii_case(text.trim()));
        same.next().ok_or(ParsePriorityError)
    }
}
