//! Where in its life a manager is.

use trunkline_core::{Error, Result};

/// Where in its life a manager is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Made, or back there after a failed start.
    New,
    /// Running.
    Initialized,
    /// Ended for good.
    Shutdown,
}

impl Phase {
    /// Whether a start has work to do.
    pub(crate) fn may_start(self) -> Result<bool> {
        match self {
            Self::New => Ok(true),
            Self::Initialized => Ok(false),
            Self::Shutdown => Err(Error::cancelled(
                "this manager was shut down and cannot be started again; make a new one",
            )),
        }
    }
}
