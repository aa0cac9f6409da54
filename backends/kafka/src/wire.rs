//! A message as Kafka carries it: payload, key and headers are Kafka's own.
//!
//! | header | what |
//! |---|---|
//! | `trunkline-id` | the message's id |
//! | `content-type` | the body's media type |
//! | `trunkline-time` | when it was first published, microseconds since 1970, where that is not the record's time |
//! | `trunkline-expires` | when it expires, milliseconds since 1970 |
//! | `trunkline-due`, `trunkline-to` | of a message that waits among the delayed ones: when it goes on, milliseconds since 1970, and where to |
//! | `ce_…` | `ce-…` of the message: the names that CloudEvents has on Kafka |
//! | any other | a header of the message |
//!
//! Ours come first. A message of somebody else has the id of the event in its headers, else of its topic, partition and offset; its time
//! is the record's.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message as _, OwnedHeaders};
use trunkline_core::{Metadata, Timestamp};
use trunkline_messaging::cloudevents::message_id;
use trunkline_messaging::{Destination, Message, TopicName};

const ID: &str = "trunkline-id";
const CONTENT_TYPE: &str = "content-type";
const TIME: &str = "trunkline-time";
const EXPIRES: &str = "trunkline-expires";
const DUE: &str = "trunkline-due";
const TO: &str = "trunkline-to";

/// What a message waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delayed {
    /// Milliseconds since 1970.
    pub(crate) due: i64,
    /// Where it goes then.
    pub(crate) to: Destination,
}

/// What arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) message: Message,
    /// Milliseconds since 1970.
    pub(crate) expires: Option<i64>,
    pub(crate) delayed: Option<Delayed>,
}

/// The headers of a message.
pub(crate) fn encode(
    message: &Message,
    expires: Option<i64>,
    delayed: Option<&Delayed>,
) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len() + 6);
    if let Some(delayed) = delayed {
        headers = put(headers, DUE, delayed.due.to_string().as_bytes());
        headers = put(headers, TO, delayed.to.to_string().as_bytes());
    }
    headers = put(headers, ID, message.id.as_bytes());
    if let Some(content_type) = &message.content_type {
        headers = put(headers, CONTENT_TYPE, content_type.as_bytes());
    }
    if let Some(time) = message.published_at {
        headers = put(headers, TIME, time.unix_micros().to_string().as_bytes());
    }
    if let Some(expires) = expires {
        headers = put(headers, EXPIRES, expires.to_string().as_bytes());
    }
    for (name, value) in message.headers.iter() {
        headers = match name.strip_prefix("ce-") {
            Some(attribute) => put(headers, &format!("ce_{attribute}"), value.as_bytes()),
            None => put(headers, name, value.as_bytes()),
        };
    }
    headers
}

fn put(headers: OwnedHeaders, key: &str, value: &[u8]) -> OwnedHeaders {
    headers.insert(Header {
        key,
        value: Some(value),
    })
}

/// Reads a record of a log; and its time in milliseconds since 1970, where it has none that of now.
pub(crate) fn read(record: &BorrowedMessage<'_>, now: i64) -> (Arrived, i64) {
    let time = record.timestamp().to_millis();
    let time = time.filter(|millis| *millis >= 0).unwrap_or(now);
    let (partition, offset) = (record.partition(), record.offset());
    let id = || format!("{}-{partition}-{offset}", record.topic());
    let stamp = Some(Timestamp::from_unix_millis(time));
    let arrived = decode(record.headers(), record.payload(), record.key(), id, stamp);
    (arrived, time)
}

/// Reads a message. One that somebody else sent has the given id and time where it says none.
pub(crate) fn decode(
    headers: Option<&impl Headers>,
    payload: Option<&[u8]>,
    key: Option<&[u8]>,
    id: impl FnOnce() -> String,
    time: Option<Timestamp>,
) -> Arrived {
    let mut message = Message::recorded("", Bytes::copy_from_slice(payload.unwrap_or_default()));
    message.key = key.map(Bytes::copy_from_slice);
    message.published_at = time;
    let (mut given, mut expires) = (None, None);
    let (mut due, mut to) = (None, None);
    let mut own = Metadata::new();
    for header in headers.into_iter().flat_map(Headers::iter) {
        let value = header.value.unwrap_or_default();
        let text = std::str::from_utf8(value).ok();
        match (header.key, text) {
            (ID, Some(text)) if given.is_none() => given = Some(text.to_owned()),
            (CONTENT_TYPE, Some(text)) if message.content_type.is_none() => {
                message.content_type = Some(text.to_owned());
            }
            (TIME, Some(text)) if text.parse::<i64>().is_ok() => {
                let micros = text.parse().ok();
                message.published_at = micros.map(Timestamp::from_unix_micros).or(time);
            }
            (EXPIRES, Some(text)) if text.parse::<i64>().is_ok() => expires = text.parse().ok(),
            (DUE, Some(text)) if due.is_none() && text.parse::<i64>().is_ok() => {
                due = text.parse().ok();
            }
            (TO, Some(text)) if to.is_none() && destination(text).is_some() => {
                to = destination(text);
            }
            (name, _) => {
                let bytes = Bytes::copy_from_slice(value);
                match name.strip_prefix("ce_") {
                    Some(attribute) => own.append(format!("ce-{attribute}"), bytes),
                    None => own.append(name, bytes),
                }
            }
        }
    }
    message.id = given.or_else(|| message_id(&own)).unwrap_or_else(id);
    message.headers = own;
    Arrived {
        message,
        expires,
        delayed: due.zip(to).map(|(due, to)| Delayed { due, to }),
    }
}

/// Reads what a destination is written as: `topic order.created`, `queue work`.
fn destination(text: &str) -> Option<Destination> {
    let (kind, name) = text.split_once(' ')?;
    let name = TopicName::new(name).ok()?;
    match kind {
        "topic" => Some(Destination::Topic(name)),
        "queue" => Some(Destination::Queue(name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(message: &Message) -> Message {
        let to = Destination::Queue(TopicName::new("work").unwrap());
        let delayed = Some(Delayed { due: 9, to });
        let headers = encode(message, Some(7), delayed.as_ref());
        let arrived = decode(
            Some(&headers),
            Some(&message.payload),
            message.key.as_deref(),
            || "none".to_owned(),
            None,
        );
        assert_eq!((arrived.expires, arrived.delayed), (Some(7), delayed));
        arrived.message
    }

    proptest! {
        #[test]
        fn every_field_comes_back(
            id in "[^\0]{1,20}",
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            content_type in proptest::option::of("[^\0]{0,20}"),
            headers in proptest::collection::vec(("[A-Za-z-]{1,8}", proptest::collection::vec(any::<u8>(), 0..12)), 0..6),
        ) {
            let mut message = Message::new("p").with_id(id);
            message.key = key.map(Bytes::from);
            message.content_type = content_type;
            message.published_at = Some(Timestamp::from_unix_micros(5));
            for (name, value) in headers {
                message.headers.append(name, Bytes::from(value));
            }
            prop_assert_eq!(there_and_back(&message), message);
        }
    }

    #[test]
    fn attributes_of_cloudevents_have_their_names_on_kafka() {
        let message = Message::new("p").with_header("ce-type", "order.created");
        let headers = encode(&message, None, None);
        assert!(headers.iter().any(|header| header.key == "ce_type"));
        assert_eq!(
            there_and_back(&message).headers.get("ce-type"),
            Some("order.created")
        );
    }

    #[test]
    fn a_message_of_somebody_else_is_read() {
        let time = Timestamp::from_unix_millis(3);
        let none: Option<&OwnedHeaders> = None;
        let bare = decode(none, None, None, || "t-0-7".to_owned(), Some(time)).message;
        assert_eq!((bare.id.as_str(), bare.published_at), ("t-0-7", Some(time)));
        assert!(bare.payload.is_empty());
        let headers = put(OwnedHeaders::new(), "ce_id", b"their-id");
        let headers = put(headers, TIME, b"no number");
        let read = decode(Some(&headers), Some(b"x"), None, String::new, Some(time)).message;
        assert_eq!(read.id, "their-id");
        assert_eq!(read.headers.get("ce-id"), Some("their-id"));
        assert_eq!(read.headers.get(TIME), Some("no number"));
        assert_eq!(read.published_at, Some(time));
    }
}
