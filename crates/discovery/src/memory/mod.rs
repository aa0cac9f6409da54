//! A registry in this process: for tests, for the kind `memory`, and beneath the static list.

mod state;
mod watch;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch as signal;
use tokio::time::Instant;
use trunkline_core::{Error, Result};

use crate::instance::{ServiceInstance, ServiceName};
use crate::registry::{Lease, Registry};
use crate::resolver::{InstanceList, InstanceWatch, Resolver};
use state::State;

/// A registry and resolver in this process; clones share it.
///
/// ```
/// use std::time::Duration;
/// use trunkline_discovery::{MemoryRegistry, Registry, Resolver, ServiceInstance, ServiceName};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let registry = MemoryRegistry::new();
/// let users = ServiceName::new("users")?;
/// let instance = ServiceInstance::new(users.clone(), "127.0.0.1", 8001);
/// let lease = registry.register(instance, Duration::from_secs(10)).await?;
/// assert_eq!(registry.resolve(&users).await?.instances.len(), 1);
/// registry.deregister(&lease).await?;
/// assert!(registry.resolve(&users).await?.instances.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryRegistry(Arc<Shared>);

struct Shared {
    kind: &'static str,
    state: Mutex<State>,
    /// Tells watches to look again.
    changed: signal::Sender<()>,
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryRegistry {
    /// A registry without instances.
    #[must_use]
    pub fn new() -> Self {
        Self::of_kind("memory", Vec::new())
    }

    /// With instances that need no renewal.
    pub(crate) fn of_kind(kind: &'static str, permanent: Vec<ServiceInstance>) -> Self {
        let mut state = State::default();
        for instance in permanent {
            state.put(instance, None);
        }
        Self(Arc::new(Shared {
            kind,
            state: Mutex::new(state),
            changed: signal::Sender::new(()),
        }))
    }

    /// Shuts the registry down: watches end, and every call fails with `Cancelled`.
    pub fn shutdown(&self) {
        self.lock().closed = true;
        self.0.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with what stands now, and tells the watches when that changed anything.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::cancelled("the registry was shut down"));
        }
        let before = state.revision();
        state.expire(Instant::now());
        let result = work(&mut state);
        if state.revision() != before {
            self.0.changed.send_replace(());
        }
        result
    }
}

impl fmt::Debug for MemoryRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryRegistry").field(&self.0.kind).finish()
    }
}

impl Registry for MemoryRegistry {
    fn kind(&self) -> &'static str {
        self.0.kind
    }

    async fn register(&self, instance: ServiceInstance, ttl: Duration) -> Result<Lease> {
        instance.validate()?;
        if ttl.is_zero() {
            return Err(Error::invalid("a registration must last longer than 0 s"));
        }
        self.with(|state| {
            let id = instance.id.clone();
            state.check_free(&id)?;
            let token = state.put(instance, Some(ttl));
            Ok(Lease::new(id, token.to_string(), ttl))
        })
    }

    async fn renew(&self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        instance.validate()?;
        self.with(|state| state.renew(lease, instance))
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.with(|state| {
            state.remove(lease);
            Ok(())
        })
    }

    async fn health_check(&self) -> Result<()> {
        self.with(|_| Ok(()))
    }
}

impl Resolver for MemoryRegistry {
    fn kind(&self) -> &'static str {
        self.0.kind
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        self.with(|state| Ok(state.list(service)))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.with(|state| Ok(state.services()))
    }

    async fn watch(&self, service: &ServiceName) -> Result<InstanceWatch> {
        self.with(|_| Ok(()))?;
        Ok(InstanceWatch::new(watch::lists(
            self.clone(),
            service.clone(),
        )))
    }
}
