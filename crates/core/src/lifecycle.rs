//! How a component starts, becomes ready, drains and stops.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use crate::{BoxFuture, Result};

/// What every component of a manager can do. The manager calls the phases in order of dependency when starting and in
/// the reverse order when stopping.
///
/// After `shutdown` every other call fails with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
pub trait Lifecycle: Send + Sync + 'static {
    /// Begins to work: opens connections, spawns tasks. Called twice it does nothing the second time. A failed start
    /// leaves nothing behind.
    ///
    /// Not cancel safe: call `shutdown` after dropping it.
    fn start(&self) -> impl Future<Output = Result<()>> + Send;

    /// Waits until the component can serve. Cancel safe.
    fn ready(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Takes no new work and lets what runs finish, until the deadline. What it needs to send still works.
    ///
    /// Cancel safe: may be called again.
    fn drain(&self, deadline: Instant) -> impl Future<Output = Result<()>> + Send {
        let _ = deadline;
        async { Ok(()) }
    }

    /// Stops for good, at the latest at the deadline. Called twice it does nothing the second time.
    fn shutdown(&self, deadline: Instant) -> impl Future<Output = Result<()>> + Send;
}

trait DynLifecycle: Send + Sync + 'static {
    fn start_dyn(&self) -> BoxFuture<'_, Result<()>>;
    fn ready_dyn(&self) -> BoxFuture<'_, Result<()>>;
    fn drain_dyn(&self, deadline: Instant) -> BoxFuture<'_, Result<()>>;
    fn shutdown_dyn(&self, deadline: Instant) -> BoxFuture<'_, Result<()>>;
}

impl<L: Lifecycle> DynLifecycle for L {
    fn start_dyn(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.start())
    }

    fn ready_dyn(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.ready())
    }

    fn drain_dyn(&self, deadline: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.drain(deadline))
    }

    fn shutdown_dyn(&self, deadline: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.shutdown(deadline))
    }
}

/// Any component, erased.
#[derive(Clone)]
pub struct AnyLifecycle(Arc<dyn DynLifecycle>);

impl AnyLifecycle {
    /// Erases a component.
    #[must_use]
    pub fn new(component: impl Lifecycle) -> Self {
        Self(Arc::new(component))
    }
}

impl std::fmt::Debug for AnyLifecycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnyLifecycle")
    }
}

impl Lifecycle for AnyLifecycle {
    async fn start(&self) -> Result<()> {
        self.0.start_dyn().await
    }

    async fn ready(&self) -> Result<()> {
        self.0.ready_dyn().await
    }

    async fn drain(&self, deadline: Instant) -> Result<()> {
        self.0.drain_dyn(deadline).await
    }

    async fn shutdown(&self, deadline: Instant) -> Result<()> {
        self.0.shutdown_dyn(deadline).await
    }
}
