//! What an adaptive concurrency limit says when it refuses.

use std::fmt;
use std::time::Duration;

use trunkline_core::{Error, Retry, duration};

use super::Priority;

/// As many calls run as the other side can take: this one was shed here and never left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overloaded {
    /// Calls that may run at once now.
    pub limit: u32,
    /// How much the call mattered. More important ones may still pass.
    pub priority: Priority,
    /// How long a call takes on the average: until then one of those that run has ended. Unknown at the beginning.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Overloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "overloaded: no room for calls of {} priority, {} may run at once",
            self.priority, self.limit
        )?;
        if let Some(after) = self.retry_after {
            // Whole milliseconds: nobody is helped by the nanoseconds.
            let after = Duration::from_millis(u64::try_from(after.as_millis()).unwrap_or(0).max(1));
            write!(f, ", next try in {}", duration::format(after))?;
        }
        Ok(())
    }
}

impl std::error::Error for Overloaded {}

impl From<Overloaded> for Error {
    fn from(overloaded: Overloaded) -> Self {
        Self::rejected(overloaded.to_string())
            .with_retry(Retry::Safe)
            .with_source(overloaded)
    }
}
