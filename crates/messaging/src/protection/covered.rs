//! What of a message is authenticated, as bytes that mean one message only.
#![cfg_attr(
    not(feature = "protection"),
    allow(dead_code, reason = "nothing is authenticated")
)]

use trunkline_core::names::{header as common, message_header as header};

use super::Untrusted;
use crate::message::Message;
use crate::topic::Destination;

/// Headers that change on the way: those of traces, which brokers may rewrite, and those of attempts and dead letters.
const VOLATILE: [&str; 14] = [
    common::TRACEPARENT,
    common::TRACESTATE,
    header::ATTEMPTS,
    header::COPY,
    header::ORIGIN,
    header::DEAD_REASON,
    header::DEAD_ERROR,
    header::DEAD_GROUP,
    header::DEAD_SOURCE,
    header::DEAD_HANDLER,
    header::DEAD_AT,
    header::REPLAYS,
    header::ENCRYPTION,
    header::SIGNATURE,
];

/// Headers that decide what becomes of a message: one that is not covered was added on the way.
const DECISIVE: [&str; 6] = [
    header::REPLY_TO,
    header::IN_REPLY_TO,
    header::REPLY_ERROR,
    header::CLAIM,
    header::CONTENT_ENCODING,
    header::SCHEMA_VERSION,
];

/// The names of the headers that are covered, as the header that protects writes them.
pub(super) fn names(message: &Message) -> String {
    let mut names: Vec<String> = Vec::with_capacity(message.headers.len());
    for (name, _) in message.headers.iter() {
        let name = name.to_ascii_lowercase();
        let is_volatile = VOLATILE
            .iter()
            .any(|other| other.eq_ignore_ascii_case(&name));
        // A name that the list cannot hold is not covered.
        if is_volatile || name.contains([',', ';']) || !name.is_ascii() || names.contains(&name) {
            continue;
        }
        names.push(name);
    }
    names.join(",")
}

/// Fails when a header that must be covered is not. Of headers that come later than what covers, `later` are expected.
pub(super) fn check(message: &Message, names: &str, later: &[&str]) -> Result<(), Untrusted> {
    for (name, _) in message.headers.iter() {
        let is_event = name
            .get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case("ce-"));
        let is_decisive = is_event || has(&DECISIVE, name);
        let is_covered = || {
            names
                .split(',')
                .any(|known| known.eq_ignore_ascii_case(name))
        };
        if is_decisive && !has(later, name) && !is_covered() {
            return Err(Untrusted::Uncovered {
                header: name.to_owned(),
            });
        }
    }
    Ok(())
}

fn has(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The bytes that are authenticated beside the payload: every part with its length before it, so that no two messages have
/// the same.
pub(super) fn bytes(
    domain: &str,
    said: &str,
    message: &Message,
    names: &str,
    to: &Destination,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    put(&mut bytes, domain.as_bytes());
    put(&mut bytes, said.as_bytes());
    put(&mut bytes, to.to_string().as_bytes());
    put(&mut bytes, message.id.as_bytes());
    put_optional(
        &mut bytes,
        message.content_type.as_deref().map(str::as_bytes),
    );
    put_optional(&mut bytes, message.key.as_deref());
    for name in names.split(',') {
        put(&mut bytes, name.as_bytes());
        let values = message.headers.all(name);
        bytes.extend((values.count() as u64).to_le_bytes());
        for value in message.headers.all(name) {
            put(&mut bytes, value.as_bytes());
        }
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend((part.len() as u64).to_le_bytes());
    bytes.extend_from_slice(part);
}

fn put_optional(bytes: &mut Vec<u8>, part: Option<&[u8]>) {
    bytes.push(u8::from(part.is_some()));
    put(bytes, part.unwrap_or_default());
}
