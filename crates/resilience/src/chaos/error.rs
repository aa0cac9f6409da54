//! A failure that was made here.

use std::fmt;

use trunkline_core::{Error, ErrorKind, Origin, Retry};

use super::Fault;
use crate::config::ChaosErrorKind;

/// This failure was made on purpose, by the chaos policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InjectedFault {
    /// What was done.
    pub fault: Fault,
    /// As what it shows.
    pub kind: ChaosErrorKind,
}

impl InjectedFault {
    pub(super) const fn error(kind: ChaosErrorKind) -> Self {
        Self {
            fault: Fault::Error,
            kind,
        }
    }

    pub(super) const fn abort() -> Self {
        Self {
            fault: Fault::Abort,
            kind: ChaosErrorKind::Unavailable,
        }
    }
}

impl fmt::Display for InjectedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::Abort => f.write_str("chaos: the call was sent and its answer thrown away"),
            Fault::Error | Fault::Latency => {
                write!(f, "chaos: failed as {} on purpose", self.kind.as_str())
            }
        }
    }
}

impl std::error::Error for InjectedFault {}

impl From<InjectedFault> for Error {
    fn from(injected: InjectedFault) -> Self {
        let kind = match injected.kind {
            ChaosErrorKind::Unavailable => ErrorKind::Unavailable,
            ChaosErrorKind::Timeout => ErrorKind::Timeout,
            ChaosErrorKind::RateLimited => ErrorKind::RateLimited,
            ChaosErrorKind::Internal => ErrorKind::Internal,
        };
        let retry = match (injected.fault, injected.kind) {
            // As where no connection was made.
            (Fault::Error, ChaosErrorKind::Unavailable) => Retry::Safe,
            (_, ChaosErrorKind::Internal) => Retry::Never,
            _ => Retry::IfIdempotent,
        };
        let origin = match injected.kind {
            // As an answer that says so.
            ChaosErrorKind::RateLimited | ChaosErrorKind::Internal => Origin::Remote,
            ChaosErrorKind::Unavailable | ChaosErrorKind::Timeout => Origin::Local,
        };
        Self::new(kind, injected.to_string())
            .with_retry(retry)
            .with_origin(origin)
            .with_source(injected)
    }
}
