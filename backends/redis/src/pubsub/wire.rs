//! How a message goes over a channel: one line of JSON about it, then its body as it is.
//!
//! ```text
//! {"trunkline":1,"id":"…","type":"application/json","headers":[["ce-type","order.created"]]}
//! {"order":17}
//! ```
//!
//! Any client can write and read that. What does not begin so is a body without anything about it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trunkline_core::{Error, Result, Timestamp};
use trunkline_messaging::Message;

/// What every head of ours begins with.
const BEGINNING: &[u8] = b"{\"trunkline\":1,";
const VERSION: u8 = 1;

/// Text, or bytes as numbers where they are no text.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Value<'a> {
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
}

impl<'a> Value<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(Cow::Borrowed(text)),
            Err(_) => Self::Bytes(bytes.to_vec()),
        }
    }

    fn bytes(self) -> Bytes {
        match self {
            Self::Text(text) => Bytes::from(text.into_owned()),
            Self::Bytes(bytes) => Bytes::from(bytes),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    trunkline: u8,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(
        rename = "type",
        borrow,
        skip_serializing_if = "Option::is_none",
        default
    )]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    key: Option<Value<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    time: Option<Timestamp>,
    #[serde(borrow, skip_serializing_if = "Vec::is_empty", default)]
    headers: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// The message as it is published.
pub(super) fn write(message: &Message) -> Result<Vec<u8>> {
    let head = Head {
        trunkline: VERSION,
        id: Cow::Borrowed(&message.id),
        content_type: message.content_type.as_deref().map(Cow::Borrowed),
        key: message.key.as_deref().map(Value::of),
        time: message.published_at,
        headers: message
            .headers
            .iter()
            .map(|(name, value)| (Cow::Borrowed(name), Value::of(value.as_bytes())))
            .collect(),
    };
    let mut bytes = serde_json::to_vec(&head).map_err(|error| {
        Error::invalid("what is said about the message cannot be written").with_source(error)
    })?;
    bytes.reserve_exact(1 + message.payload.len());
    bytes.push(b'\n');
    bytes.extend_from_slice(&message.payload);
    Ok(bytes)
}

/// The message that was heard, from whoever published it.
pub(super) fn read(heard: Vec<u8>) -> Message {
    match read_ours(&heard) {
        Some((mut message, body)) => {
            message.payload = Bytes::from(heard).slice(body..);
            message
        }
        None => Message::new(heard),
    }
}

fn read_ours(heard: &[u8]) -> Option<(Message, usize)> {
    if !heard.starts_with(BEGINNING) {
        return None;
    }
    let end = heard.iter().position(|byte| *byte == b'\n')?;
    let head: Head<'_> = serde_json::from_slice(&heard[..end]).ok()?;
    let mut message = Message::recorded(head.id.into_owned(), Bytes::new());
    message.content_type = head.content_type.map(Cow::into_owned);
    message.key = head.key.map(Value::bytes);
    message.published_at = head.time;
    for (name, value) in head.headers {
        message.headers.append(&*name, value.bytes());
    }
    Some((message, end + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            id in ".{0,20}",
            payload in prop::collection::vec(any::<u8>(), 0..50),
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..10)),
            kind in prop::option::of(".{0,10}"),
            headers in prop::collection::vec(("[a-z:-]{1,8}", prop::collection::vec(any::<u8>(), 0..8)), 0..5),
            micros in prop::option::of(0_i64..4_000_000_000_000_000),
        ) {
            let mut message = Message::recorded(id, payload);
            message.key = key.map(Bytes::from);
            message.content_type = kind;
            message.published_at = micros.map(Timestamp::from_unix_micros);
            for (name, value) in headers {
                message.headers.append(name, Bytes::from(value));
            }
            prop_assert_eq!(read(write(&message).unwrap()), message);
        }
    }

    #[test]
    fn what_others_publish_is_a_body() {
        for body in [
            "",
            "plain",
            "{\"trunkline\":1,",
            "{\"trunkline\":1,\"x\"\n",
            "{}\n",
        ] {
            let message = read(body.as_bytes().to_vec());
            assert_eq!(message.payload, body);
            assert!(message.headers.is_empty());
        }
    }

    /// Written down: neighbouring releases understand each other.
    #[test]
    fn the_format_is_what_it_was() {
        let message = Message::new("{}")
            .with_id("1")
            .with_content_type("application/json")
            .with_header("a", "b");
        let text = "{\"trunkline\":1,\"id\":\"1\",\"type\":\"application/json\",\"headers\":[[\"a\",\"b\"]]}\n{}";
        assert_eq!(String::from_utf8(write(&message).unwrap()).unwrap(), text);
        assert_eq!(read(text.as_bytes().to_vec()), message);
    }
}
