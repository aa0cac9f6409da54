//! A message as NATS carries it: the payload as it is, everything else in headers.
//!
//! | header | what |
//! |---|---|
//! | `Trunkline-Id` | the message's id, percent-encoded |
//! | `Content-Type` | the body's media type |
//! | `Trunkline-Key` | the key, percent-encoded |
//! | `Trunkline-Time` | when it was first published, microseconds since 1970 |
//! | `Trunkline-Expires` | when it expires, milliseconds since 1970 |
//! | `Trunkline-Headers` | the message's own headers in their order, see below |
//! | any other | a header of the message |
//!
//! A header of the message stands there by its name and as it is, for whoever reads it. NATS keeps no order of headers and
//! takes no bytes, so `Trunkline-Headers` lists the names in their order; a value that cannot stand in a header, follows its
//! name there: `ce-id,tag,binary=%00%FF,tag`. It is left out where all of them stand there by name already, as in messages of
//! our publishers. A message without that list has its headers by name.
//!
//! Values of `ce-…` are percent-encoded as CloudEvents' binding says: blanks, quotes, per cents, and all that is not ASCII.

use std::borrow::Cow;
use std::collections::HashMap;
use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use trunkline_core::{Metadata, MetadataValue, Timestamp};
use trunkline_messaging::Message;
use trunkline_messaging::cloudevents::message_id;

/// A name that is looked up by its hash, and written without being checked or copied.
macro_rules! names {
    ($($(#[$note:meta])* $view:vis $name:ident = $text:literal;)*) => {
        $($(#[$note])* $view static $name: HeaderName = HeaderName::from_static($text);)*
    };
}

names! {
    ID = "Trunkline-Id";
    KEY = "Trunkline-Key";
    TIME = "Trunkline-Time";
    EXPIRES = "Trunkline-Expires";
    LIST = "Trunkline-Headers";
    CONTENT_TYPE = "Content-Type";
    ODD_CONTENT_TYPE = "Trunkline-Content-Type";
    /// The server's own id of a publish, by which it recognises a repetition.
    pub(crate) PUBLISH_ID = "Nats-Msg-Id";
    /// The reply subject of a message of core NATS is for its confirm, not for an answer.
    pub(crate) CONFIRM = "Trunkline-Confirm";
}

/// What arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) message: Message,
    /// Milliseconds since 1970.
    pub(crate) expires: Option<i64>,
}

/// The headers of a message.
pub(crate) fn encode(
    message: &Message,
    published_at: Timestamp,
    expires: Option<i64>,
) -> HeaderMap {
    let mut map = HeaderMap::new();
    // What is written of ours is escaped, or plain: it has no character that is not allowed.
    let mut own = |name: &HeaderName, value: String| {
        map.insert(name.clone(), HeaderValue::from(value));
    };
    own(&ID, escape(message.id.as_bytes()));
    own(&TIME, published_at.unix_micros().to_string());
    if let Some(key) = &message.key {
        own(&KEY, escape(key));
    }
    if let Some(expires) = expires {
        own(&EXPIRES, expires.to_string());
    }
    if let Some(content_type) = &message.content_type {
        if plain(content_type.as_bytes()).is_some() {
            own(&CONTENT_TYPE, content_type.clone());
        } else {
            own(&ODD_CONTENT_TYPE, escape(content_type.as_bytes()));
        }
    }
    // Headers that all stand there by their names, in the order of these, come back so without a list.
    let names = message.headers.iter().map(|(name, _)| name);
    let mut is_needed = !names.is_sorted();
    for (name, value) in message.headers.iter() {
        match by_name(name, value) {
            Some((name, value)) => map.append(name, value),
            None => is_needed = true,
        }
    }
    if is_needed {
        map.insert(LIST.clone(), HeaderValue::from(list(&message.headers)));
    }
    map
}

/// A header as it stands there by its name, if it can.
fn by_name(name: &str, value: &MetadataValue) -> Option<(HeaderName, HeaderValue)> {
    if is_ours(name) {
        return None;
    }
    let text = match value.as_str() {
        Some(text) if is_attribute(name) => Cow::Owned(escape_attribute(text)),
        _ => Cow::Borrowed(plain(value.as_bytes())?),
    };
    Some((
        HeaderName::from_str(name).ok()?,
        HeaderValue::from_str(&text).ok()?,
    ))
}

/// The names in their order, with the values that do not stand there by name.
fn list(headers: &Metadata) -> String {
    let mut list = String::new();
    for (name, value) in headers.iter() {
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&escape(name.as_bytes()));
        if by_name(name, value).is_none() {
            list.push('=');
            list.push_str(&escape(value.as_bytes()));
        }
    }
    list
}

/// Reads a message. One that somebody else sent has the given id and time where it says none.
pub(crate) fn decode(
    headers: Option<&HeaderMap>,
    payload: Bytes,
    id: impl FnOnce() -> String,
    time: Option<Timestamp>,
) -> Arrived {
    let text = |name: &HeaderName| {
        headers
            .and_then(|map| map.get(name.clone()))
            .map(HeaderValue::as_str)
    };
    let unescaped = |name: &HeaderName| text(name).and_then(unescape);
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
    let given = unescaped(&ID).and_then(utf8);
    let given = given.or_else(|| text(&PUBLISH_ID).map(str::to_owned));
    let mut message = Message::recorded("", payload);
    message.key = unescaped(&KEY).map(Bytes::from);
    message.content_type = text(&CONTENT_TYPE)
        .map(str::to_owned)
        .or_else(|| unescaped(&ODD_CONTENT_TYPE).and_then(utf8));
    let sent = text(&TIME).and_then(|micros| micros.parse().ok());
    message.published_at = sent.map(Timestamp::from_unix_micros).or(time);
    if let Some(map) = headers {
        message.headers = listed(map, text(&LIST));
    }
    // An event of somebody else has an id of its own, by which its repetition is recognised.
    let given = given.or_else(|| message_id(&message.headers));
    message.id = given.unwrap_or_else(id);
    Arrived {
        message,
        expires: text(&EXPIRES).and_then(|millis| millis.parse().ok()),
    }
}

/// The headers in the order of the list, then what somebody added on the way, by name.
fn listed(map: &HeaderMap, list: Option<&str>) -> Metadata {
    let mut headers = Metadata::new();
    let mut taken: HashMap<String, usize> = HashMap::new();
    for entry in list.into_iter().flat_map(|list| list.split(',')) {
        let (name, value) = match entry.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (entry, None),
        };
        let Some(name) = unescape(name).and_then(|name| String::from_utf8(name).ok()) else {
            continue;
        };
        match value {
            Some(value) => {
                if let Some(value) = unescape(value) {
                    headers.append(name, Bytes::from(value));
                }
            }
            None => {
                let at = taken.entry(name.clone()).or_default();
                let known = HeaderName::from_str(&name).ok();
                let value = known.and_then(|known| map.get_all(known).nth(*at));
                if let Some(value) = value {
                    let value = read(&name, value.as_str());
                    headers.append(name, value.as_ref());
                }
                *at += 1;
            }
        }
    }
    let mut others: Vec<(&str, &str)> = Vec::new();
    for (name, values) in map.iter() {
        let name: &str = name.as_ref();
        if is_ours(name) {
            continue;
        }
        let known = taken.get(name).copied().unwrap_or_default();
        others.extend(
            values
                .iter()
                .skip(known)
                .map(|value| (name, value.as_str())),
        );
    }
    // The map has none; a repetition must find the same.
    others.sort_by_key(|(name, _)| *name);
    for (name, value) in others {
        headers.append(name, read(name, value).as_ref());
    }
    headers
}

/// Attributes of CloudEvents, which look the same from every client.
fn is_attribute(name: &str) -> bool {
    name.get(..3)
        .is_some_and(|start| start.eq_ignore_ascii_case("ce-"))
}

fn escape_attribute(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            escaped.push(char::from(byte));
        } else {
            push_escaped(&mut escaped, byte);
        }
    }
    escaped
}

/// What a header says. What was not encoded properly is taken as it is.
fn read<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if !is_attribute(name) || !value.contains('%') {
        return Cow::Borrowed(value);
    }
    let text = unescape(value).and_then(|bytes| String::from_utf8(bytes).ok());
    text.map_or(Cow::Borrowed(value), Cow::Owned)
}

/// Names with a meaning of their own, for the server or for us.
fn is_ours(name: &str) -> bool {
    let starts = |prefix: &str| {
        name.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    starts("nats-")
        || name.eq_ignore_ascii_case(CONTENT_TYPE.as_ref())
        || (starts("trunkline-")
            && [
                &ID,
                &KEY,
                &TIME,
                &EXPIRES,
                &LIST,
                &ODD_CONTENT_TYPE,
                &CONFIRM,
            ]
            .into_iter()
            .any(|own| name.eq_ignore_ascii_case(own.as_ref())))
}

/// A value that arrives as it is: drivers trim values and read lines.
fn plain(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let fits = text.trim() == text && !text.chars().any(char::is_control);
    fits.then_some(text)
}

/// Percent-encoding of all but letters, digits and a few marks.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            push_escaped(&mut text, byte);
        }
    }
    text
}

fn push_escaped(text: &mut String, byte: u8) {
    text.push('%');
    for digit in [byte >> 4, byte & 15] {
        let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
        text.push(digit.to_ascii_uppercase());
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(message: &Message) -> Message {
        let map = encode(message, Timestamp::from_unix_micros(5), Some(7));
        let arrived = decode(
            Some(&map),
            message.payload.clone(),
            || "none".to_owned(),
            None,
        );
        assert_eq!(arrived.expires, Some(7));
        arrived.message
    }

    proptest! {
        #[test]
        fn every_field_comes_back(
            id in ".{1,20}",
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            content_type in proptest::option::of(".{0,20}"),
            headers in proptest::collection::vec(("[A-Za-z-]{1,8}", proptest::collection::vec(any::<u8>(), 0..12)), 0..6),
            texts in proptest::collection::vec(("[a-c]", "[ -~]{0,8}"), 0..6),
        ) {
            let mut message = Message::new("p").with_id(id);
            message.key = key.map(Bytes::from);
            message.content_type = content_type;
            message.published_at = Some(Timestamp::from_unix_micros(5));
            for (name, value) in headers {
                message.headers.append(name, Bytes::from(value));
            }
            for (name, value) in texts {
                message.headers.append(name, value.as_str());
            }
            prop_assert_eq!(there_and_back(&message), message);
        }

        #[test]
        fn nothing_that_arrives_panics(list in ".{0,40}", id in ".{0,20}") {
            let mut map = HeaderMap::new();
            for (name, value) in [(&LIST, &list), (&ID, &id), (&TIME, &id), (&KEY, &list)] {
                if let Ok(value) = HeaderValue::from_str(value) {
                    map.append(name.clone(), value);
                }
            }
            decode(Some(&map), Bytes::new(), String::new, None);
        }
    }

    #[test]
    fn a_list_with_a_name_that_no_header_has_is_read() {
        let mut map = HeaderMap::new();
        map.insert(LIST.clone(), "¡,a:b,tag");
        map.insert("tag", "x");
        let read = decode(Some(&map), Bytes::new(), String::new, None);
        assert_eq!(read.message.headers.get("tag"), Some("x"));
        assert_eq!(read.message.headers.len(), 1);
    }

    #[test]
    fn the_order_of_headers_is_written_where_it_is_not_that_of_their_names() {
        let listed = |names: [&str; 3]| {
            let mut message = Message::new("p").with_id("1");
            message.published_at = Some(Timestamp::from_unix_micros(5));
            for (at, name) in names.into_iter().enumerate() {
                message.headers.append(name, at.to_string());
            }
            assert_eq!(there_and_back(&message), message, "{names:?}");
            encode(&message, Timestamp::from_unix_micros(5), None)
                .get(LIST.clone())
                .is_some()
        };
        assert!(!listed(["Tag", "a", "a"]));
        assert!(listed(["a", "Tag", "a"]));
        assert!(listed(["a", "b", "nats-ours"]), "it cannot stand there");
    }

    #[test]
    fn headers_stand_there_for_others_to_read() {
        let message = Message::new("p").with_header("ce-type", "order.created");
        let map = encode(&message, Timestamp::from_unix_micros(5), None);
        assert_eq!(
            map.get("ce-type").map(HeaderValue::as_str),
            Some("order.created")
        );
    }

    #[test]
    fn attributes_of_events_are_encoded_as_their_binding_says() {
        let message = Message::new("p").with_header("ce-subject", "Grüße, 100 %");
        let map = encode(&message, Timestamp::from_unix_micros(5), None);
        assert_eq!(
            map.get("ce-subject").map(HeaderValue::as_str),
            Some("Gr%C3%BC%C3%9Fe,%20100%20%25")
        );
        let mut map = HeaderMap::new();
        map.insert("ce-id", "event%207");
        map.insert("ce-time", "2025-06-01T10%3A20%3A30Z");
        map.insert("ce-broken", "100%");
        map.insert("plain", "100%25");
        let read = decode(Some(&map), Bytes::new(), || "none".to_owned(), None).message;
        assert_eq!(read.id, "event 7");
        let header = |name| read.headers.get(name);
        assert_eq!(header("ce-time"), Some("2025-06-01T10:20:30Z"));
        assert_eq!(header("ce-broken"), Some("100%"));
        assert_eq!(header("plain"), Some("100%25"));
    }

    #[test]
    fn a_message_of_somebody_else_is_read() {
        let mut map = HeaderMap::new();
        map.insert("zebra", "z");
        map.insert("apple", "a");
        map.insert(PUBLISH_ID.clone(), "their-id");
        let read = decode(
            Some(&map),
            Bytes::from_static(b"x"),
            || "none".to_owned(),
            None,
        );
        assert_eq!(read.message.id, "their-id");
        let names: Vec<&str> = read.message.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["apple", "zebra"]);
        let bare = decode(None, Bytes::new(), || "S-7".to_owned(), None);
        assert_eq!(bare.message.id, "S-7");
    }
}
