//! The messages of etcd's JSON gateway: numbers of 64 bits are text, bytes are base64, what is empty is left out.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Fault;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Header {
    #[serde(deserialize_with = "number")]
    pub(crate) revision: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeyValue {
    pub(crate) key: String,
    pub(crate) value: String,
    #[serde(deserialize_with = "number")]
    pub(crate) mod_revision: u64,
    #[serde(deserialize_with = "number")]
    pub(crate) lease: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Range {
    pub(crate) header: Header,
    pub(crate) kvs: Vec<KeyValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Txn {
    pub(crate) succeeded: bool,
    pub(crate) responses: Vec<OneOf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OneOf {
    pub(crate) response_range: Range,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Granted {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(crate) id: u64,
}

/// The answer to a renewal; without a time the lease is over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    pub(crate) result: KeptResult,
    pub(crate) error: Option<Fault>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeptResult {
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub(crate) ttl: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Watched {
    pub(crate) result: WatchResult,
    pub(crate) error: Option<Fault>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchResult {
    pub(crate) header: Header,
    pub(crate) created: bool,
    pub(crate) canceled: bool,
    #[serde(deserialize_with = "number")]
    pub(crate) compact_revision: u64,
    pub(crate) cancel_reason: String,
    pub(crate) events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) kv: KeyValue,
}

impl Event {
    pub(crate) fn is_delete(&self) -> bool {
        self.kind == "DELETE"
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Compare {
    ModRevision {
        key: String,
        target: &'static str,
        result: &'static str,
        mod_revision: String,
    },
    Lease {
        key: String,
        target: &'static str,
        result: &'static str,
        lease: String,
    },
    Value {
        key: String,
        target: &'static str,
        result: &'static str,
        value: String,
    },
}

impl Compare {
    pub(crate) fn mod_revision(key: String, revision: u64) -> Self {
        Self::ModRevision {
            key,
            target: "MOD",
            result: "EQUAL",
            mod_revision: revision.to_string(),
        }
    }

    pub(crate) fn lease(key: String, lease: u64) -> Self {
        Self::Lease {
            key,
            target: "LEASE",
            result: "EQUAL",
            lease: lease.to_string(),
        }
    }

    pub(crate) fn value(key: String, value: String) -> Self {
        Self::Value {
            key,
            target: "VALUE",
            result: "EQUAL",
            value,
        }
    }
}

/// A number that may be written as text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}
