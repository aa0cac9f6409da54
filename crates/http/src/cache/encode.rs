//! A stored answer as bytes, for the tier that processes share: one line of JSON, then the body.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::directives::Directives;
use super::stored::{About, Asked, Seen, Stored, Windows, later};

/// What is written otherwise is not read: a tier outlives a release.
const FORM: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    form: u8,
    status: u16,
    headers: Vec<(String, String)>,
    selecting: Vec<(String, String)>,
    at: u64,
    age: u64,
    expires: u64,
    by_ttl: bool,
    varies: bool,
    shared: bool,
    revalidate: u64,
    error: u64,
    never: bool,
    path: String,
    key: String,
    tags: Vec<String>,
}

pub(super) fn encode(stored: &Stored) -> Option<Vec<u8>> {
    let head = Head {
        form: FORM,
        status: stored.status.as_u16(),
        headers: pairs(&stored.headers),
        selecting: pairs(&stored.asked.headers),
        at: millis(stored.at),
        age: whole(stored.age),
        expires: millis(stored.expires),
        by_ttl: stored.by_ttl,
        varies: stored.varies,
        shared: stored.shared,
        revalidate: whole(stored.windows.revalidate),
        error: whole(stored.windows.error),
        never: stored.windows.never,
        path: stored.about.path.to_string(),
        key: stored.about.key.to_string(),
        tags: stored.about.tags.to_vec(),
    };
    let mut bytes = serde_json::to_vec(&head).ok()?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&stored.body);
    Some(bytes)
}

/// What was encoded; `None` for anything else.
pub(super) fn decode(service: &Arc<str>, bytes: &[u8]) -> Option<Stored> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let head: Head = serde_json::from_slice(bytes.get(..end)?).ok()?;
    if head.form != FORM {
        return None;
    }
    let headers = header_map(&head.headers)?;
    let asked = Asked {
        headers: header_map(&head.selecting)?,
    };
    let (status, at) = (StatusCode::from_u16(head.status).ok()?, moment(head.at));
    let age = Duration::from_millis(head.age);
    let seen = Seen {
        status,
        headers: &headers,
        said: &Directives::of(&headers),
        age,
        varies: head.varies,
        shared: head.shared,
        at,
    };
    Some(Stored {
        policy: seen.by(&asked),
        status,
        body: Bytes::copy_from_slice(bytes.get(end + 1..)?),
        at,
        age,
        expires: moment(head.expires),
        by_ttl: head.by_ttl,
        varies: head.varies,
        shared: head.shared,
        windows: Windows {
            revalidate: Duration::from_millis(head.revalidate),
            error: Duration::from_millis(head.error),
            never: head.never,
        },
        about: About {
            service: Arc::clone(service),
            path: head.path.into(),
            key: head.key.into(),
            tags: head.tags.into(),
        },
        asked,
        headers,
    })
}

/// Values of headers are bytes; as text each byte is one letter.
fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| {
        value
            .as_bytes()
            .iter()
            .map(|byte| char::from(*byte))
            .collect()
    };
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}

fn header_map(pairs: &[(String, String)]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, text) in pairs {
        let bytes: Option<Vec<u8>> = text
            .chars()
            .map(|letter| u8::try_from(letter).ok())
            .collect();
        let value = HeaderValue::from_bytes(&bytes?).ok()?;
        headers.append(HeaderName::try_from(name.as_str()).ok()?, value);
    }
    Some(headers)
}

fn millis(at: SystemTime) -> u64 {
    whole(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn whole(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn moment(millis: u64) -> SystemTime {
    later(UNIX_EPOCH, Duration::from_millis(millis))
}
