//! Any registry and any resolver, behind cheap handles.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use trunkline_core::task::catch_panic;
use trunkline_core::{BoxFuture, Error, Result};

use crate::instance::{ServiceInstance, ServiceName};
use crate::registry::{Lease, Registry};
use crate::resolver::{InstanceList, InstanceWatch, Resolver};

trait DynRegistry: Send + Sync {
    fn kind_dyn(&self) -> &'static str;
    fn register_dyn(
        &self,
        instance: ServiceInstance,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<Lease>>;
    fn renew_dyn<'a>(
        &'a self,
        lease: &'a Lease,
        instance: &'a ServiceInstance,
    ) -> BoxFuture<'a, Result<()>>;
    fn deregister_dyn<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>>;
    fn health_check_dyn(&self) -> BoxFuture<'_, Result<()>>;
    fn shortcoming_dyn(&self) -> Option<Error>;
}

impl<R: Registry> DynRegistry for R {
    fn kind_dyn(&self) -> &'static str {
        self.kind()
    }

    fn register_dyn(
        &self,
        instance: ServiceInstance,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<Lease>> {
        Box::pin(self.register(instance, ttl))
    }

    fn renew_dyn<'a>(
        &'a self,
        lease: &'a Lease,
        instance: &'a ServiceInstance,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.renew(lease, instance))
    }

    fn deregister_dyn<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.deregister(lease))
    }

    fn health_check_dyn(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.health_check())
    }

    fn shortcoming_dyn(&self) -> Option<Error> {
        self.shortcoming()
    }
}

/// Any registry; cloning copies a pointer.
#[derive(Clone)]
pub struct AnyRegistry(Arc<dyn DynRegistry>);

impl AnyRegistry {
    /// Erases a registry.
    #[must_use]
    pub fn new(registry: impl Registry) -> Self {
        registry.erase()
    }

    pub(crate) fn of(registry: impl Registry) -> Self {
        Self(Arc::new(registry))
    }
}

impl fmt::Debug for AnyRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyRegistry").field(&self.kind()).finish()
    }
}

impl Registry for AnyRegistry {
    fn kind(&self) -> &'static str {
        self.0.kind_dyn()
    }

    async fn register(&self, instance: ServiceInstance, ttl: Duration) -> Result<Lease> {
        caught(self.0.register_dyn(instance, ttl)).await
    }

    async fn renew(&self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        caught(self.0.renew_dyn(lease, instance)).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        caught(self.0.deregister_dyn(lease)).await
    }

    async fn health_check(&self) -> Result<()> {
        caught(self.0.health_check_dyn()).await
    }

    fn shortcoming(&self) -> Option<Error> {
        self.0.shortcoming_dyn()
    }

    fn erase(self) -> AnyRegistry {
        self
    }
}

trait DynResolver: Send + Sync {
    fn kind_dyn(&self) -> &'static str;
    fn resolve_dyn<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<InstanceList>>;
    fn services_dyn(&self) -> BoxFuture<'_, Result<Vec<ServiceName>>>;
    fn watch_dyn<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<InstanceWatch>>;
    fn polls_dyn(&self) -> bool;
}

impl<R: Resolver> DynResolver for R {
    fn kind_dyn(&self) -> &'static str {
        self.kind()
    }

    fn resolve_dyn<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<InstanceList>> {
        Box::pin(self.resolve(service))
    }

    fn services_dyn(&self) -> BoxFuture<'_, Result<Vec<ServiceName>>> {
        Box::pin(self.services())
    }

    fn watch_dyn<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<InstanceWatch>> {
        Box::pin(self.watch(service))
    }

    fn polls_dyn(&self) -> bool {
        self.polls()
    }
}

/// Any resolver; cloning copies a pointer.
#[derive(Clone)]
pub struct AnyResolver(Arc<dyn DynResolver>);

impl AnyResolver {
    /// Erases a resolver.
    #[must_use]
    pub fn new(resolver: impl Resolver) -> Self {
        resolver.erase()
    }

    pub(crate) fn of(resolver: impl Resolver) -> Self {
        Self(Arc::new(resolver))
    }
}

impl fmt::Debug for AnyResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyResolver").field(&self.kind()).finish()
    }
}

impl Resolver for AnyResolver {
    fn kind(&self) -> &'static str {
        self.0.kind_dyn()
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        caught(self.0.resolve_dyn(service)).await
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        caught(self.0.services_dyn()).await
    }

    async fn watch(&self, service: &ServiceName) -> Result<InstanceWatch> {
        caught(self.0.watch_dyn(service)).await
    }

    fn polls(&self) -> bool {
        self.0.polls_dyn()
    }

    fn erase(self) -> AnyResolver {
        self
    }
}

/// Whoever keeps asking goes on after a panic within, as after any other error.
async fn caught<T>(question: BoxFuture<'_, Result<T>>) -> Result<T> {
    catch_panic(question).await?
}
