//! From values to payloads and back, by content type.
//!
//! What is published says its content type; what is received is read by the content type it says. A payload without one
//! is taken for JSON, as foreign clients often leave it out.

mod json;
mod message_pack;
#[cfg(feature = "protobuf")]
mod protobuf;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_core::{BoxError, Error, Result};

pub use json::Json;
pub use message_pack::MessagePack;
#[cfg(feature = "protobuf")]
pub use protobuf::Protobuf;
#[cfg(feature = "protobuf")]
pub(crate) use protobuf::encode as encode_protobuf;

/// Turns values into payloads and back.
pub trait Codec: Send + Sync + 'static {
    /// The content type it writes.
    fn content_type(&self) -> &'static str;

    /// Writes a value.
    ///
    /// # Errors
    /// `Invalid` when the value cannot be written in this format.
    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes>;

    /// Reads a value.
    ///
    /// # Errors
    /// `Invalid`, with [`Undecodable`] as its cause.
    fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T>;
}

/// A payload that cannot be read: a cause of errors, and a reason for dead letters.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {wanted} from {content_type}")]
pub struct Undecodable {
    /// The type that was wanted.
    pub wanted: &'static str,
    /// The content type of the payload, or what it was taken for.
    pub content_type: String,
    #[source]
    source: Option<BoxError>,
}

impl Undecodable {
    pub(crate) fn error<T>(content_type: &str, source: impl Into<BoxError>) -> Error {
        let cause = Self {
            wanted: std::any::type_name::<T>(),
            content_type: content_type.to_owned(),
            source: Some(source.into()),
        };
        Error::invalid("the payload cannot be read").with_source(cause)
    }
}

/// One of the formats of this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AnyCodec {
    /// `application/json`.
    #[default]
    Json,
    /// `application/msgpack`.
    MessagePack,
}

impl AnyCodec {
    /// The format of a content type; JSON where there is none.
    ///
    /// ```
    /// use trunkline_messaging::codec::AnyCodec;
    ///
    /// assert_eq!(AnyCodec::of(Some("application/vnd.order+json; charset=utf-8"))?, AnyCodec::Json);
    /// assert_eq!(AnyCodec::of(None)?, AnyCodec::Json);
    /// assert!(AnyCodec::of(Some("text/html")).is_err());
    /// # Ok::<(), trunkline_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid`, with [`Undecodable`] as its cause, for a content type that no format of ours reads.
    pub fn of(content_type: Option<&str>) -> Result<Self> {
        let Some(whole) = content_type else {
            return Ok(Self::Json);
        };
        let essence = whole.split(';').next().unwrap_or(whole).trim();
        let (kind, subtype) = essence.split_once('/').unwrap_or(("", essence));
        let suffix = subtype.rsplit_once('+').map_or(subtype, |(_, last)| last);
        let is = |name: &str| suffix.eq_ignore_ascii_case(name);
        if is("json") && !kind.is_empty() {
            return Ok(Self::Json);
        }
        if is("msgpack") || is("x-msgpack") || is("vnd.msgpack") {
            return Ok(Self::MessagePack);
        }
        let cause = Undecodable {
            wanted: "a value",
            content_type: whole.to_owned(),
            source: None,
        };
        Err(
            Error::invalid("the content type is neither JSON nor MessagePack")
                .with_context("content_type", whole)
                .with_source(cause),
        )
    }
}

impl fmt::Display for AnyCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.content_type())
    }
}

impl Codec for AnyCodec {
    fn content_type(&self) -> &'static str {
        match self {
            Self::Json => Json.content_type(),
            Self::MessagePack => MessagePack.content_type(),
        }
    }

    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes> {
        match self {
            Self::Json => Json.encode(value),
            Self::MessagePack => MessagePack.encode(value),
        }
    }

    fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T> {
        match self {
            Self::Json => Json.decode(payload),
            Self::MessagePack => MessagePack.decode(payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use trunkline_core::ErrorKind;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        None,
        Named(String),
        Sized { width: u32, height: Option<i64> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u64,
        note: String,
        kinds: Vec<Kind>,
        tags: BTreeMap<String, bool>,
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::None),
            any::<String>().prop_map(Kind::Named),
            any::<(u32, Option<i64>)>().prop_map(|(width, height)| Kind::Sized { width, height }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            id: u64,
            note: String,
            kinds in proptest::collection::vec(kind(), 0..4),
            tags in proptest::collection::btree_map(any::<String>(), any::<bool>(), 0..4),
        ) {
            let order = Order { id, note, kinds, tags };
            for codec in [AnyCodec::Json, AnyCodec::MessagePack] {
                let payload = codec.encode(&order).unwrap();
                prop_assert_eq!(codec.decode::<Order>(&payload).unwrap(), order.clone());
                let chosen = AnyCodec::of(Some(codec.content_type())).unwrap();
                prop_assert_eq!(chosen, codec);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, content_type: Option<String>) {
            if let Ok(codec) = AnyCodec::of(content_type.as_deref())
                && let Err(error) = codec.decode::<Order>(&bytes)
            {
                prop_assert_eq!(error.kind(), ErrorKind::Invalid);
                prop_assert!(error.find::<Undecodable>().is_some());
            }
        }
    }

    #[test]
    fn the_content_type_chooses_the_format() {
        for (text, expected) in [
            ("application/json", AnyCodec::Json),
            ("Application/JSON; charset=utf-8", AnyCodec::Json),
            ("application/cloudevents+json", AnyCodec::Json),
            ("text/json", AnyCodec::Json),
            ("application/msgpack", AnyCodec::MessagePack),
            ("application/x-msgpack", AnyCodec::MessagePack),
            ("application/vnd.msgpack", AnyCodec::MessagePack),
            ("application/vnd.order+msgpack", AnyCodec::MessagePack),
        ] {
            assert_eq!(AnyCodec::of(Some(text)).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "json",
            "text/plain",
            "application/jsonx",
            "application/json+xml",
        ] {
            let error = AnyCodec::of(Some(text)).unwrap_err();
            assert!(error.find::<Undecodable>().is_some(), "{text}");
        }
    }

    #[test]
    fn nothing_may_follow_the_value() {
        assert!(Json.decode::<u64>(b"7 8").is_err());
        assert!(MessagePack.decode::<u64>(&[7, 8]).is_err());
    }

    #[test]
    fn deep_nesting_is_refused_and_not_fatal() {
        let deep = "[".repeat(100_000);
        assert!(Json.decode::<serde_json::Value>(deep.as_bytes()).is_err());
        let deep = vec![0x91_u8; 100_000];
        assert!(MessagePack.decode::<serde_json::Value>(&deep).is_err());
    }
}
