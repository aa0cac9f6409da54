//! How a message looks as an entry of a stream: fields that any client can read and write.
//!
//! | field | what |
//! |---|---|
//! | `id` | the message's id; without it that of an event in its headers, or else the entry's |
//! | `payload` | the body |
//! | `content-type` | its media type |
//! | `key` | what keeps order |
//! | `time` | when it was first published, RFC 3339 |
//! | `expires` | when it may not be delivered any more, in milliseconds since 1970 |
//! | `topic` | in streams of several topics, which one |
//! | `h:<name>` | a header, as often as it is there |
//!
//! Any other field, which another client has written, is read as a header of its name.

use bytes::Bytes;
use redis::Value;
use trunkline_core::{Error, Result, Timestamp};
use trunkline_messaging::Message;
use trunkline_messaging::cloudevents::message_id;

use crate::error::unexpected;
use crate::packed::Packed;

/// Fields of one entry at most: Redis hands them to a command all at once.
const MOST_FIELDS: usize = 2000;

/// Names and values, one after the other.
pub(crate) fn fields(message: &Message, expires: Option<Timestamp>) -> Result<Vec<Bytes>> {
    if message.headers.len() > MOST_FIELDS {
        return Err(Error::invalid(format!(
            "the message has {} headers, and Redis takes {MOST_FIELDS}",
            message.headers.len()
        )));
    }
    let mut fields: Vec<Bytes> = Vec::with_capacity(12 + 2 * message.headers.len());
    let mut field = |name: &'static str, value: Bytes| {
        fields.push(Bytes::from_static(name.as_bytes()));
        fields.push(value);
    };
    field("id", Bytes::from(message.id.clone()));
    field("payload", message.payload.clone());
    if let Some(content_type) = &message.content_type {
        field("content-type", Bytes::from(content_type.clone()));
    }
    if let Some(key) = &message.key {
        field("key", key.clone());
    }
    if let Some(time) = message.published_at {
        field("time", Bytes::from(time.to_string()));
    }
    if let Some(expires) = expires {
        field("expires", Bytes::from(expires.unix_millis().to_string()));
    }
    for (name, value) in message.headers.iter() {
        fields.push(Bytes::from(format!("h:{name}")));
        fields.push(Bytes::copy_from_slice(value.as_bytes()));
    }
    Ok(fields)
}

/// An entry as it was read.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) message: Message,
    pub(crate) topic: Option<String>,
    pub(crate) expires: Option<Timestamp>,
}

impl Entry {
    /// Reads the id of an entry and its fields, as Redis lists them.
    pub(crate) fn read(id: Value, fields: Value) -> Result<Self> {
        let mut entry = Self::new(text(id)?);
        let Value::Array(fields) = fields else {
            return Err(unexpected("the fields of an entry"));
        };
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            entry.field(&bytes(name)?, &bytes(value)?);
        }
        Ok(entry.named())
    }

    /// Reads an entry that a script has packed, and which attempt it is.
    pub(crate) fn unpack(packed: &mut Packed<'_>) -> Result<(Self, u32)> {
        if packed.list()? != 3 {
            return Err(unexpected("a packed entry"));
        }
        let mut entry = Self::new(String::from_utf8_lossy(packed.text()?).into_owned());
        let attempt = u32::try_from(packed.number()?).unwrap_or(u32::MAX);
        for _ in 0..packed.list()? / 2 {
            let name = packed.text()?;
            entry.field(name, packed.text()?);
        }
        Ok((entry.named(), attempt))
    }

    fn new(id: String) -> Self {
        Self {
            message: Message::recorded(id.clone(), Bytes::new()),
            id,
            topic: None,
            expires: None,
        }
    }

    /// An event of somebody else has an id of its own, by which its repetition is recognised.
    fn named(mut self) -> Self {
        if self.message.id == self.id
            && let Some(event) = message_id(&self.message.headers)
        {
            self.message.id = event;
        }
        self
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        let message = &mut self.message;
        let as_text = || String::from_utf8_lossy(value).into_owned();
        // A copy: what is kept of a message must not keep all that came with it.
        let as_bytes = || Bytes::copy_from_slice(value);
        match name {
            b"id" => message.id = as_text(),
            b"payload" => message.payload = as_bytes(),
            b"content-type" => message.content_type = Some(as_text()),
            b"key" => message.key = Some(as_bytes()),
            b"time" => message.published_at = as_text().parse().ok(),
            b"expires" => self.expires = as_text().parse().ok().map(Timestamp::from_unix_millis),
            b"topic" => self.topic = Some(as_text()),
            other => {
                let name = String::from_utf8_lossy(other);
                let name = name.strip_prefix("h:").unwrap_or(&name);
                message.headers.append(name, as_bytes());
            }
        }
    }
}

pub(crate) fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        _ => Err(unexpected("something that is no text")),
    }
}

pub(crate) fn text(value: Value) -> Result<String> {
    String::from_utf8(bytes(value)?).map_err(|_| unexpected("a text that is no UTF-8"))
}

pub(crate) fn number(value: &Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(unexpected("something that is no number")),
    }
}

pub(crate) fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(list) | Value::Set(list) => Ok(list),
        _ => Err(unexpected("something that is no list")),
    }
}

/// How many bits of a position count entries within a millisecond.
const SEQUENCE_BITS: u32 = 22;

/// The place of an entry in the log as one number, if it has one that small.
pub(crate) fn position(id: &str) -> Option<u64> {
    let (millis, sequence) = id.split_once('-')?;
    let (millis, sequence): (u64, u64) = (millis.parse().ok()?, sequence.parse().ok()?);
    let fits = sequence < 1 << SEQUENCE_BITS && millis < 1 << (64 - SEQUENCE_BITS);
    fits.then_some(millis << SEQUENCE_BITS | sequence)
}

/// The entry at a place.
pub(crate) fn entry_id(position: u64) -> String {
    let sequence = position & ((1 << SEQUENCE_BITS) - 1);
    format!("{}-{sequence}", position >> SEQUENCE_BITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn as_redis(fields: Vec<Bytes>) -> Value {
        let fields = fields
            .into_iter()
            .map(|field| Value::BulkString(field.to_vec()));
        Value::Array(fields.collect())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            id in ".{0,20}",
            payload in prop::collection::vec(any::<u8>(), 0..50),
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..10)),
            kind in prop::option::of(".{0,10}"),
            headers in prop::collection::vec(("[a-z:-]{1,8}", prop::collection::vec(any::<u8>(), 0..8)), 0..5),
            millis in prop::option::of(0_i64..4_000_000_000_000),
        ) {
            let mut message = Message::recorded(id, payload);
            message.key = key.map(Bytes::from);
            message.content_type = kind;
            message.published_at = millis.map(Timestamp::from_unix_millis);
            for (name, value) in headers {
                message.headers.append(name, Bytes::from(value));
            }
            let expires = millis.map(Timestamp::from_unix_millis);
            let read = Entry::read(
                Value::BulkString(b"1-2".to_vec()),
                as_redis(fields(&message, expires).unwrap()),
            )
            .unwrap();
            prop_assert_eq!(read.message, message);
            prop_assert_eq!(read.expires, expires);
        }

        #[test]
        fn positions_are_reversible_and_in_order(a in 0_u64..1 << 42, b in 0_u64..1 << 22) {
            let id = format!("{a}-{b}");
            let place = position(&id).unwrap();
            prop_assert_eq!(entry_id(place), id);
            let later = position(&format!("{}-0", a + 1));
            prop_assert!(later.is_none_or(|later| later > place), "{later:?} {place}");
        }
    }

    #[test]
    fn what_other_clients_write_is_read_too() {
        let fields = ["payload", "{}", "trace", "7"].map(|text| Bytes::from(text.to_owned()));
        let entry = Entry::read(
            Value::BulkString(b"5-1".to_vec()),
            as_redis(fields.to_vec()),
        )
        .unwrap();
        assert_eq!(entry.message.id, "5-1");
        assert_eq!(entry.message.payload, "{}");
        assert_eq!(entry.message.headers.get("trace"), Some("7"));
        let event = ["h:ce-id", "event-7", "h:ce-source", "billing"]
            .map(|text| Bytes::from(text.to_owned()));
        let entry = Entry::read(Value::BulkString(b"5-2".to_vec()), as_redis(event.to_vec()));
        assert_eq!(entry.unwrap().message.id, "billing/event-7");
        assert!(Entry::read(Value::Nil, Value::Nil).is_err());
    }
}
