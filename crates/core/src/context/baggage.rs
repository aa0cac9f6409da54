//! W3C Baggage (<https://www.w3.org/TR/baggage/>): the application's own pairs that travel along.

use std::sync::Arc;

/// Limits of the specification.
const MOST_PAIRS: usize = 64;
const MOST_BYTES: usize = 8192;

/// Names and values that travel with the context. Bounded: what does not fit is refused, never cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
// `None` and never an empty list: most contexts have none, and each call without a context makes one.
pub struct Baggage(Option<Arc<[(String, String)]>>);

impl Baggage {
    fn of(pairs: Vec<(String, String)>) -> Self {
        Self((!pairs.is_empty()).then(|| pairs.into()))
    }

    fn pairs(&self) -> &[(String, String)] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs()
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The same with one pair set. Unchanged when the name is no token or the limits (64 pairs, 8 KiB) are reached.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut pairs: Vec<_> = self
            .pairs()
            .iter()
            .filter(|(known, _)| known != name)
            .cloned()
            .collect();
        pairs.push((name.to_owned(), value.to_owned()));
        let candidate = Self::of(pairs);
        let fits =
            candidate.pairs().len() <= MOST_PAIRS && candidate.to_header().len() <= MOST_BYTES;
        if is_token(name) && fits {
            candidate
        } else {
            self.clone()
        }
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are no pairs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Reads the header; members that are malformed or over the limits are left out, properties after `;` are dropped.
    #[must_use]
    pub fn parse(header: &str) -> Self {
        if header.len() > MOST_BYTES {
            return Self::default();
        }
        let members = header.split(',').filter_map(|member| {
            let (name, value) = member.split(';').next()?.split_once('=')?;
            let name = name.trim();
            is_token(name).then(|| Some((name.to_owned(), decode(value.trim())?)))?
        });
        Self::of(members.take(MOST_PAIRS).collect())
    }

    /// Writes the header.
    #[must_use]
    pub fn to_header(&self) -> String {
        let members: Vec<String> = self
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        members.join(",")
    }
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c))
}

fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        let plain = byte.is_ascii_graphic() && !b"\",;\\%".contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let pair = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&pair).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
