//! The registry that only finds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use trunkline_core::{Error, Result};
use trunkline_discovery::{
    InstanceList, InstanceWatch, Lease, Registry, Resolver, ServiceInstance, ServiceName,
};

use crate::answer::{Targets, ask};
use crate::client::Client;
use crate::config::DnsConfig;
use crate::error::announces_nothing;
use crate::pattern::name_of;
use crate::watch;

const KIND: &str = "dns";

/// Finds instances in DNS. Clones share connections.
///
/// ```no_run
/// use trunkline_dns::{DnsConfig, DnsRegistry};
///
/// let mut config = DnsConfig::addresses("{service}.shop.internal", 8080);
/// config.servers = vec!["127.0.0.1:5353".parse().unwrap()];
/// let dns = DnsRegistry::new(&config)?;
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone)]
pub struct DnsRegistry(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) config: DnsConfig,
    pub(crate) targets: Targets,
}

impl DnsRegistry {
    /// Makes a registry; asks nothing yet.
    ///
    /// # Errors
    /// `Config` when a pattern is wrong, or no servers are given and those of this machine are not known.
    pub fn new(config: &DnsConfig) -> Result<Self> {
        if let Some(problem) = config.problem() {
            return Err(Error::config(problem));
        }
        Ok(Self(Arc::new(Shared {
            client: Client::new(config)?,
            config: config.clone(),
            targets: Targets::default(),
        })))
    }

    /// Ends it: watches end, every call fails with `Cancelled`, connections are closed.
    pub fn close(&self) {
        self.0.client.close();
    }
}

impl fmt::Debug for DnsRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsRegistry")
            .field("records", &self.0.config.records)
            .finish_non_exhaustive()
    }
}

impl Registry for DnsRegistry {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn register(&self, _: ServiceInstance, _: Duration) -> Result<Lease> {
        Err(announces_nothing().with_operation("register"))
    }

    async fn renew(&self, _: &Lease, _: &ServiceInstance) -> Result<()> {
        Err(announces_nothing().with_operation("renew"))
    }

    async fn deregister(&self, _: &Lease) -> Result<()> {
        Err(announces_nothing().with_operation("deregister"))
    }

    /// Asks about the zone that the names are in, as far as the pattern tells it: any answer is a good one.
    async fn health_check(&self) -> Result<()> {
        let checked = async {
            let sample = ServiceName::new("service")?;
            let name = name_of(self.0.config.records.pattern(), &sample)?;
            self.0.client.answers(&name).await
        };
        checked
            .await
            .map_err(|error| error.with_operation("health_check"))
    }
}

impl Resolver for DnsRegistry {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        let shared = &self.0;
        let answer = ask(&shared.client, &shared.config, &shared.targets, service).await;
        Ok(answer
            .map_err(|error| error.with_operation("resolve"))?
            .list)
    }

    /// Those of the services that the settings name which have an instance.
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.0.client.check_open()?;
        let named = &self.0.config.services;
        if named.is_empty() {
            let text =
                "DNS cannot list services; name one, or all of them in the option `services`";
            return Err(Error::unsupported(text).with_operation("services"));
        }
        let asked = named.iter().map(async |service| {
            let list = self.resolve(service).await?;
            Ok((service.clone(), !list.instances.is_empty()))
        });
        let answers = join_all(asked).await.into_iter();
        let answers = answers.collect::<Result<Vec<(ServiceName, bool)>>>()?;
        let there = answers.into_iter().filter(|(_, there)| *there);
        let mut names: Vec<ServiceName> = there.map(|(name, _)| name).collect();
        names.sort();
        Ok(names)
    }

    async fn watch(&self, service: &ServiceName) -> Result<InstanceWatch> {
        self.0.client.check_open()?;
        let lists = watch::lists(Arc::clone(&self.0), service.clone());
        Ok(InstanceWatch::new(lists))
    }

    /// A watch asks again whenever the time to live of its answer is over.
    fn polls(&self) -> bool {
        true
    }
}
