//! Fallback: another answer when the call has failed for good.

use std::time::Duration;

/// What answers in place of a call that failed, all of it settled. Whoever knows the protocol carries it out; see
/// [`crate::Policy::run_or`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FallbackSettings {
    /// Another service that is asked the same.
    pub service: Option<String>,
    /// A fixed answer, as JSON; used where there is no service, or that fails too.
    pub value: Option<serde_json::Value>,
    /// The part of the deadline kept back for it.
    pub reserve: Duration,
}

impl FallbackSettings {
    /// The part of the deadline kept back for a fallback unless something else is said.
    pub const RESERVE: Duration = Duration::from_millis(250);
}
