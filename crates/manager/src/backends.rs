//! From a kind in the configuration to the thing itself. The only file that names backend crates.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use trunkline_core::{Error, Result};
use trunkline_discovery::{
    AnyRegistry, AnyResolver, MemoryRegistry, ServiceDiscoveryConfig, Several, StaticList,
};
use trunkline_events::{AnyEventStore, EventStoreConfig, MemoryEventStore};
use trunkline_messaging::inbox::{AnyInbox, MemoryInbox};
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{AnyBroker, MessageBrokerConfig};

use crate::config::kinds::{self, Area};
use crate::several;

/// Makes a broker of one kind; connects nothing.
pub type BrokerFactory = Arc<dyn Fn(&MessageBrokerConfig) -> Result<AnyBroker> + Send + Sync>;

/// Opens a broker by its settings; connects nothing.
///
/// # Errors
/// `Unsupported` when the kind is known and not part of this build or version, `Config` when it is not known or its
/// settings are wrong.
pub fn open_broker(config: &MessageBrokerConfig) -> Result<AnyBroker> {
    Backends::default().broker(config)
}

/// Opens a registry by its settings, for announcing and for finding; connects nothing.
///
/// # Errors
/// As [`open_broker`].
pub fn open_discovery(config: &ServiceDiscoveryConfig) -> Result<(AnyRegistry, AnyResolver)> {
    let opened = Backends::default().discovery(config)?;
    Ok((opened.registry, opened.resolver))
}

/// Opens several registries at once by their settings (kind `several`); connects nothing.
///
/// # Errors
/// As [`open_broker`].
pub fn open_several(config: &ServiceDiscoveryConfig) -> Result<Several> {
    several::open(&Backends::default(), config).map(|(several, _)| several)
}

/// Opens an event store by its settings; connects nothing.
///
/// # Errors
/// As [`open_broker`].
pub fn open_event_store(config: &EventStoreConfig) -> Result<AnyEventStore> {
    Ok(Backends::default().event_store(config)?.store)
}

/// Opens the tier that response caches share by its URL, for one prefix; connects nothing.
///
/// # Errors
/// `Unsupported` when this build has no such tier, `Config` when the URL is wrong. Neither repeats the URL.
#[cfg(feature = "cache")]
pub(crate) fn cache_tier(
    url: &str,
    prefix: Option<&str>,
) -> Result<trunkline_resilience::cache::AnyCacheTier> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if !scheme.starts_with("redis") {
        return Err(Error::unsupported(
            "this cannot be the shared tier of response caches; a URL such as redis://cache:6379/1 can",
        ));
    }
    redis_tier(url, prefix)
}

#[cfg(all(feature = "cache", feature = "redis"))]
fn redis_tier(
    url: &str,
    prefix: Option<&str>,
) -> Result<trunkline_resilience::cache::AnyCacheTier> {
    use trunkline_redis::{RedisCacheTier, RedisConfig};

    let mut config = RedisConfig::from_url(url)?;
    if let Some(prefix) = prefix.filter(|_| config.key_prefix == RedisConfig::default().key_prefix)
    {
        config = config.with_key_prefix(format!("{{{prefix}trunkline}}:"));
    }
    let tier = RedisCacheTier::new(config)?;
    Ok(trunkline_resilience::cache::AnyCacheTier::new(tier))
}

#[cfg(all(feature = "cache", not(feature = "redis")))]
fn redis_tier(_: &str, _: Option<&str>) -> Result<trunkline_resilience::cache::AnyCacheTier> {
    Err(Error::unsupported(
        "a Redis as the shared tier of response caches needs the feature `redis`",
    ))
}

/// What is wrong with the settings of a registry that only its backend understands, one line each.
pub(crate) fn discovery_problems(config: &ServiceDiscoveryConfig) -> Vec<String> {
    let read: Result<()> = match config.kind.as_str() {
        "several" => several::check(config),
        #[cfg(feature = "consul")]
        "consul" => consul::check(config),
        #[cfg(feature = "dns")]
        "dns" => dns::check(config),
        #[cfg(feature = "etcd")]
        "etcd" => etcd::check(config),
        #[cfg(feature = "kubernetes")]
        "kubernetes" => kubernetes::check(config),
        _ => Ok(()),
    };
    let told = read.err();
    let told = told.iter().flat_map(|error| error.message().lines());
    told.map(str::to_owned).collect()
}

/// What this build can make.
#[derive(Default)]
pub(crate) struct Backends {
    /// Where embedded parts are that do not say so themselves.
    embedded: Option<PathBuf>,
    brokers: HashMap<String, BrokerFactory>,
    inbox: OnceLock<(AnyInbox, Close)>,
}

/// Ends something for good.
pub(crate) type Close = Box<dyn Fn() + Send + Sync>;

/// A registry, and how it ends.
pub(crate) struct OpenedRegistry {
    pub(crate) registry: AnyRegistry,
    pub(crate) resolver: AnyResolver,
    pub(crate) close: Close,
    /// The registries behind it, where it is several.
    pub(crate) several: Option<Several>,
}

impl OpenedRegistry {
    /// One that announces and finds.
    fn new<R>(registry: R, close: impl Fn(&R) + Send + Sync + 'static) -> Self
    where
        R: trunkline_discovery::Registry + trunkline_discovery::Resolver + Clone,
    {
        Self {
            registry: AnyRegistry::new(registry.clone()),
            resolver: AnyResolver::new(registry.clone()),
            close: Box::new(move || close(&registry)),
            several: None,
        }
    }
}

/// An event store, and how it ends.
pub(crate) struct OpenedStore {
    pub(crate) store: AnyEventStore,
    pub(crate) close: Close,
}

impl Backends {
    pub(crate) fn new(embedded: &Path, brokers: HashMap<String, BrokerFactory>) -> Self {
        Self {
            embedded: Some(embedded.to_owned()),
            brokers,
            inbox: OnceLock::new(),
        }
    }

    pub(crate) fn broker(&self, config: &MessageBrokerConfig) -> Result<AnyBroker> {
        if let Some(factory) = self.brokers.get(&config.kind) {
            return factory(config);
        }
        kinds::require(Area::MessageBroker, &config.kind)?;
        match config.kind.as_str() {
            "memory" => Ok(AnyBroker::new(MemoryBroker::from_config(config)?)),
            "embedded" => {
                embedded::broker(config, self.directory(config.connection.path.as_deref()))
            }
            #[cfg(feature = "redis")]
            "redis" => trunkline_redis::open(config),
            #[cfg(feature = "nats")]
            "nats" => trunkline_nats::open(config),
            #[cfg(feature = "rabbitmq")]
            "rabbitmq" => Ok(AnyBroker::new(
                trunkline_rabbitmq::RabbitMqBroker::from_config(config)?,
            )),
            #[cfg(feature = "kafka")]
            "kafka" => Ok(AnyBroker::new(trunkline_kafka::KafkaBroker::from_config(
                config,
            )?)),
            other => Err(not_made(Area::MessageBroker, other)),
        }
    }

    pub(crate) fn discovery(&self, config: &ServiceDiscoveryConfig) -> Result<OpenedRegistry> {
        kinds::require(Area::ServiceDiscovery, &config.kind)?;
        match config.kind.as_str() {
            // The services that have a host in the configuration are laid over every kind; `static` has no others.
            "static" => {
                let list = StaticList::new(Vec::new())?;
                Ok(OpenedRegistry::new(list, StaticList::shutdown))
            }
            "memory" => Ok(OpenedRegistry::new(
                MemoryRegistry::new(),
                MemoryRegistry::shutdown,
            )),
            "several" => {
                let (several, close) = several::open(self, config)?;
                let mut opened = OpenedRegistry::new(several.clone(), Several::shutdown);
                let shutdown = std::mem::replace(&mut opened.close, Box::new(|| {}));
                opened.close = Box::new(move || {
                    shutdown();
                    close();
                });
                opened.several = Some(several);
                Ok(opened)
            }
            "embedded" => embedded::discovery(self.directory(config.connection.path.as_deref())),
            #[cfg(feature = "consul")]
            "consul" => consul::discovery(config),
            #[cfg(feature = "dns")]
            "dns" => dns::discovery(config),
            #[cfg(feature = "etcd")]
            "etcd" => etcd::discovery(config),
            #[cfg(feature = "kubernetes")]
            "kubernetes" => kubernetes::discovery(config),
            other => Err(not_made(Area::ServiceDiscovery, other)),
        }
    }

    pub(crate) fn event_store(&self, config: &EventStoreConfig) -> Result<OpenedStore> {
        kinds::require(Area::EventStore, &config.kind)?;
        match config.kind.as_str() {
            "memory" => {
                let store = MemoryEventStore::default();
                Ok(OpenedStore {
                    store: AnyEventStore::new(store.clone()),
                    close: Box::new(move || store.shutdown()),
                })
            }
            "embedded" => embedded::event_store(self.directory(config.connection.path.as_deref())),
            other => Err(not_made(Area::EventStore, other)),
        }
    }

    /// Remembers what was done: on disk where this build can, else for this process alone. One for everybody.
    pub(crate) fn inbox(&self) -> AnyInbox {
        let (inbox, _) = self.inbox.get_or_init(|| {
            embedded::inbox(self.directory(None)).unwrap_or_else(|| {
                let close: Close = Box::new(|| {});
                (AnyInbox::new(MemoryInbox::default()), close)
            })
        });
        inbox.clone()
    }

    /// Ends what is shared.
    pub(crate) fn close(&self) {
        if let Some((_, close)) = self.inbox.get() {
            close();
        }
    }

    fn directory(&self, given: Option<&str>) -> PathBuf {
        let given = given.filter(|path| !path.is_empty()).map(PathBuf::from);
        given
            .or_else(|| self.embedded.clone())
            .unwrap_or_else(|| crate::EmbeddedConfig::default().path)
    }
}

#[cfg(feature = "consul")]
mod consul {
    use trunkline_consul::{ConsulConfig, ConsulRegistry};

    use super::*;

    pub(super) fn check(config: &ServiceDiscoveryConfig) -> Result<()> {
        ConsulConfig::from_neutral(config).map(drop)
    }

    pub(super) fn discovery(config: &ServiceDiscoveryConfig) -> Result<OpenedRegistry> {
        let registry = ConsulRegistry::new(&ConsulConfig::from_neutral(config)?)?;
        Ok(OpenedRegistry::new(registry, ConsulRegistry::close))
    }
}

#[cfg(feature = "dns")]
mod dns {
    use trunkline_dns::{DnsConfig, DnsRegistry};

    use super::*;

    pub(super) fn check(config: &ServiceDiscoveryConfig) -> Result<()> {
        DnsConfig::from_neutral(config).map(drop)
    }

    pub(super) fn discovery(config: &ServiceDiscoveryConfig) -> Result<OpenedRegistry> {
        let registry = DnsRegistry::new(&DnsConfig::from_neutral(config)?)?;
        Ok(OpenedRegistry::new(registry, DnsRegistry::close))
    }
}

#[cfg(feature = "etcd")]
mod etcd {
    use trunkline_etcd::{EtcdConfig, EtcdRegistry};

    use super::*;

    pub(super) fn check(config: &ServiceDiscoveryConfig) -> Result<()> {
        EtcdConfig::from_neutral(config).map(drop)
    }

    pub(super) fn discovery(config: &ServiceDiscoveryConfig) -> Result<OpenedRegistry> {
        let registry = EtcdRegistry::new(&EtcdConfig::from_neutral(config)?)?;
        Ok(OpenedRegistry::new(registry, EtcdRegistry::close))
    }
}

#[cfg(feature = "kubernetes")]
mod kubernetes {
    use trunkline_kubernetes::{KubernetesConfig, KubernetesRegistry};

    use super::*;

    pub(super) fn check(config: &ServiceDiscoveryConfig) -> Result<()> {
        KubernetesConfig::from_neutral(config).map(drop)
    }

    pub(super) fn discovery(config: &ServiceDiscoveryConfig) -> Result<OpenedRegistry> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this crate is the one that reads the environment; every pod has these"
        )]
        let [host, port] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"]
            .map(|name| std::env::var(name).ok());
        let settings = KubernetesConfig::from_neutral(config)?
            .with_service_variables(host.as_deref(), port.as_deref());
        let registry = KubernetesRegistry::new(&settings)?;
        Ok(OpenedRegistry::new(registry, KubernetesRegistry::close))
    }
}

/// What is kept on local disk.
#[cfg(feature = "embedded")]
mod embedded {
    use trunkline_sqlite::{
        EmbeddedBroker, EmbeddedBrokerConfig, EmbeddedEventStore, EmbeddedInbox, EmbeddedRegistry,
    };

    use super::*;

    pub(super) fn broker(config: &MessageBrokerConfig, directory: PathBuf) -> Result<AnyBroker> {
        let settings = EmbeddedBrokerConfig::from_neutral(config, directory)?;
        Ok(AnyBroker::new(EmbeddedBroker::new(settings)))
    }

    pub(super) fn discovery(directory: PathBuf) -> Result<OpenedRegistry> {
        let registry = EmbeddedRegistry::new(directory);
        Ok(OpenedRegistry::new(registry, EmbeddedRegistry::shutdown))
    }

    pub(super) fn event_store(directory: PathBuf) -> Result<OpenedStore> {
        let store = EmbeddedEventStore::new(directory, "default")?;
        Ok(OpenedStore {
            store: AnyEventStore::new(store.clone()),
            close: Box::new(move || store.shutdown()),
        })
    }

    pub(super) fn inbox(directory: PathBuf) -> Option<(AnyInbox, Close)> {
        let inbox = EmbeddedInbox::new(directory);
        let close: Close = {
            let inbox = inbox.clone();
            Box::new(move || inbox.shutdown())
        };
        Some((AnyInbox::new(inbox), close))
    }
}

/// A build that keeps nothing on disk. The table of kinds has refused before.
#[cfg(not(feature = "embedded"))]
mod embedded {
    use super::*;

    pub(super) fn broker(_: &MessageBrokerConfig, _: PathBuf) -> Result<AnyBroker> {
        Err(not_made(Area::MessageBroker, "embedded"))
    }

    pub(super) fn discovery(_: PathBuf) -> Result<OpenedRegistry> {
        Err(not_made(Area::ServiceDiscovery, "embedded"))
    }

    pub(super) fn event_store(_: PathBuf) -> Result<OpenedStore> {
        Err(not_made(Area::EventStore, "embedded"))
    }

    pub(super) fn inbox(_: PathBuf) -> Option<(AnyInbox, Close)> {
        None
    }
}

/// The table of kinds says that it is served, and nothing here makes it: the table is wrong.
fn not_made(area: Area, kind: &str) -> Error {
    Error::internal(format!(
        "the {area} `{kind}` is said to be served by this build and is not"
    ))
}

#[cfg(feature = "embedded")]
impl crate::CommunicationManager {
    /// A database of the service's own in the embedded directory; opened when it is first used.
    ///
    /// # Errors
    /// `Config` when the name has anything but letters, digits, `-` and `_`.
    pub fn database(&self, name: &str) -> Result<trunkline_sqlite::EmbeddedDatabase> {
        trunkline_sqlite::EmbeddedDatabase::new(self.0.parts.backends.directory(None), name)
    }
}
