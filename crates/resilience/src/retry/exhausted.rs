//! The end of a call that was tried more than once, or would have been.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use trunkline_core::{Error, Retry, duration};

/// Why there was no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stopped {
    /// All attempts were made.
    Attempts,
    /// The last failure is not one to repeat.
    Final,
    /// The budget that all callers of the destination share is used up.
    Budget,
    /// The next attempt would have begun too close to the deadline or after it.
    Deadline,
    /// The next attempt would have begun after `retry.max_elapsed`.
    Elapsed,
    /// The next attempt was refused here: open circuit, full bulkhead.
    Refused,
}

impl Stopped {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "no attempts are left",
            Self::Final => "the last failure is final",
            Self::Budget => "the retry budget is used up",
            Self::Deadline => "the deadline leaves no time for another attempt",
            Self::Elapsed => "retry.max_elapsed leaves no time for another attempt",
            Self::Refused => "the next attempt was refused here",
        }
    }
}

/// How one attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptFailure<E> {
    /// With an error.
    Error(E),
    /// With an answer that counts as a failure, in a few words.
    Answer(Cow<'static, str>),
}

impl<E: fmt::Display> fmt::Display for AttemptFailure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Answer(answer) => f.write_str(answer),
        }
    }
}

/// One attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedAttempt<E> {
    /// Its number; the first is 1.
    pub number: u32,
    /// How it failed.
    pub failure: AttemptFailure<E>,
    /// The wait that followed it; `None` for one of several beside each other that another has outlived.
    pub delay: Option<Duration>,
}

impl<E> FailedAttempt<E> {
    pub(crate) const fn new(
        number: u32,
        failure: AttemptFailure<E>,
        delay: Option<Duration>,
    ) -> Self {
        Self {
            number,
            failure,
            delay,
        }
    }
}

/// A call failed although it was tried again, or could not be tried again although that might have helped. It holds
/// every attempt; the source of the error is the last one's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryExhausted<E = Error> {
    /// The attempts before the last one, in order.
    pub earlier: Vec<FailedAttempt<E>>,
    /// The number of the last attempt.
    pub attempts: u32,
    /// How the last attempt failed.
    pub last: E,
    /// Why there was no further one.
    pub stopped: Stopped,
}

impl<E> RetryExhausted<E> {
    /// The end of a call after these attempts and a last one.
    #[must_use]
    pub const fn new(
        earlier: Vec<FailedAttempt<E>>,
        attempts: u32,
        last: E,
        stopped: Stopped,
    ) -> Self {
        Self {
            earlier,
            attempts,
            last,
            stopped,
        }
    }
}

impl<E> fmt::Display for RetryExhausted<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.attempts == 1 { "" } else { "s" };
        write!(
            f,
            "gave up after {} attempt{plural}: {}",
            self.attempts,
            self.stopped.as_str()
        )
    }
}

impl<E: std::error::Error + 'static> std::error::Error for RetryExhausted<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.last)
    }
}

/// The kind is that of the last error. A repetition is as safe as the least safe of the attempts.
impl From<RetryExhausted<Self>> for Error {
    fn from(exhausted: RetryExhausted<Self>) -> Self {
        let last = &exhausted.last;
        let maybe_processed = exhausted
            .earlier
            .iter()
            .any(|attempt| match &attempt.failure {
                AttemptFailure::Error(error) => error.retry() != Retry::Safe,
                AttemptFailure::Answer(_) => true,
            });
        let retry = match last.retry() {
            Retry::Safe if maybe_processed => Retry::IfIdempotent,
            other => other,
        };
        let mut error = Self::new(last.kind(), exhausted.to_string())
            .with_retry(retry)
            .with_origin(last.origin());
        if let Some(component) = last.component() {
            error = error.with_component(component.to_owned());
        }
        if let Some(operation) = last.operation() {
            error = error.with_operation(operation.to_owned());
        }
        for attempt in &exhausted.earlier {
            let text = match attempt.delay {
                Some(delay) => {
                    let delay = duration::format(legible(delay));
                    format!("{}, then waited {delay}", attempt.failure)
                }
                None => format!("{}, while another was under way", attempt.failure),
            };
            error = error.with_context(ordinal(attempt.number), text);
        }
        error.with_source(exhausted)
    }
}

/// Whole milliseconds where there are any: jitter makes delays of nine digits.
fn legible(span: Duration) -> Duration {
    match u64::try_from(span.as_millis()) {
        Ok(millis @ 1..) => Duration::from_millis(millis),
        _ => span,
    }
}

/// Names for the details of an error, which are fixed words.
const fn ordinal(number: u32) -> &'static str {
    match number {
        1 => "attempt_1",
        2 => "attempt_2",
        3 => "attempt_3",
        4 => "attempt_4",
        _ => "attempt_later",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_in_whole_milliseconds() {
        for (nanos, told) in [
            (0, "0s"),
            (999_999, "999999ns"),
            (727_767_583, "727ms"),
            (2_000_000_000, "2s"),
        ] {
            assert_eq!(duration::format(legible(Duration::from_nanos(nanos))), told);
        }
    }
}
