//! Announcing an instance.

use std::future::Future;
use std::time::Duration;

use trunkline_core::{Error, Result};

use crate::erased::AnyRegistry;
use crate::instance::ServiceInstance;

/// A place where instances are announced for as long as they renew.
///
/// Implementations announce and renew; supervision (when to renew, what to do when a lease is lost) is done once, above
/// the trait. After shutdown every call fails with `Cancelled`.
pub trait Registry: Send + Sync + Sized + 'static {
    /// The kind of registry, as configuration names it.
    fn kind(&self) -> &'static str;

    /// Announces an instance. It disappears by itself when it is not renewed within `ttl`. Announcing an id again
    /// replaces the older announcement and its lease.
    ///
    /// Errors: `Unsupported` where instances are not announced by themselves; `Unavailable`, `Timeout`, `Invalid`,
    /// `Unauthenticated`. When dropped, the announcement may stand until its time is over.
    fn register(
        &self,
        instance: ServiceInstance,
        ttl: Duration,
    ) -> impl Future<Output = Result<Lease>> + Send;

    /// Keeps an announcement for another `ttl`, with the instance's present state (status, weight, metadata).
    ///
    /// Errors: `NotFound` when the lease is gone: register again. `Unavailable`, `Timeout`: try again. Cancel safe.
    fn renew(
        &self,
        lease: &Lease,
        instance: &ServiceInstance,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Withdraws an announcement. Does nothing when it is gone already.
    ///
    /// Errors: `Unavailable`, `Timeout`. Cancel safe: may be called again.
    fn deregister(&self, lease: &Lease) -> impl Future<Output = Result<()>> + Send;

    /// Asks the registry itself whether it works. Cancel safe.
    fn health_check(&self) -> impl Future<Output = Result<()>> + Send;

    /// What it passes by although it works, such as a part that it may not read. Health tells it as degraded.
    fn shortcoming(&self) -> Option<Error> {
        None
    }

    /// Erases the type. Erasing twice gives the same handle.
    fn erase(self) -> AnyRegistry {
        AnyRegistry::of(self)
    }
}

/// An announcement that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The instance announced.
    pub instance_id: String,
    /// What the backend knows it by. Empty, it stands for whichever announcement of the instance there is: so an operator
    /// withdraws what somebody else announced.
    pub token: String,
    /// How long it stands without renewal.
    pub ttl: Duration,
}

impl Lease {
    /// Puts one together; for backends.
    #[must_use]
    pub fn new(instance_id: impl Into<String>, token: impl Into<String>, ttl: Duration) -> Self {
        Self {
            instance_id: instance_id.into(),
            token: token.into(),
            ttl,
        }
    }
}
