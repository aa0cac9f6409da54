//! Fallback: another answer when the call has failed for good.
//!
//! It is outermost: it sees what remains after all attempts, and refusals too. A slice of the deadline is kept back for
//! it, else it would always come too late.

mod service;

use std::future::Future;
use std::time::Duration;

use crate::timeout::Deadline;

pub use service::{FallbackLayer, FallbackService};

/// What answers in place of a call that failed, all of it settled. Whoever knows the protocol carries it out; see
/// [`crate::Policy::run_or`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FallbackSettings {
    /// Whether the last answer that the cache still holds is used first.
    pub cache: bool,
    /// Another service that is asked the same.
    pub service: Option<String>,
    /// Whether that service gets all headers of the request, also those that say who asks.
    pub forward_headers: bool,
    /// A fixed answer, as JSON; used where there is no service, or that fails too.
    pub value: Option<serde_json::Value>,
    /// The part of the deadline kept back for it.
    pub reserve: Duration,
}

impl FallbackSettings {
    /// The part of the deadline kept back for a fallback unless something else is said.
    pub const RESERVE: Duration = Duration::from_millis(250);
}

/// Answers requests of type `R` that have failed for good. Any closure
/// `Fn(R, Result<T, E>, Deadline) -> impl Future` will do.
pub trait Fallback<R, T, E> {
    /// Whether there is anything to answer with: else no time is kept back.
    fn answers(&self) -> bool {
        true
    }

    /// The answer. `result` is what it replaces, to be looked at or handed on.
    fn answer(
        &self,
        request: R,
        result: Result<T, E>,
        deadline: Deadline,
    ) -> impl Future<Output = Result<T, E>> + Send;
}

impl<R, T, E, F, Answer> Fallback<R, T, E> for F
where
    F: Fn(R, Result<T, E>, Deadline) -> Answer,
    Answer: Future<Output = Result<T, E>> + Send,
{
    fn answer(
        &self,
        request: R,
        result: Result<T, E>,
        deadline: Deadline,
    ) -> impl Future<Output = Result<T, E>> + Send {
        self(request, result, deadline)
    }
}

/// Leaves results as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoFallback;

impl<R, T: Send, E: Send> Fallback<R, T, E> for NoFallback {
    fn answers(&self) -> bool {
        false
    }

    fn answer(
        &self,
        _: R,
        result: Result<T, E>,
        _: Deadline,
    ) -> impl Future<Output = Result<T, E>> + Send {
        std::future::ready(result)
    }
}
