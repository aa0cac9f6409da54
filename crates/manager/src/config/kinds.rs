//! Every kind of broker, registry and event store that is known, whether this build serves it or not.
//!
//! A kind that is known and not served is a warning in a check and a typed error when it is used. What it needs is
//! named only if it exists.

use std::fmt;

use trunkline_core::{Error, Result};

/// What a kind is a kind of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Area {
    /// `message_brokers.<name>.type`
    MessageBroker,
    /// `service_discovery.type`
    ServiceDiscovery,
    /// `event_store.type`
    EventStore,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MessageBroker => "message broker",
            Self::ServiceDiscovery => "service discovery",
            Self::EventStore => "event store",
        })
    }
}

/// Whether a known kind can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Availability {
    /// This build serves it.
    Served,
    /// This build was made without this feature, which serves it.
    NeedsFeature(&'static str),
    /// No feature of this version serves it.
    NotInThisVersion,
}

/// A known kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kind {
    /// What it is a kind of.
    pub area: Area,
    /// The word that configuration uses.
    pub name: &'static str,
    /// Whether it can be used.
    pub availability: Availability,
}

const EMBEDDED: Availability = if cfg!(feature = "embedded") {
    Availability::Served
} else {
    Availability::NeedsFeature("embedded")
};

const CONSUL: Availability = if cfg!(feature = "consul") {
    Availability::Served
} else {
    Availability::NeedsFeature("consul")
};

const ETCD: Availability = if cfg!(feature = "etcd") {
    Availability::Served
} else {
    Availability::NeedsFeature("etcd")
};

const DNS: Availability = if cfg!(feature = "dns") {
    Availability::Served
} else {
    Availability::NeedsFeature("dns")
};

const KUBERNETES: Availability = if cfg!(feature = "kubernetes") {
    Availability::Served
} else {
    Availability::NeedsFeature("kubernetes")
};

const REDIS: Availability = if cfg!(feature = "redis") {
    Availability::Served
} else {
    Availability::NeedsFeature("redis")
};

const NATS: Availability = if cfg!(feature = "nats") {
    Availability::Served
} else {
    Availability::NeedsFeature("nats")
};

const RABBITMQ: Availability = if cfg!(feature = "rabbitmq") {
    Availability::Served
} else {
    Availability::NeedsFeature("rabbitmq")
};

const KAFKA: Availability = if cfg!(feature = "kafka") {
    Availability::Served
} else {
    Availability::NeedsFeature("kafka")
};

const fn kind(area: Area, name: &'static str, availability: Availability) -> Kind {
    Kind {
        area,
        name,
        availability,
    }
}

/// Every known kind.
pub const KINDS: [Kind; 17] = [
    kind(Area::MessageBroker, "embedded", EMBEDDED),
    kind(Area::MessageBroker, "memory", Availability::Served),
    kind(Area::MessageBroker, "rabbitmq", RABBITMQ),
    kind(Area::MessageBroker, "kafka", KAFKA),
    kind(Area::MessageBroker, "redis", REDIS),
    kind(Area::MessageBroker, "nats", NATS),
    kind(Area::ServiceDiscovery, "embedded", EMBEDDED),
    kind(Area::ServiceDiscovery, "static", Availability::Served),
    kind(Area::ServiceDiscovery, "memory", Availability::Served),
    kind(Area::ServiceDiscovery, "several", Availability::Served),
    kind(Area::ServiceDiscovery, "consul", CONSUL),
    kind(Area::ServiceDiscovery, "etcd", ETCD),
    kind(Area::ServiceDiscovery, "kubernetes", KUBERNETES),
    kind(Area::ServiceDiscovery, "dns", DNS),
    kind(Area::EventStore, "embedded", EMBEDDED),
    kind(Area::EventStore, "memory", Availability::Served),
    kind(Area::EventStore, "postgres", Availability::NotInThisVersion),
];

/// The entry of a kind, if it is known.
#[must_use]
pub fn find(area: Area, name: &str) -> Option<Kind> {
    KINDS
        .into_iter()
        .find(|kind| kind.area == area && kind.name == name)
}

/// The kinds of an area that this build serves.
pub fn served(area: Area) -> impl Iterator<Item = &'static str> {
    KINDS
        .iter()
        .filter(move |kind| kind.area == area && kind.availability == Availability::Served)
        .map(|kind| kind.name)
}

/// Makes sure that this build serves a kind.
///
/// # Errors
/// `Unsupported` when it does not; the message names the feature that does, if there is one, and what is served.
pub fn require(area: Area, name: &str) -> Result<()> {
    let Some(why) = unserved(area, name) else {
        return Ok(());
    };
    let served: Vec<&str> = served(area).collect();
    Err(Error::unsupported(format!(
        "{area} type `{name}` {why}; this build serves {}",
        served.join(", ")
    )))
}

/// Why a kind cannot be used, if so.
pub(crate) fn unserved(area: Area, name: &str) -> Option<String> {
    match find(area, name).map(|kind| kind.availability) {
        Some(Availability::Served) => None,
        Some(Availability::NeedsFeature(feature)) => Some(format!(
            "is left out of this build; it needs the feature `{feature}`"
        )),
        Some(Availability::NotInThisVersion) => Some("is not available in this version".to_owned()),
        None => Some("is not known".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_is_not_served_says_so_and_names_no_feature_that_does_not_exist() {
        let error = require(Area::EventStore, "postgres").unwrap_err();
        assert_eq!(error.kind(), trunkline_core::ErrorKind::Unsupported);
        assert!(
            error.message().contains("not available in this version"),
            "{error}"
        );
        assert!(!error.message().contains("feature"), "{error}");
        let manifest = include_str!("../../Cargo.toml");
        for kind in KINDS {
            if let Availability::NeedsFeature(feature) = kind.availability {
                assert!(manifest.contains(&format!("\n{feature} = [")), "{feature}");
            }
        }
        assert!(require(Area::MessageBroker, "memory").is_ok());
    }
}
