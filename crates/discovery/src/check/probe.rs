//! Asking one instance whether it is well.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use trunkline_core::{BoxFuture, Result};

use crate::config::HealthCheckConfig;
use crate::instance::ServiceInstance;

/// Asks an instance whether it is well.
pub trait Probe: Send + Sync + Sized + 'static {
    /// Asks. The caller limits the time.
    ///
    /// Errors: any, when the instance is not well or did not answer. One of [`Origin::Remote`](trunkline_core::Origin::Remote)
    /// says that the instance itself has answered so, and is believed at once; any other counts towards
    /// [`failure_threshold`](HealthCheckConfig::failure_threshold). Cancel safe.
    fn probe(&self, instance: &ServiceInstance) -> impl Future<Output = Result<()>> + Send;

    /// Asks in the way that the settings say: [`kind`](HealthCheckConfig::kind). A probe that knows one way alone, as by
    /// default, asks in that.
    ///
    /// Errors: any, when the instance is not well or did not answer. Cancel safe.
    fn probe_by(
        &self,
        instance: &ServiceInstance,
        settings: &HealthCheckConfig,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = settings;
        self.probe(instance)
    }

    /// Erases the type. Erasing twice gives the same handle.
    fn erase(self) -> AnyProbe {
        AnyProbe(Arc::new(self))
    }
}

trait DynProbe: Send + Sync {
    fn probe_dyn<'a>(&'a self, instance: &'a ServiceInstance) -> BoxFuture<'a, Result<()>>;

    fn probe_by_dyn<'a>(
        &'a self,
        instance: &'a ServiceInstance,
        settings: &'a HealthCheckConfig,
    ) -> BoxFuture<'a, Result<()>>;
}

impl<P: Probe> DynProbe for P {
    fn probe_dyn<'a>(&'a self, instance: &'a ServiceInstance) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.probe(instance))
    }

    fn probe_by_dyn<'a>(
        &'a self,
        instance: &'a ServiceInstance,
        settings: &'a HealthCheckConfig,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.probe_by(instance, settings))
    }
}

/// Any probe; cloning copies a pointer.
#[derive(Clone)]
pub struct AnyProbe(Arc<dyn DynProbe>);

impl AnyProbe {
    /// Erases a probe.
    #[must_use]
    pub fn new(probe: impl Probe) -> Self {
        probe.erase()
    }
}

impl Probe for AnyProbe {
    async fn probe(&self, instance: &ServiceInstance) -> Result<()> {
        self.0.probe_dyn(instance).await
    }

    async fn probe_by(
        &self,
        instance: &ServiceInstance,
        settings: &HealthCheckConfig,
    ) -> Result<()> {
        self.0.probe_by_dyn(instance, settings).await
    }

    fn erase(self) -> AnyProbe {
        self
    }
}

impl fmt::Debug for AnyProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyProbe")
    }
}
