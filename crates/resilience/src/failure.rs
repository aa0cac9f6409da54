//! What the result of an attempt means to the policies.
//!
//! A breaker asks whether it speaks against the other side, a retry whether another attempt could do better and could
//! do harm. Both ask a [`Classify`]; [`Standard`] knows [`trunkline_core::Error`], and any closure from a result to an
//! [`Outcome`] will do, so that an `Ok` may count as a failure and an `Err` may not.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use trunkline_core::{BoxError, Error, ErrorKind, Retry};

use crate::breaker::{CircuitOpen, LateReport};
use crate::bulkhead::BulkheadFull;
use crate::call::Attempt;
use crate::concurrency::Overloaded;
use crate::ratelimit::RateLimited;
use crate::retry::{FailedAttempt, RetryExhausted, Stopped};
use crate::timeout::DeadlineTooShort;

/// What a result says about the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// Nothing: the call never left, or the caller gave up.
    Ignored,
}

/// Judges results of type `R`, most often a `Result`.
///
/// ```
/// use trunkline_resilience::{Classify, Outcome};
///
/// struct Response { status: u16 }
/// let by_status = |result: &Result<Response, std::io::Error>| match result {
///     Ok(response) if response.status >= 500 => Outcome::Failure,
///     Ok(_) => Outcome::Success,
///     Err(_) => Outcome::Failure,
/// };
/// assert_eq!(by_status.outcome(&Ok(Response { status: 503 })), Outcome::Failure);
/// ```
pub trait Classify<R: ?Sized> {
    /// What the result says about the other side.
    fn outcome(&self, result: &R) -> Outcome;

    /// Whether the same may be tried again. Unless said otherwise a failure may have been processed, and everything
    /// else is final.
    fn retry(&self, result: &R) -> Retry {
        match self.outcome(result) {
            Outcome::Failure => Retry::IfIdempotent,
            Outcome::Success | Outcome::Ignored => Retry::Never,
        }
    }

    /// Whether what went wrong is that there was too little time, whoever noticed it. It does not count against the other
    /// side where the caller gave next to none. Unless said otherwise: never.
    fn ran_out_of_time(&self, result: &R) -> bool {
        let _ = result;
        false
    }

    /// Whether a success is not the end of it, such as an answer of which the body is still to come and may break off. Where
    /// it says so, [`hand_over`](Self::hand_over) is given the report to the circuit. Probes of a half-open circuit are judged
    /// by how they begin, and not asked about. Unless said otherwise: never.
    fn goes_on(&self, result: &mut R) -> bool {
        let _ = result;
        false
    }

    /// Takes the report to the circuit of a result that [goes on](Self::goes_on): it is to be made when that ends, and speaks
    /// neither way when it is dropped. Unless said otherwise, the circuit counts a success.
    fn hand_over(&self, result: &mut R, attempt: &Attempt, report: LateReport) {
        let _ = (result, attempt);
        report.record(Outcome::Success);
    }

    /// Whether the failure of this attempt is that of one place that the others do without, and so not counted by the
    /// circuit of them all. Asked also where the attempt was cut off by its time. Unless said otherwise: never.
    fn concerns_one_place(&self, attempt: &Attempt) -> bool {
        let _ = attempt;
        false
    }

    /// What kind of error it is, where somebody chooses by that what is repeated. Unless said otherwise: none.
    fn kind(&self, result: &R) -> Option<ErrorKind> {
        let _ = result;
        None
    }

    /// Whether what went wrong is that the other side has more to do than it can. Unless said otherwise: when it ran out of
    /// time.
    fn is_overload(&self, result: &R) -> bool {
        self.ran_out_of_time(result)
    }

    /// How long the other side asked us to wait before the next attempt.
    fn retry_after(&self, result: &R) -> Option<Duration> {
        let _ = result;
        None
    }

    /// Whether a fallback had better answer in place of this final result. Unless said otherwise: whenever it is not a
    /// success.
    fn wants_fallback(&self, result: &R) -> bool {
        self.outcome(result) != Outcome::Success
    }

    /// Attempts that were made beyond those that the policy has asked for. They count like any other. Unless said otherwise:
    /// none.
    fn unasked(&self) -> u32 {
        0
    }

    /// Told of a final answer that another attempt might have mended, or that ends several: with those before it, how many
    /// were made in all, and why there was no further one. An error has them in its [`crate::RetryExhausted`]; an answer has
    /// a place for them only if somebody finds one. Unless said otherwise: nobody does.
    fn gave_up(
        &self,
        result: &mut R,
        earlier: Vec<FailedAttempt<R::Error>>,
        attempts: u32,
        stopped: Stopped,
    ) where
        R: Fallible,
    {
        let _ = (result, earlier, attempts, stopped);
    }

    /// The result in a few words, for the list of attempts in [`crate::RetryExhausted`] where it is not an error.
    fn describe(&self, result: &R) -> Cow<'static, str> {
        let _ = result;
        Cow::Borrowed("counted as a failure")
    }
}

/// What may be an error of some type.
pub trait Fallible {
    /// That type.
    type Error;
}

impl<T, E> Fallible for Result<T, E> {
    type Error = E;
}

impl<R: ?Sized, F: Fn(&R) -> Outcome> Classify<R> for F {
    fn outcome(&self, result: &R) -> Outcome {
        self(result)
    }
}

/// Judges errors by what they are and counts every `Ok` as a success.
///
/// For [`trunkline_core::Error`], also inside a [`BoxError`]: connection errors, timeouts, `Unavailable`,
/// `RateLimited` and faults of the other side are failures; what was refused here, before anything left, and what the
/// caller cancelled is ignored; every other answer shows that the other side works. Whether a repetition is safe is
/// what the error itself says. Errors of other types are failures that may have been processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standard;

impl<T, E: 'static> Classify<Result<T, E>> for Standard {
    fn outcome(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(error) => known(error).map_or(Outcome::Failure, outcome_of),
        }
    }

    fn retry(&self, result: &Result<T, E>) -> Retry {
        match result {
            Ok(_) => Retry::Never,
            Err(error) => known(error).map_or(Retry::IfIdempotent, retry_of),
        }
    }

    fn ran_out_of_time(&self, result: &Result<T, E>) -> bool {
        let error = result.as_ref().err().and_then(known);
        error.is_some_and(|error| error.kind() == ErrorKind::Timeout)
    }

    fn kind(&self, result: &Result<T, E>) -> Option<ErrorKind> {
        result.as_ref().err().and_then(known).map(Error::kind)
    }

    fn is_overload(&self, result: &Result<T, E>) -> bool {
        let error = result.as_ref().err().and_then(known);
        error.is_some_and(|error| match error.kind() {
            ErrorKind::Timeout | ErrorKind::RateLimited => true,
            ErrorKind::Exhausted => error.origin() == trunkline_core::Origin::Remote,
            _ => false,
        })
    }

    fn retry_after(&self, result: &Result<T, E>) -> Option<Duration> {
        let error = known(result.as_ref().err()?)?;
        error.find::<RetryAfter>().map(|hint| hint.0)
    }

    fn wants_fallback(&self, result: &Result<T, E>) -> bool {
        match result {
            Ok(_) => false,
            Err(error) => known(error).is_none_or(replaceable),
        }
    }
}

/// What was refused here, or failed at the other side, may be answered by somebody else; a mistake of ours is not to be
/// covered up.
fn replaceable(error: &Error) -> bool {
    error.kind() == ErrorKind::Rejected
        || said_by_kind(error) == Outcome::Failure
        || error.find::<DeadlineTooShort>().is_some()
}

/// The Trunkline error that this error is or carries. The comparison of types is settled when this is compiled.
fn known<E: 'static>(error: &E) -> Option<&Error> {
    let error: &dyn Any = error;
    if let Some(own) = error.downcast_ref::<Error>() {
        return Some(own);
    }
    error.downcast_ref::<BoxError>()?.downcast_ref::<Error>()
}

/// What an error says about the other side, by the rule of [`Standard`].
fn outcome_of(error: &Error) -> Outcome {
    // Whoever says so works; its own circuits know what does not. Were it counted, the circuits of all tiers would open and
    // a probe of one would be refused by the next, which opens it again.
    if error.find::<RetriedBelow>().is_some() {
        return Outcome::Ignored;
    }
    said_by_kind(error)
}

fn said_by_kind(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::Rejected | ErrorKind::Cancelled | ErrorKind::Config | ErrorKind::Unsupported => {
            Outcome::Ignored
        }
        // Too little time was left to begin: nobody was asked.
        ErrorKind::Timeout if error.find::<DeadlineTooShort>().is_some() => Outcome::Ignored,
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited => Outcome::Failure,
        ErrorKind::Internal | ErrorKind::Exhausted
            if error.origin() == trunkline_core::Origin::Remote =>
        {
            Outcome::Failure
        }
        // A fault of our own before or after the call says nothing about the other side.
        ErrorKind::Internal | ErrorKind::Exhausted => Outcome::Ignored,
        _ => Outcome::Success,
    }
}

/// What an error says about a repetition: its own word, except that whoever was refused by an open circuit or a full
/// bulkhead fails at once, which is what those are for, and that what was retried below is not retried above. (To the
/// caller of the call the error still says whether something was processed.)
fn retry_of(error: &Error) -> Retry {
    let refused = error.find::<CircuitOpen>().is_some()
        || error.find::<RateLimited>().is_some()
        || error.find::<BulkheadFull>().is_some()
        || error.find::<Overloaded>().is_some();
    if refused || RetriedBelow::is_in(error) {
        return Retry::Never;
    }
    error.retry()
}

/// How long whoever was refused had better wait: what the other side asked for ([`RetryAfter`]), or what the circuit, the
/// rate limit or the concurrency limit that refused it knows. `None` where nobody knows.
#[must_use]
pub fn retry_after(error: &Error) -> Option<Duration> {
    let asked = error.find::<RetryAfter>().map(|asked| asked.0);
    let open = || error.find::<CircuitOpen>().map(|open| open.retry_after);
    let limited = || {
        error
            .find::<RateLimited>()
            .map(|limited| limited.retry_after)
    };
    let shed = || error.find::<Overloaded>().and_then(|shed| shed.retry_after);
    asked.or_else(open).or_else(limited).or_else(shed)
}

/// Whoever was asked has called on in vain, and has dealt with that: retried and given up, or was refused by its own open
/// circuit. A typed cause for [`Error::with_source`].
///
/// It is not retried: retries at each of three tiers would make 27 attempts of one request just when the last tier is in
/// trouble, so only the tier next to the trouble retries. And it speaks neither for nor against who was asked: only the
/// circuit next to the trouble opens, and when that closes all tiers work again.
///
/// ```
/// use trunkline_core::{Error, Retry};
/// use trunkline_resilience::{Classify, Outcome, RetriedBelow, Standard};
///
/// let answered = Err::<(), _>(Error::unavailable("503 from users").with_source(RetriedBelow));
/// assert_eq!(Standard.retry(&answered), Retry::Never);
/// assert_eq!(Standard.outcome(&answered), Outcome::Ignored);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetriedBelow;

impl RetriedBelow {
    /// Whether an error says that retries and circuits, here or there, have had their say: what is answered because of it
    /// should carry this mark.
    #[must_use]
    pub fn is_in(error: &Error) -> bool {
        error.find::<Self>().is_some()
            || error.find::<RetryExhausted>().is_some()
            || error.find::<CircuitOpen>().is_some()
    }
}

impl fmt::Display for RetriedBelow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("who was asked has retried already, or has its own circuit open")
    }
}

impl std::error::Error for RetriedBelow {}

/// The other side asked for a pause before the next attempt: a typed cause for [`Error::with_source`].
///
/// ```
/// use std::time::Duration;
/// use trunkline_core::{Error, ErrorKind};
/// use trunkline_resilience::RetryAfter;
///
/// let error = Error::new(ErrorKind::RateLimited, "429 from users")
///     .with_source(RetryAfter(Duration::from_secs(2)));
/// assert_eq!(error.find::<RetryAfter>().map(|hint| hint.0), Some(Duration::from_secs(2)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub Duration);

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = trunkline_core::duration::format(self.0);
        write!(f, "asked to wait {span} before the next attempt")
    }
}

impl std::error::Error for RetryAfter {}
