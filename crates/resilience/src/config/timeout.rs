//! `timeout: 30` or `timeout: { connection: 10, read: 30, total: 30, pool: 5 }`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use trunkline_core::duration;

/// The limits of a whole call. In files either one span of time, which is the total, or a mapping of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeoutConfig {
    /// Opening a connection. Default `10s`.
    pub connection: Option<Duration>,
    /// Longest silence: before an answer begins and between its parts. Default `30s`.
    pub read: Option<Duration>,
    /// From the end of the request until the head of the answer is here, also while bytes of it trickle in. Default: none,
    /// `read` and the limit of the attempt alone bound it.
    pub first_byte: Option<Duration>,
    /// The whole call, all attempts, waits and the fallback included. Default `30s`.
    pub total: Option<Duration>,
    /// Waiting for a free connection. Default `5s`.
    pub pool: Option<Duration>,
    /// With less than this left no attempt is started. Default `1ms`.
    pub floor: Option<Duration>,
    /// An attempt that the caller's deadline gave less time than this, and that ran out of it, does not speak against the
    /// other side. Default `500ms`.
    pub fair: Option<Duration>,
}

impl TimeoutConfig {
    /// A limit for the whole call alone.
    #[must_use]
    pub fn total(span: Duration) -> Self {
        Self {
            total: Some(span),
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The mapping form.
#[derive(Default, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of timeouts")]
struct Parts {
    /// Opening a connection. Default `10s`.
    #[serde(
        alias = "connect",
        with = "duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<duration::Text>")]
    connection: Option<Duration>,
    /// Longest silence: before an answer begins and between its parts. Default `30s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    read: Option<Duration>,
    /// From the end of the request until the head of the answer is here, also while bytes of it trickle in. Default: none,
    /// `read` and the limit of the attempt alone bound it.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    first_byte: Option<Duration>,
    /// The whole call, all attempts, waits and the fallback included. Default `30s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    total: Option<Duration>,
    /// Waiting for a free connection. Default `5s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pool: Option<Duration>,
    /// With less than this left no attempt is started. Default `1ms`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    floor: Option<Duration>,
    /// An attempt that the caller's deadline gave less time than this, and that ran out of it, does not speak against the
    /// other side. Default `500ms`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    fair: Option<Duration>,
}

impl From<Parts> for TimeoutConfig {
    fn from(parts: Parts) -> Self {
        Self {
            connection: parts.connection,
            read: parts.read,
            first_byte: parts.first_byte,
            total: parts.total,
            pool: parts.pool,
            floor: parts.floor,
            fair: parts.fair,
        }
    }
}

impl Serialize for TimeoutConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Parts {
            connection: self.connection,
            read: self.read,
            first_byte: self.first_byte,
            total: self.total,
            pool: self.pool,
            floor: self.floor,
            fair: self.fair,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TimeoutConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarOrParts)
    }
}

struct ScalarOrParts;

impl ScalarOrParts {
    fn text<E: serde::de::Error>(text: &str) -> Result<TimeoutConfig, E> {
        duration::parse(text)
            .map(TimeoutConfig::total)
            .map_err(E::custom)
    }
}

impl<'de> Visitor<'de> for ScalarOrParts {
    type Value = TimeoutConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a span of time such as \"30s\", or a mapping of connection, read, first_byte, total, pool, floor, \
             fair",
        )
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TimeoutConfig, E> {
        Self::text(text)
    }

    fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<TimeoutConfig, E> {
        Self::text(&seconds.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<TimeoutConfig, E> {
        Self::text(&seconds.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<TimeoutConfig, E> {
        Self::text(&seconds.to_string())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TimeoutConfig, A::Error> {
        Parts::deserialize(MapAccessDeserializer::new(map))
            .map(TimeoutConfig::from)
            .map_err(A::Error::custom)
    }
}

impl JsonSchema for TimeoutConfig {
    fn schema_name() -> Cow<'static, str> {
        "TimeoutConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut parts = Parts::json_schema(generator);
        parts.remove("description");
        json_schema!({
            "description": "The limits of a whole call: one span of time is the total.",
            "anyOf": [generator.subschema_for::<duration::Text>(), parts]
        })
    }
}
