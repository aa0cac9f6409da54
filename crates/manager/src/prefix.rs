//! Services and what was done under a prefix, so that environments that share a registry or an inbox do not see each
//! other.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use trunkline_core::{Error, Result};
use trunkline_discovery::{
    AnyRegistry, AnyResolver, InstanceList, InstanceWatch, Lease, Registry, Resolver,
    ServiceInstance, ServiceName,
};
use trunkline_messaging::inbox::{AnyInbox, Claim, ClaimRequest, ClaimToken, InboxStore};

/// Announces and finds services under a prefix that neither callers nor their callees see.
#[derive(Clone)]
pub(crate) struct Prefixed<T> {
    inner: T,
    prefix: String,
}

impl<T> Prefixed<T> {
    pub(crate) fn new(inner: T, prefix: &str) -> Self {
        Self {
            inner,
            prefix: prefix.to_owned(),
        }
    }

    fn outside(&self, name: &ServiceName) -> Result<ServiceName> {
        ServiceName::new(format!("{}{name}", self.prefix))
    }

    /// The name as callers know it; `None` for what belongs to somebody else.
    fn inside(&self, name: &ServiceName) -> Option<ServiceName> {
        let prefix = self.prefix.to_ascii_lowercase().replace('_', "-");
        name.as_str()
            .strip_prefix(&prefix)
            .and_then(|own| ServiceName::new(own).ok())
    }

    fn announced(&self, mut instance: ServiceInstance) -> Result<ServiceInstance> {
        instance.name = self.outside(&instance.name)?;
        Ok(instance)
    }

    fn found(&self, list: InstanceList) -> InstanceList {
        let own = list.instances.into_iter().filter_map(|mut instance| {
            instance.name = self.inside(&instance.name)?;
            Some(instance)
        });
        InstanceList::new(own.collect(), list.revision)
    }
}

impl Registry for Prefixed<AnyRegistry> {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn register(&self, instance: ServiceInstance, ttl: Duration) -> Result<Lease> {
        self.inner.register(self.announced(instance)?, ttl).await
    }

    async fn renew(&self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        self.inner
            .renew(lease, &self.announced(instance.clone())?)
            .await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.inner.deregister(lease).await
    }

    async fn health_check(&self) -> Result<()> {
        self.inner.health_check().await
    }

    fn shortcoming(&self) -> Option<Error> {
        self.inner.shortcoming()
    }
}

impl Resolver for Prefixed<AnyResolver> {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        Ok(self.found(self.inner.resolve(&self.outside(service)?).await?))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let all = self.inner.services().await?;
        Ok(all.iter().filter_map(|name| self.inside(name)).collect())
    }

    async fn watch(&self, service: &ServiceName) -> Result<InstanceWatch> {
        let watch = self.inner.watch(&self.outside(service)?).await?;
        let prefixed = self.clone();
        Ok(InstanceWatch::new(
            watch.map(move |list| Ok::<_, Error>(prefixed.found(list?))),
        ))
    }

    fn polls(&self) -> bool {
        self.inner.polls()
    }
}

/// A token carries the scope of its claim, so that only claims need the prefix.
impl InboxStore for Prefixed<AnyInbox> {
    async fn claim(&self, mut request: ClaimRequest) -> Result<Claim> {
        request.scope.insert_str(0, &self.prefix);
        self.inner.claim(request).await
    }

    async fn complete(&self, token: ClaimToken, result: Bytes, keep: Duration) -> Result<()> {
        self.inner.complete(token, result, keep).await
    }

    async fn extend(&self, token: &ClaimToken, lease: Duration) -> Result<()> {
        self.inner.extend(token, lease).await
    }

    async fn release(&self, token: ClaimToken) -> Result<()> {
        self.inner.release(token).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_discovery::MemoryRegistry;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    #[tokio::test]
    async fn cfg11_environments_that_share_a_registry_do_not_see_each_other() {
        let shared = MemoryRegistry::new();
        let ttl = Duration::from_secs(10);
        for (prefix, port) in [("staging.", 1), ("production.", 2)] {
            let registry = Prefixed::new(AnyRegistry::new(shared.clone()), prefix);
            let instance = ServiceInstance::new(name("users"), "127.0.0.1", port);
            registry.register(instance, ttl).await.unwrap();
        }
        let staging = Prefixed::new(AnyResolver::new(shared.clone()), "staging.");
        assert_eq!(staging.services().await.unwrap(), [name("users")]);
        let found = staging.resolve(&name("users")).await.unwrap().instances;
        assert_eq!(
            (found.len(), found[0].port, found[0].name.as_str()),
            (1, 1, "users")
        );
        let mut watch = staging.watch(&name("users")).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().instances[0].port, 1);
        let outside: Vec<_> = shared.services().await.unwrap();
        assert_eq!(outside, [name("production.users"), name("staging.users")]);
    }
}
