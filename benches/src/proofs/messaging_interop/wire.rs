//! A message as the clients of others tell of it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use trunkline::core::MetadataValue;
use trunkline::messaging::Message;

/// Names of headers as they are on the wire; `common.py` has its twin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) id: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
    pub(super) headers: Vec<(String, Value)>,
}

/// What a header holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Bytes(Vec<u8>),
    /// What only some systems can say: numbers, booleans.
    Other(serde_json::Value),
}

impl Value {
    /// What Trunkline makes of it.
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Other(serde_json::Value::Null) => Vec::new(),
            Self::Other(other) => other.to_string().into_bytes(),
        }
    }
}

impl Told {
    /// What one of ours should look like over there.
    pub(super) fn of(message: &Message, attributes: &str) -> Self {
        let header = |(name, value): (&str, &MetadataValue)| {
            let name = match name.strip_prefix("ce-") {
                Some(attribute) => Cow::Owned(format!("{attributes}{attribute}")),
                None => Cow::Borrowed(name),
            };
            (name.into_owned(), Value::Bytes(value.as_bytes().to_vec()))
        };
        Self {
            id: Some(message.id.clone()),
            content_type: message.content_type.clone(),
            key: message.key.as_deref().map(<[u8]>::to_vec),
            payload: message.payload.to_vec(),
            headers: message.headers.iter().map(header).collect(),
        }
    }

    /// What differs, in words; nothing if nothing does. Headers of different names have no order.
    pub(super) fn differs(&self, seen: &Self) -> Option<String> {
        if self.id != seen.id {
            return Some(format!("id {:?}, not {:?}", seen.id, self.id));
        }
        if self.content_type != seen.content_type {
            let (seen, wanted) = (&seen.content_type, &self.content_type);
            return Some(format!("content type {seen:?}, not {wanted:?}"));
        }
        if self.key != seen.key {
            return Some(format!("key {:?}, not {:?}", seen.key, self.key));
        }
        if self.payload != seen.payload {
            let (seen, wanted) = (seen.payload.len(), self.payload.len());
            return Some(format!("another payload, of {seen} bytes, not {wanted}"));
        }
        let sorted = |told: &Self| {
            let own = |(name, value): &(String, Value)| (name.clone(), value.bytes());
            let mut headers: Vec<(String, Vec<u8>)> = told.headers.iter().map(own).collect();
            headers.sort_by(|(a, _), (b, _)| a.cmp(b));
            headers
        };
        let (wanted, seen) = (sorted(self), sorted(seen));
        let show = |headers: &[(String, Vec<u8>)]| {
            let pair = |(name, value): &(String, Vec<u8>)| {
                format!("{name}={}", String::from_utf8_lossy(value))
            };
            headers.iter().map(pair).collect::<Vec<_>>().join(", ")
        };
        (wanted != seen).then(|| format!("headers [{}], not [{}]", show(&seen), show(&wanted)))
    }
}
