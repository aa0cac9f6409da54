//! An instance in the words of Consul: what other clients understand as such, the rest in metadata that is ours.

use std::collections::BTreeMap;

use trunkline_discovery::{InstanceStatus, ServiceInstance};

/// The key under which the token of the announcement stands: what has it was announced by us.
pub(crate) const LEASE: &str = "trunkline-lease";
pub(crate) const STATUS: &str = "trunkline-status";
pub(crate) const WEIGHT: &str = "trunkline-weight";
/// What does not fit elsewhere, in pieces: `trunkline-more-00` …
pub(crate) const MORE: &str = "trunkline-more-";
pub(crate) const PROTOCOL: &str = "protocol";
pub(crate) const VERSION: &str = "version";
pub(crate) const ZONE: &str = "zone";
pub(crate) const HEALTH_PATH: &str = "health-check-path";

/// Limits of Consul: bytes of a key and of a value.
const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 512;
/// Consul allows 64 pairs in all; what is over this stands in pieces.
const MOST_PLAIN: usize = 20;
/// Consul's largest weight.
pub(crate) const HEAVIEST: u32 = 65_535;

/// What begins each field of `MORE`.
pub(crate) const MORE_METADATA: char = 'm';
pub(crate) const MORE_HEALTH_PATH: char = 'p';

/// The metadata of an instance, its lease included.
pub(crate) fn metadata(instance: &ServiceInstance, token: &str) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    let mut put = |key: &str, value: String| drop(pairs.insert(key.to_owned(), value));
    put(LEASE, token.to_owned());
    put(PROTOCOL, instance.protocol.clone());
    put(VERSION, instance.version.clone());
    if let Some(zone) = &instance.zone {
        put(ZONE, zone.clone());
    }
    if instance.status != InstanceStatus::Up {
        put(STATUS, instance.status.as_str().to_owned());
    }
    if weight(instance.weight) != instance.weight {
        put(WEIGHT, instance.weight.to_string());
    }
    let mut more = String::new();
    if instance.health_check_path.len() <= LONGEST_VALUE {
        put(HEALTH_PATH, instance.health_check_path.clone());
    } else {
        field(&mut more, MORE_HEALTH_PATH, "", &instance.health_check_path);
    }
    let mut plain = 0;
    for (key, value) in &instance.metadata {
        if plain < MOST_PLAIN && is_plain(key, value) {
            plain += 1;
            put(key, value.clone());
        } else {
            field(&mut more, MORE_METADATA, key, value);
        }
    }
    for (n, piece) in pieces(&more).enumerate() {
        put(&format!("{MORE}{n:02}"), piece.to_owned());
    }
    pairs
}

/// The weight that Consul knows: at least 1, at most what it allows.
pub(crate) fn weight(weight: u32) -> u32 {
    weight.clamp(1, HEAVIEST)
}

fn is_plain(key: &str, value: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let ours = matches!(key, PROTOCOL | VERSION | ZONE | HEALTH_PATH);
    let reserved = key.starts_with("trunkline-") || key.to_ascii_lowercase().starts_with("consul-");
    (1..=LONGEST_KEY).contains(&key.len())
        && key.chars().all(allowed)
        && !ours
        && !reserved
        && value.len() <= LONGEST_VALUE
}

fn field(more: &mut String, what: char, key: &str, value: &str) {
    let (keys, values) = (key.len(), value.len());
    more.push_str(&format!("{what}{keys}:{key}{values}:{value}"));
}

/// Cuts a text into pieces that Consul takes as values.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let mut end = text.len().min(LONGEST_VALUE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, rest) = text.split_at(end);
        text = rest;
        Some(piece)
    })
}

/// The id of a service of Consul for the id of an instance: without what paths and filters stumble over.
pub(crate) fn service_id(id: &str) -> String {
    let only_dots = id.bytes().all(|byte| byte == b'.');
    let mut written = String::with_capacity(id.len());
    for byte in id.bytes() {
        let plain =
            byte.is_ascii_alphanumeric() || b"-_:".contains(&byte) || (byte == b'.' && !only_dots);
        if plain {
            written.push(char::from(byte));
        } else {
            written.push_str(&format!("~{byte:02x}"));
        }
    }
    written
}

/// The id of the check that is the lease of an announcement.
pub(crate) fn lease_check(service_id: &str, token: &str) -> String {
    format!("trunkline:{service_id}:{token}")
}

/// The id of the check that fails while an instance takes no requests.
pub(crate) fn status_check(service_id: &str, token: &str) -> String {
    format!("trunkline-status:{service_id}:{token}")
}

/// The id of the check that Consul makes itself.
pub(crate) fn active_check(service_id: &str, token: &str) -> String {
    format!("trunkline-check:{service_id}:{token}")
}
