//! A message as AMQP carries it, readable and writable by any client.
//!
//! Fields that AMQP has go there: id, content type, time (whole seconds, as AMQP counts), priority (the header `priority`).
//! Headers go into the table, as text or else as bytes; attributes of CloudEvents under the names of its AMQP binding. What
//! the table cannot say is said in headers of our own, which are written only where they are needed: the key, the exact
//! time, and the order of headers where it is not the alphabetical one of the table or a name stands twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable, LongString, ShortString};
use trunkline_core::names::message_header as header;
use trunkline_core::{Error, MetadataValue, Result, Timestamp};
use trunkline_messaging::Message;
use trunkline_messaging::cloudevents::message_id;

use crate::foreign;

/// The message's key.
const KEY: &str = "trunkline-key";
/// When it was published, in microseconds since 1970: AMQP's own field counts seconds.
const PUBLISHED_AT: &str = "trunkline-published-at";
/// The names of the headers in their order, one a line.
const ORDER: &str = "trunkline-header-order";
/// The topic of a message that came back to its group's queue after a delay.
pub(crate) const TOPIC: &str = "trunkline-topic";
/// How often a message had been delivered before it waited for a delay.
pub(crate) const DELIVERIES: &str = "trunkline-deliveries";
/// How often a quorum queue delivered a message before.
pub(crate) const DELIVERY_COUNT: &str = "x-delivery-count";
/// The same where the server does not count among them what was given back, as newer ones do.
pub(crate) const ACQUIRED_COUNT: &str = "x-acquired-count";
/// When a message that waited for a delay expires, in milliseconds since 1970.
pub(crate) const EXPIRES_AT: &str = "trunkline-expires-at";

const PRIORITY: &str = "priority";
const OURS: &str = "ce-";
const BINDING: &str = "cloudEvents:";
/// The other prefix that the binding allows.
const BINDING_TOO: &str = "cloudEvents_";
/// When an event happened.
const TIME: &str = "ce-time";
/// Short strings of AMQP are no longer.
const LONGEST: usize = 255;
/// Survives a restart of the server.
const PERSISTENT: u8 = 2;

/// What a message says beside its body.
pub(crate) fn properties(message: &Message) -> Result<AMQPProperties> {
    let mut properties = AMQPProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short("the message's id", &message.id)?);
    if let Some(content_type) = &message.content_type {
        properties = properties.with_content_type(short("the content type", content_type)?);
    }
    let mut table = FieldTable::default();
    let mut order: Vec<&str> = Vec::with_capacity(message.headers.len());
    for (name, value) in message.headers.iter() {
        if name == PRIORITY
            && let Some(priority) = value.as_str().and_then(|text| text.parse().ok())
            && properties.priority().is_none()
        {
            properties = properties.with_priority(priority);
            continue;
        }
        order.push(name);
        add(
            &mut table,
            short("the name of a header", &bound(name))?,
            value,
        );
    }
    if !is_alphabetical(&order) {
        table.insert(ORDER.into(), text(order.join("\n")));
    }
    if let Some(key) = &message.key {
        table.insert(KEY.into(), value_of(key));
    }
    if let Some(at) = message.published_at {
        let seconds = u64::try_from(at.unix_millis() / 1000).unwrap_or(0);
        properties = properties.with_timestamp(seconds);
        table.insert(
            PUBLISHED_AT.into(),
            AMQPValue::LongLongInt(at.unix_micros()),
        );
    }
    Ok(foreign::write(properties, message).with_headers(table))
}

/// A header for the broker's own use.
pub(crate) fn with_header(
    properties: AMQPProperties,
    name: &str,
    value: AMQPValue,
) -> AMQPProperties {
    let mut table = properties.headers().clone().unwrap_or_default();
    table.insert(name.into(), value);
    properties.with_headers(table)
}

/// Where a message came from, and whether one without an id is taken for a repetition of an equal one.
#[derive(Clone, Copy)]
pub(crate) struct Came<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) key: &'a str,
    pub(crate) recognise_equal: bool,
}

/// The message that a server delivered, from whoever sent it.
pub(crate) fn message(properties: &AMQPProperties, payload: Vec<u8>, came: Came<'_>) -> Message {
    let id = properties.message_id().as_ref().map(ToString::to_string);
    let mut message = Message::recorded(String::new(), payload);
    message.content_type = properties.content_type().as_ref().map(ToString::to_string);
    message.published_at = properties
        .timestamp()
        .and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1000))
        .map(Timestamp::from_unix_millis);
    if let Some(priority) = properties.priority() {
        message.headers.append(PRIORITY, priority.to_string());
    }
    if let Some(table) = properties.headers() {
        read(table.inner(), &mut message);
    }
    foreign::read(properties, &mut message.headers);
    // An event of somebody else has an id of its own, by which its repetition is recognised.
    let id = id.or_else(|| message_id(&message.headers));
    message.id = id.unwrap_or_else(|| {
        if !came.recognise_equal {
            message.headers.append(header::DERIVED_ID, "1");
        }
        foreign::id(came.exchange, came.key, properties, &message.payload)
    });
    message
}

/// Reads the table of headers.
fn read(table: &BTreeMap<ShortString, AMQPValue>, message: &mut Message) {
    if let Some(AMQPValue::LongLongInt(micros)) = table.get(PUBLISHED_AT) {
        message.published_at = Some(Timestamp::from_unix_micros(*micros));
    }
    message.key = table.get(KEY).and_then(bytes_of);
    let mut headers = Vec::with_capacity(table.len());
    for (name, value) in table {
        if !is_own(name.as_str()) {
            let wire = name.as_str();
            let name = unbound(wire);
            match moment(value).filter(|_| name == TIME && name != wire) {
                Some(at) => headers.push((name, at.to_string().into())),
                None => flatten(value, &mut |value| headers.push((name.clone(), value))),
            }
        }
    }
    if let Some(order) = table.get(ORDER).and_then(bytes_of) {
        sort(&mut headers, &String::from_utf8_lossy(&order));
    }
    for (name, value) in headers {
        message.headers.append(name, value);
    }
}

/// A number among the headers, whatever its size.
pub(crate) fn number(properties: &AMQPProperties, name: &str) -> Option<i64> {
    let table = properties.headers().as_ref()?;
    match table.inner().get(name)? {
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::LongInt(number) => Some(i64::from(*number)),
        AMQPValue::LongUInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortUInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortShortInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortShortUInt(number) => Some(i64::from(*number)),
        other => std::str::from_utf8(&bytes_of(other)?).ok()?.parse().ok(),
    }
}

/// A text among the headers.
pub(crate) fn text_header(properties: &AMQPProperties, name: &str) -> Option<String> {
    let table = properties.headers().as_ref()?;
    String::from_utf8(bytes_of(table.inner().get(name)?)?.to_vec()).ok()
}

pub(crate) fn short(what: &str, value: &str) -> Result<ShortString> {
    ShortString::try_new(value)
        .map_err(|_| Error::invalid(format!("{what} is longer than {LONGEST} bytes")))
}

fn add(table: &mut FieldTable, name: ShortString, value: &MetadataValue) {
    let value = value_of(value.as_bytes());
    match table.inner().get(name.as_str()) {
        None => table.insert(name, value),
        Some(AMQPValue::FieldArray(several)) => {
            let mut several = several.clone();
            several.push(value);
            table.insert(name, AMQPValue::FieldArray(several))
        }
        Some(first) => {
            let both = FieldArray::from(vec![first.clone(), value]);
            table.insert(name, AMQPValue::FieldArray(both))
        }
    };
}

fn text(value: impl Into<String>) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value.into()))
}

fn value_of(bytes: &[u8]) -> AMQPValue {
    match std::str::from_utf8(bytes) {
        Ok(value) => text(value),
        Err(_) => AMQPValue::ByteArray(ByteArray::from(bytes)),
    }
}

/// The moment that CloudEvents' binding allows in place of text: milliseconds, or AMQP's own type, which counts seconds.
fn moment(value: &AMQPValue) -> Option<Timestamp> {
    let millis = match value {
        AMQPValue::LongLongInt(millis) => *millis,
        AMQPValue::Timestamp(seconds) => i64::try_from(*seconds).ok()?.checked_mul(1000)?,
        _ => return None,
    };
    Some(Timestamp::from_unix_millis(millis))
}

/// A value as the header that it stands for; tables have no such.
fn bytes_of(value: &AMQPValue) -> Option<Bytes> {
    let number = |text: String| Some(Bytes::from(text));
    match value {
        AMQPValue::LongString(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        AMQPValue::ShortString(text) => Some(Bytes::copy_from_slice(text.as_str().as_bytes())),
        AMQPValue::ByteArray(bytes) => Some(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::Boolean(value) => number(value.to_string()),
        AMQPValue::ShortShortInt(value) => number(value.to_string()),
        AMQPValue::ShortShortUInt(value) => number(value.to_string()),
        AMQPValue::ShortInt(value) => number(value.to_string()),
        AMQPValue::ShortUInt(value) => number(value.to_string()),
        AMQPValue::LongInt(value) => number(value.to_string()),
        AMQPValue::LongUInt(value) => number(value.to_string()),
        AMQPValue::LongLongInt(value) => number(value.to_string()),
        AMQPValue::Float(value) => number(value.to_string()),
        AMQPValue::Double(value) => number(value.to_string()),
        AMQPValue::Timestamp(seconds) => number(seconds.to_string()),
        AMQPValue::Void => Some(Bytes::new()),
        AMQPValue::DecimalValue(_) | AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => None,
    }
}

/// Gives each header that a value of the table stands for.
fn flatten(value: &AMQPValue, give: &mut impl FnMut(MetadataValue)) {
    match value {
        AMQPValue::FieldArray(several) => {
            for one in several.as_slice() {
                if let Some(bytes) = bytes_of(one) {
                    give(bytes.into());
                }
            }
        }
        one => {
            if let Some(bytes) = bytes_of(one) {
                give(bytes.into());
            }
        }
    }
}

/// Headers that the broker writes and reads for itself, the server's record of dead letters among them.
pub(crate) fn is_own(name: &str) -> bool {
    matches!(
        name,
        KEY | PUBLISHED_AT
            | ORDER
            | TOPIC
            | DELIVERIES
            | EXPIRES_AT
            | DELIVERY_COUNT
            | ACQUIRED_COUNT
            | "x-death"
    ) || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
}

fn bound(name: &str) -> String {
    match name.strip_prefix(OURS) {
        Some(attribute) => format!("{BINDING}{attribute}"),
        None => name.to_owned(),
    }
}

fn unbound(name: &str) -> String {
    let attribute = name
        .strip_prefix(BINDING)
        .or_else(|| name.strip_prefix(BINDING_TOO));
    match attribute {
        Some(attribute) => format!("{OURS}{attribute}"),
        None => name.to_owned(),
    }
}

/// Whether the table gives the headers back as they were: by the names on the wire, each once.
fn is_alphabetical(names: &[&str]) -> bool {
    let on_wire: Vec<String> = names.iter().map(|name| bound(name)).collect();
    on_wire
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a < b))
}

/// Puts headers into the order of their names; values of one name keep theirs, what is not named comes last.
fn sort(headers: &mut Vec<(String, MetadataValue)>, order: &str) {
    let mut sorted = Vec::with_capacity(headers.len());
    for name in order.split('\n') {
        if let Some(at) = headers.iter().position(|(known, _)| known == name) {
            sorted.push(headers.remove(at));
        }
    }
    sorted.append(headers);
    *headers = sorted;
}

/// The headers of a message, for tests of what foreign clients see.
#[cfg(test)]
fn on_wire(headers: trunkline_core::Metadata) -> FieldTable {
    let mut message = Message::new("");
    message.headers = headers;
    let properties = properties(&message).unwrap();
    properties.headers().clone().unwrap()
}

#[cfg(test)]
mod tests {
    use trunkline_core::Metadata;

    use super::*;

    const CAME: Came<'_> = Came {
        exchange: "",
        key: "work",
        recognise_equal: false,
    };

    fn there_and_back(message: &Message) -> Message {
        super::message(
            &properties(message).unwrap(),
            message.payload.to_vec(),
            CAME,
        )
    }

    #[test]
    fn every_field_comes_back() {
        let mut message = Message::new("body")
            .with_content_type("text/plain")
            .with_key(Bytes::from_static(&[0, 200]));
        message.published_at = Some(Timestamp::from_unix_micros(1_736_418_600_123_456));
        for (name, value) in [
            ("Tag", "a"),
            ("ce-id", "1"),
            ("tag", "b"),
            ("Tag", "c"),
            ("empty", ""),
        ] {
            message.headers.append(name, value);
        }
        message.headers.append("raw", Bytes::from_static(&[255, 0]));
        message.headers.append("priority", "7");
        let back = there_and_back(&message);
        assert_eq!((&back.id, &back.key), (&message.id, &message.key));
        assert_eq!(back.published_at, message.published_at);
        let pairs = |message: &Message| -> Vec<(String, Vec<u8>)> {
            let own = |(name, value): (&str, &MetadataValue)| {
                (name.to_owned(), value.as_bytes().to_vec())
            };
            let mut pairs: Vec<_> = message.headers.iter().map(own).collect();
            // The priority is a field of AMQP and has no place among the headers.
            pairs.sort_by_key(|(name, _)| name != "priority");
            pairs
        };
        assert_eq!(pairs(&back), pairs(&message));
    }

    #[test]
    fn foreign_clients_see_plain_headers_and_cloud_events() {
        let mut headers = Metadata::new();
        headers.insert("ce-type", "order.created");
        headers.insert("service", "orders");
        let table = on_wire(headers);
        let names: Vec<&str> = table.inner().keys().map(ShortString::as_str).collect();
        assert_eq!(names, ["cloudEvents:type", "service"]);
    }

    #[test]
    fn what_foreign_clients_send_is_read() {
        let mut table = FieldTable::default();
        table.insert("cloudEvents_id".into(), text("7"));
        table.insert("n".into(), AMQPValue::LongInt(5));
        table.insert("deep".into(), AMQPValue::FieldTable(FieldTable::default()));
        let properties = AMQPProperties::default()
            .with_headers(table)
            .with_timestamp(10);
        let message = message(&properties, Vec::new(), CAME);
        assert_eq!(message.headers.get("ce-id"), Some("7"));
        assert_eq!(message.id, "7");
        assert_eq!(message.headers.get("n"), Some("5"));
        assert!(!message.headers.contains("deep"));
        assert_eq!(
            message.published_at.map(Timestamp::unix_millis),
            Some(10_000)
        );
    }

    #[test]
    fn without_any_id_one_is_made_of_the_message() {
        let read = |came| message(&AMQPProperties::default(), b"body".to_vec(), came);
        let (first, again) = (read(CAME), read(CAME));
        assert!(!first.id.is_empty());
        assert_eq!(first, again);
        assert!(first.headers.contains(header::DERIVED_ID));
        let equal = read(Came {
            recognise_equal: true,
            ..CAME
        });
        assert_eq!(equal.id, first.id);
        assert!(!equal.headers.contains(header::DERIVED_ID));
        // A copy of it is the same message.
        assert_eq!(there_and_back(&first).id, first.id);
    }

    #[test]
    fn the_time_of_an_event_may_be_a_number() {
        let millis = AMQPValue::LongLongInt(1_748_773_230_500);
        let seconds = AMQPValue::Timestamp(1_748_773_230);
        for (name, value, expected) in [
            ("cloudEvents_time", &millis, "2025-06-01T10:20:30.5Z"),
            ("cloudEvents:time", &seconds, "2025-06-01T10:20:30Z"),
        ] {
            let mut table = FieldTable::default();
            table.insert(name.into(), value.clone());
            table.insert("n".into(), AMQPValue::LongLongInt(5));
            let properties = AMQPProperties::default().with_headers(table);
            let message = message(&properties, Vec::new(), CAME);
            let time = message.headers.get("ce-time").unwrap();
            let [seen, expected] = [time, expected].map(|text| text.parse::<Timestamp>().unwrap());
            assert_eq!(seen, expected);
            assert_eq!(
                message.headers.get("n"),
                Some("5"),
                "any other number is one"
            );
        }
    }

    #[test]
    fn what_is_too_long_is_refused_by_name() {
        let long = "x".repeat(256);
        for (message, what) in [
            (Message::new("").with_id(&long), "id"),
            (Message::new("").with_content_type(&long), "content type"),
            (Message::new("").with_header(&long, ""), "name of a header"),
        ] {
            let error = properties(&message).unwrap_err();
            assert!(error.message().contains(what), "{error}");
        }
    }
}
