//! Where in its life a manager is.

use trunkline_core::{Error, Result};

/// Where in its life a manager is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Made, not started.
    New,
    /// Running.
    Initialized,
    /// Ended for good, by a stop or by a start that failed.
    Shutdown,
}

impl Phase {
    /// Whether a start has work to do.
    pub(crate) fn may_start(self) -> Result<bool> {
        match self {
            Self::New => Ok(true),
            Self::Initialized => Ok(false),
            Self::Shutdown => Err(Error::cancelled(
                "this manager was shut down, or its start failed; it cannot be started again: make a new one",
            )),
        }
    }
}
