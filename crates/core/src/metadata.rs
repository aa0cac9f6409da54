//! Headers of messages and requests, without saying of which protocol.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::context::Carrier;

/// The value of a header: bytes, which are text nearly always.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MetadataValue(Bytes);

impl MetadataValue {
    /// The value as text, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The value as it is.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value as shared bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl fmt::Debug for MetadataValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) => fmt::Debug::fmt(text, f),
            None => write!(f, "<{} bytes>", self.0.len()),
        }
    }
}

impl From<String> for MetadataValue {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for MetadataValue {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Bytes> for MetadataValue {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// Ordered headers. Names are compared without regard to ASCII case and keep the spelling they came with; a name may
/// stand several times. Cloning copies a pointer; the copy that is changed first pays for it.
///
/// ```
/// use trunkline_core::Metadata;
///
/// let mut headers = Metadata::new();
/// headers.insert("Content-Type", "application/json");
/// headers.append("tag", "a");
/// headers.append("tag", "b");
/// assert_eq!(headers.get("content-type"), Some("application/json"));
/// assert_eq!(headers.all("tag").count(), 2);
/// ```
#[derive(Clone, Default)]
pub struct Metadata(Option<Arc<Pairs>>);

type Pairs = Vec<(String, MetadataValue)>;

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.pairs() == other.pairs()
    }
}

impl Eq for Metadata {}

impl Metadata {
    /// No headers; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    fn pairs(&self) -> &[(String, MetadataValue)] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    fn pairs_mut(&mut self) -> &mut Pairs {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    /// Sets a header, replacing every value of that name.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<MetadataValue>) {
        let (name, value) = (name.into(), value.into());
        let is_same = |(known, _): &(String, MetadataValue)| known.eq_ignore_ascii_case(&name);
        let first = self.pairs().iter().position(is_same);
        let pairs = self.pairs_mut();
        match first {
            Some(at) => {
                let mut index = 0;
                pairs.retain(|(known, _)| {
                    let keep = index <= at || !known.eq_ignore_ascii_case(&name);
                    index += 1;
                    keep
                });
                if let Some(entry) = pairs.get_mut(at) {
                    *entry = (name, value);
                }
            }
            None => pairs.push((name, value)),
        }
    }

    /// Sets a header only if there is none of that name.
    pub fn insert_if_absent(&mut self, name: &str, value: impl Into<MetadataValue>) {
        if !self.contains(name) {
            self.pairs_mut().push((name.to_owned(), value.into()));
        }
    }

    /// Adds a value beside those of the same name.
    pub fn append(&mut self, name: impl Into<String>, value: impl Into<MetadataValue>) {
        self.pairs_mut().push((name.into(), value.into()));
    }

    /// The first value of that name, if it is text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(MetadataValue::as_str)
    }

    /// The first value of that name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&MetadataValue> {
        self.pairs()
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Every value of that name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a MetadataValue> {
        self.pairs()
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Whether there is a value of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Removes every value of that name and returns the first.
    pub fn remove(&mut self, name: &str) -> Option<MetadataValue> {
        let found = self.value(name).cloned();
        if found.is_some() {
            self.pairs_mut()
                .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        }
        found
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetadataValue)> {
        self.pairs()
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs().is_empty()
    }

    /// Bytes of all names and values, as limits count them.
    #[must_use]
    pub fn size(&self) -> usize {
        self.pairs()
            .iter()
            .map(|(name, value)| name.len() + value.as_bytes().len())
            .sum()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: Into<String>, V: Into<MetadataValue>> FromIterator<(N, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut metadata = Self::new();
        metadata.extend(pairs);
        metadata
    }
}

impl<N: Into<String>, V: Into<MetadataValue>> Extend<(N, V)> for Metadata {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, pairs: I) {
        self.pairs_mut().extend(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
    }
}

impl IntoIterator for Metadata {
    type Item = (String, MetadataValue);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0
            .map(Arc::unwrap_or_clone)
            .unwrap_or_default()
            .into_iter()
    }
}

impl Carrier for Metadata {
    fn read(&self, name: &str) -> Option<&str> {
        self.get(name)
    }

    fn write(&mut self, name: &str, value: &str) {
        self.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_clone_leaves_the_original_as_it_was() {
        let original: Metadata = [("a", "1"), ("b", "2")].into_iter().collect();
        let mut copy = original.clone();
        copy.insert("A", "3");
        copy.append("c", "4");
        copy.remove("b");
        let pairs = |metadata: &Metadata| {
            let pairs = metadata.iter();
            pairs
                .map(|(name, value)| format!("{name}={value:?}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(pairs(&original), [r#"a="1""#, r#"b="2""#]);
        assert_eq!(pairs(&copy), [r#"A="3""#, r#"c="4""#]);
        assert_ne!(original, copy);
    }

    #[test]
    fn nothing_is_nothing_however_it_came_about() {
        let mut emptied = Metadata::new();
        emptied.append("a", "1");
        emptied.remove("a");
        assert_eq!(emptied, Metadata::new());
        assert_eq!(emptied.into_iter().count(), 0);
    }
}
