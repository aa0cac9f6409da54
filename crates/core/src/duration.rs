//! Spans of time as configuration writes them: `"30s"`, `"250ms"`, `"1m30s"`, or a bare number of seconds.
//!
//! Use it on a field with `#[serde(with = "trunkline_core::duration")]`, or `duration::option` for an `Option`, and
//! `#[schemars(with = "trunkline_core::duration::Text")]` for the schema.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// A text is not a span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration; write \"30s\", \"250ms\", \"1m30s\" or a number of seconds")]
pub struct ParseDurationError {
    text: String,
}

/// Longest first where one is the beginning of another.
const UNITS: [(&str, u64); 8] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Reads a span of time. A bare number is seconds and may have a fraction.
///
/// # Errors
/// When the text is no such span, is negative, or longer than 584 years.
///
/// ```
/// use std::time::Duration;
/// use trunkline_core::duration::parse;
///
/// assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
/// assert_eq!(parse("30.0"), Ok(Duration::from_secs(30)));
/// assert!(parse("soon").is_err());
/// ```
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let refused = || ParseDurationError {
        text: text.chars().take(64).collect(),
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refused());
    }
    if let Ok(seconds) = rest.parse::<f64>() {
        return from_seconds(seconds).ok_or_else(refused);
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(refused)?;
        let (number, tail) = rest.split_at(digits);
        let (unit, nanos) = UNITS
            .into_iter()
            .find(|(unit, _)| tail.starts_with(unit))
            .ok_or_else(refused)?;
        let part = whole_or_fraction(number, nanos).ok_or_else(refused)?;
        total = total.checked_add(part).ok_or_else(refused)?;
        rest = tail.strip_prefix(unit).unwrap_or(tail).trim_start();
    }
    Ok(Duration::from_nanos(total))
}

fn whole_or_fraction(number: &str, nanos: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(nanos);
    }
    let scaled = number.parse::<f64>().ok()? * nanos as f64;
    (scaled.is_finite() && scaled < u64::MAX as f64).then_some(scaled.round() as u64)
}

fn from_seconds(seconds: f64) -> Option<Duration> {
    (seconds < u64::MAX as f64 / 1e9)
        .then(|| Duration::try_from_secs_f64(seconds).ok())
        .flatten()
}

/// Writes a span so that [`parse`] reads the same one back: `30s`, `1m30s`, `250ms`, `1500us`.
#[must_use]
pub fn format(span: Duration) -> String {
    let nanos = span.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos.is_multiple_of(1_000_000_000) {
        let seconds = span.as_secs();
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let mut text = String::new();
        for (count, unit) in [(hours, 'h'), (minutes, 'm'), (rest, 's')] {
            if count > 0 {
                text.push_str(&count.to_string());
                text.push(unit);
            }
        }
        return text;
    }
    for (size, unit) in [(1_000_000, "ms"), (1_000, "us")] {
        if nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    format!("{nanos}ns")
}

/// What a span looks like in a JSON schema.
#[derive(Debug)]
pub struct Text;

impl schemars::JsonSchema for Text {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A span of time: \"30s\", \"250ms\", \"1m30s\", or a number of seconds.",
            "type": ["string", "number"],
            "format": "duration"
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

impl Written {
    fn read<E: serde::de::Error>(self) -> Result<Duration, E> {
        match self {
            Self::Number(seconds) => from_seconds(seconds)
                .ok_or_else(|| E::custom(format!("{seconds} is not a number of seconds"))),
            Self::Text(text) => parse(&text).map_err(E::custom),
        }
    }
}

/// Serialises a span as text.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*span))
}

/// Reads a span from text or from a number of seconds.
///
/// # Errors
/// When it is neither.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Written::deserialize(deserializer)?.read()
}

/// The same for an `Option<Duration>`.
pub mod option {
    use super::{Deserialize, Deserializer, Duration, Serializer, Written};

    /// Serialises a span as text, or nothing.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => super::serialize(span, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a span, or nothing.
    ///
    /// # Errors
    /// When there is something that is no span.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<Written>::deserialize(deserializer)?
            .map(Written::read)
            .transpose()
    }
}
