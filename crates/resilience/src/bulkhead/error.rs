//! What a bulkhead says when it refuses.

use std::fmt;
use std::time::Duration;

use trunkline_core::{Error, Retry, duration};

use super::BulkheadSettings;

/// What was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Full {
    /// As many wait already as may.
    Queue,
    /// No place became free in the time allowed.
    Wait,
}

/// Too many calls run and wait: this one was refused here and never left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkheadFull {
    /// What was full.
    pub full: Full,
    /// Calls that may run at once.
    pub max_concurrent: u32,
    /// Calls that may wait.
    pub max_queue: u32,
    /// How long this one waited.
    pub waited: Duration,
}

impl BulkheadFull {
    pub(super) fn new(full: Full, settings: BulkheadSettings, waited: Duration) -> Self {
        Self {
            full,
            max_concurrent: settings.max_concurrent,
            max_queue: settings.max_queue,
            waited,
        }
    }
}

impl fmt::Display for BulkheadFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bulkhead is full: {} calls run", self.max_concurrent)?;
        match self.full {
            Full::Queue => write!(f, " and {} wait", self.max_queue),
            Full::Wait => {
                let waited = u64::try_from(self.waited.as_millis()).unwrap_or(0);
                let waited = duration::format(Duration::from_millis(waited));
                write!(f, ", no place in {waited}")
            }
        }
    }
}

impl std::error::Error for BulkheadFull {}

impl From<BulkheadFull> for Error {
    fn from(full: BulkheadFull) -> Self {
        Self::rejected(full.to_string())
            .with_retry(Retry::Safe)
            .with_source(full)
    }
}
