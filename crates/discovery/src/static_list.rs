//! Instances that the configuration names.

use std::collections::HashMap;
use std::time::Duration;

use trunkline_core::{Error, Result};

use crate::config::ServiceConfig;
use crate::instance::{ServiceInstance, ServiceName};
use crate::memory::MemoryRegistry;
use crate::registry::{Lease, Registry};
use crate::resolver::{InstanceList, InstanceWatch, Resolver};

/// The kind `static`: the instances that the configuration names, for as long as the process runs. What registers here
/// as well is seen by this process alone, for as long as it is renewed, and cannot take the place of what the configuration
/// names.
///
/// ```
/// use trunkline_discovery::{Resolver, ServiceConfig, ServiceName, StaticList};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let services = [("payment_service", ServiceConfig::at("payments.example.com", 8080))];
/// let list = StaticList::from_config(services)?;
/// let found = list.resolve(&ServiceName::new("payment-service")?).await?;
/// assert_eq!(found.instances[0].authority(), "payments.example.com:8080");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct StaticList(MemoryRegistry);

impl StaticList {
    /// These instances. Of two with the same id the later one stays.
    ///
    /// # Errors
    /// `Invalid` when an instance is not sound; see [`ServiceInstance::validate`].
    pub fn new(instances: Vec<ServiceInstance>) -> Result<Self> {
        for instance in &instances {
            instance.validate()?;
        }
        Ok(Self(MemoryRegistry::of_kind("static", instances)))
    }

    /// The services of the configuration that have a host.
    ///
    /// # Errors
    /// `Config` naming the service when its name or its instance is not sound, or is there in two spellings.
    pub fn from_config<N: AsRef<str>>(
        services: impl IntoIterator<Item = (N, ServiceConfig)>,
    ) -> Result<Self> {
        Self::new(instances_of(services)?)
    }

    /// Shuts the list down: watches end, and every call fails with `Cancelled`.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}

/// The instances that the configuration of services names.
pub(crate) fn instances_of<N: AsRef<str>>(
    services: impl IntoIterator<Item = (N, ServiceConfig)>,
) -> Result<Vec<ServiceInstance>> {
    let mut instances = Vec::new();
    let mut spelled: HashMap<ServiceName, N> = HashMap::new();
    for (name, config) in services {
        let named = |error: Error| {
            Error::config(format!("services.{}: {error}", name.as_ref())).with_source(error)
        };
        let service = ServiceName::new(name.as_ref()).map_err(named)?;
        if let Some(instance) = config.instance(&service) {
            instance.validate().map_err(named)?;
            instances.push(instance);
        }
        // Which of the two would hold for what only one may say is anybody's guess.
        let other = spelled.get(&service).map(AsRef::as_ref);
        if let Some(other) = other.filter(|other| *other != name.as_ref()) {
            return Err(Error::config(format!(
                "services.{} names the same as services.{other}: give one of the two",
                name.as_ref()
            )));
        }
        spelled.insert(service, name);
    }
    Ok(instances)
}

impl Registry for StaticList {
    fn kind(&self) -> &'static str {
        Registry::kind(&self.0)
    }

    async fn register(&self, instance: ServiceInstance, ttl: Duration) -> Result<Lease> {
        self.0.register(instance, ttl).await
    }

    async fn renew(&self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        self.0.renew(lease, instance).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.0.deregister(lease).await
    }

    async fn health_check(&self) -> Result<()> {
        self.0.health_check().await
    }
}

impl Resolver for StaticList {
    fn kind(&self) -> &'static str {
        Resolver::kind(&self.0)
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        self.0.resolve(service).await
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.0.services().await
    }

    async fn watch(&self, service: &ServiceName) -> Result<InstanceWatch> {
        self.0.watch(service).await
    }
}
