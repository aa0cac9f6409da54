//! What a timeout says.

use std::fmt;
use std::time::Duration;

use trunkline_core::{Error, Retry, duration};

/// Which limit ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// That of one attempt (`request_timeout`).
    Attempt,
    /// That of the whole call (`timeout.total`).
    Total,
    /// The caller's own deadline.
    Deadline,
}

impl Limit {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "the attempt's timeout",
            Self::Total => "the total timeout",
            Self::Deadline => "the caller's deadline",
        }
    }
}

/// The time allowed ran out. What was sent may have been processed.
#[doc(alias = "ServiceTimeoutError")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elapsed {
    /// Which limit it was.
    pub limit: Limit,
    /// How long the attempt was waited for.
    pub after: Duration,
}

impl Elapsed {
    /// A limit ended something after a time.
    #[must_use]
    pub const fn new(limit: Limit, after: Duration) -> Self {
        Self { limit, after }
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = Duration::from_millis(u64::try_from(self.after.as_millis()).unwrap_or(0));
        write!(
            f,
            "no answer within {}: {} ran out",
            duration::format(after),
            self.limit.as_str()
        )
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::timeout(elapsed.to_string())
            .with_retry(Retry::IfIdempotent)
            .with_source(elapsed)
    }
}

/// Too little of the deadline is left to begin: nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadlineTooShort {
    /// What is left.
    pub left: Duration,
    /// What an attempt needs at least (`timeout.floor`).
    pub floor: Duration,
}

impl DeadlineTooShort {
    pub(crate) const fn new(left: Duration, floor: Duration) -> Self {
        Self { left, floor }
    }
}

impl fmt::Display for DeadlineTooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not started: {} of the deadline left, at least {} needed",
            duration::format(self.left),
            duration::format(self.floor)
        )
    }
}

impl std::error::Error for DeadlineTooShort {}

impl From<DeadlineTooShort> for Error {
    fn from(short: DeadlineTooShort) -> Self {
        Self::timeout(short.to_string())
            .with_retry(Retry::Safe)
            .with_source(short)
    }
}
