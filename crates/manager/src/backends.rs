//! From a kind in the configuration to the thing itself. The only file that names backend crates.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trunkline_core::{Error, Result};
use trunkline_discovery::{AnyRegistry, AnyResolver, MemoryRegistry, ServiceDiscoveryConfig};
use trunkline_events::{AnyEventStore, EventStoreConfig, MemoryEventStore};
use trunkline_messaging::inbox::{AnyInbox, MemoryInbox};
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{AnyBroker, MessageBrokerConfig};

use crate::config::kinds::{self, Area};

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
    Backends::default().discovery(config)
}

/// Opens an event store by its settings; connects nothing.
///
/// # Errors
/// As [`open_broker`].
pub fn open_event_store(config: &EventStoreConfig) -> Result<AnyEventStore> {
    Backends::default().event_store(config)
}

/// What this build can make.
#[derive(Default)]
pub(crate) struct Backends {
    /// Where embedded parts are that do not say so themselves.
    embedded: Option<PathBuf>,
    brokers: HashMap<String, BrokerFactory>,
}

impl Backends {
    pub(crate) fn new(embedded: &Path, brokers: HashMap<String, BrokerFactory>) -> Self {
        Self {
            embedded: Some(embedded.to_owned()),
            brokers,
        }
    }

    pub(crate) fn broker(&self, config: &MessageBrokerConfig) -> Result<AnyBroker> {
        if let Some(factory) = self.brokers.get(&config.kind) {
            return factory(config);
        }
        kinds::require(Area::MessageBroker, &config.kind)?;
        match config.kind.as_str() {
            "memory" => Ok(AnyBroker::new(MemoryBroker::from_config(config)?)),
            #[cfg(feature = "embedded")]
            "embedded" => {
                let directory = self.directory(config.connection.path.as_deref());
                let settings =
                    trunkline_sqlite::EmbeddedBrokerConfig::from_neutral(config, directory)?;
                Ok(AnyBroker::new(trunkline_sqlite::EmbeddedBroker::new(
                    settings,
                )))
            }
            other => Err(not_made(Area::MessageBroker, other)),
        }
    }

    pub(crate) fn discovery(
        &self,
        config: &ServiceDiscoveryConfig,
    ) -> Result<(AnyRegistry, AnyResolver)> {
        kinds::require(Area::ServiceDiscovery, &config.kind)?;
        match config.kind.as_str() {
            // The services that have a host in the configuration are laid over every kind; `static` has no others.
            "memory" | "static" => {
                let registry = MemoryRegistry::new();
                Ok((
                    AnyRegistry::new(registry.clone()),
                    AnyResolver::new(registry),
                ))
            }
            #[cfg(feature = "embedded")]
            "embedded" => {
                let directory = self.directory(config.connection.path.as_deref());
                let registry = trunkline_sqlite::EmbeddedRegistry::new(&directory);
                Ok((
                    AnyRegistry::new(registry.clone()),
                    AnyResolver::new(registry),
                ))
            }
            other => Err(not_made(Area::ServiceDiscovery, other)),
        }
    }

    pub(crate) fn event_store(&self, config: &EventStoreConfig) -> Result<AnyEventStore> {
        kinds::require(Area::EventStore, &config.kind)?;
        match config.kind.as_str() {
            "memory" => Ok(AnyEventStore::new(MemoryEventStore::default())),
            #[cfg(feature = "embedded")]
            "embedded" => {
                let directory = self.directory(config.connection.path.as_deref());
                Ok(AnyEventStore::new(
                    trunkline_sqlite::EmbeddedEventStore::new(&directory, "default")?,
                ))
            }
            other => Err(not_made(Area::EventStore, other)),
        }
    }

    /// Remembers what was done: on disk where there is an embedded directory, else for this process alone.
    pub(crate) fn inbox(&self) -> Result<AnyInbox> {
        #[cfg(feature = "embedded")]
        if self.embedded.is_some() {
            let directory = self.directory(None);
            return Ok(AnyInbox::new(trunkline_sqlite::EmbeddedInbox::new(
                &directory,
            )));
        }
        Ok(AnyInbox::new(MemoryInbox::default()))
    }

    #[cfg(feature = "embedded")]
    pub(crate) fn directory(&self, given: Option<&str>) -> PathBuf {
        let given = given.filter(|path| !path.is_empty()).map(PathBuf::from);
        given
            .or_else(|| self.embedded.clone())
            .unwrap_or_else(|| crate::EmbeddedConfig::default().path)
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
