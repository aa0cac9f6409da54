//! What a breaker says when it refuses.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use trunkline_core::{Error, Retry, duration};

use crate::target::Target;

/// The circuit is open: the call was refused here and never left.
#[doc(alias = "CircuitOpenError")]
#[doc(alias = "CircuitBreakerOpenError")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitOpen {
    /// The service that keeps failing.
    pub service: Arc<str>,
    /// Its endpoint, where the circuit is one endpoint's.
    pub endpoint: Option<Arc<str>>,
    /// The instance, where the circuit is that of one: of several that refuse, it is none.
    pub instance: Option<Arc<str>>,
    /// Its version, where the circuit is one version's.
    pub version: Option<Arc<str>>,
    /// Time until the next call has a chance; while probes are under way, a guess.
    pub retry_after: Duration,
}

impl CircuitOpen {
    pub(super) fn new(target: &Target, retry_after: Duration) -> Self {
        Self {
            service: Arc::clone(&target.service),
            endpoint: target.endpoint.clone(),
            instance: target.instance.clone(),
            version: target.version.clone(),
            retry_after,
        }
    }
}

impl fmt::Display for CircuitOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "circuit of {}", self.service)?;
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        if let Some(instance) = &self.instance {
            write!(f, " at {instance}")?;
        }
        f.write_str(" is open")?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, " for {endpoint}")?;
        }
        // Whole milliseconds: nobody is helped by the nanoseconds that are left.
        let left = Duration::from_millis(u64::try_from(self.retry_after.as_millis()).unwrap_or(0));
        write!(f, ", next try in {}", duration::format(left))
    }
}

impl std::error::Error for CircuitOpen {}

impl From<CircuitOpen> for Error {
    fn from(open: CircuitOpen) -> Self {
        Self::rejected(open.to_string())
            .with_retry(Retry::Safe)
            .with_source(open)
    }
}

/// The error of [`super::Breaker::call`]: the breaker's own, or that of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError<E> {
    /// Refused by the breaker.
    Open(CircuitOpen),
    /// What the call returned.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(open) => open.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(_) => None,
            Self::Failed(error) => error.source(),
        }
    }
}

impl From<CallError<Self>> for Error {
    fn from(error: CallError<Self>) -> Self {
        match error {
            CallError::Open(open) => open.into(),
            CallError::Failed(error) => error,
        }
    }
}
