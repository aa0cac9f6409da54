//! `Cache-Control`, read once and for all: names in lower case, quoted values, numbers that are none.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

/// RFC 9111 (1.2.2): what is more than a cache can count is this.
const MOST_SECONDS: u64 = 1 << 31;

/// The directives of a request or of an answer.
#[derive(Debug, Default)]
pub(super) struct Directives(Vec<(String, Option<String>)>);

impl Directives {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for value in headers.get_all(CACHE_CONTROL) {
            let text = String::from_utf8_lossy(value.as_bytes());
            for part in split(&text) {
                found.add(part);
            }
        }
        found
    }

    /// Those of a request: the old `Pragma: no-cache` means the same where there is nothing newer.
    pub(super) fn of_request(headers: &HeaderMap) -> Self {
        let mut found = Self::of(headers);
        let old = || headers.get(PRAGMA)?.to_str().ok();
        if found.0.is_empty() && old().is_some_and(|old| old.contains("no-cache")) {
            found.0.push(("no-cache".to_owned(), None));
        }
        found
    }

    fn add(&mut self, part: &str) {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim()))),
            None => (part.trim(), None),
        };
        if name.is_empty() {
            return;
        }
        let name = name.to_ascii_lowercase();
        let known = self.0.iter_mut().find(|(known, _)| *known == name);
        match known {
            None => self.0.push((name, value)),
            // Of two words the more careful one.
            Some((_, known)) => {
                if seconds(value.as_deref()) < seconds(known.as_deref()) {
                    *known = value;
                }
            }
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// The time that a directive gives; none at all where it says nothing that can be read.
    pub(super) fn span(&self, name: &str) -> Option<Duration> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(Duration::from_secs(seconds(value.as_deref())))
    }

    /// Those of a request, in the form that everybody reads alike.
    pub(super) fn text_of_request(&self) -> String {
        let write = |(name, value): &(String, Option<String>)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        };
        self.0.iter().map(write).collect::<Vec<_>>().join(", ")
    }

    /// In the form that everybody reads alike.
    pub(super) fn text(&self) -> String {
        const NUMBERS: [&str; 4] = [
            "max-age",
            "s-maxage",
            "stale-while-revalidate",
            "stale-if-error",
        ];
        let write = |(name, value): &(String, Option<String>)| match value {
            value if NUMBERS.contains(&name.as_str()) => {
                format!("{name}={}", seconds(value.as_deref()))
            }
            _ => name.clone(),
        };
        self.0.iter().map(write).collect::<Vec<_>>().join(", ")
    }
}

fn seconds(value: Option<&str>) -> u64 {
    let digits =
        value.filter(|value| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()));
    // Only digits: what cannot be read is too large.
    digits.map_or(0, |value| {
        value.parse().unwrap_or(MOST_SECONDS).min(MOST_SECONDS)
    })
}

fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    inner.map_or_else(|| value.to_owned(), |inner| inner.replace('\\', ""))
}

/// Splits at commas outside quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                parts.push(text.get(begin..at).unwrap_or_default());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(begin..).unwrap_or_default());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Directives {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, text.parse().unwrap());
        Directives::of(&headers)
    }

    #[test]
    fn directives_are_read_however_they_are_written() {
        for (text, seconds) in [
            ("max-age=60", Some(60)),
            ("Max-Age=60", Some(60)),
            ("public, MAX-AGE=\"60\"", Some(60)),
            ("ext=\"a, max-age=1\", max-age=60", Some(60)),
            ("max-age=60, max-age=10", Some(10)),
            ("max-age", Some(0)),
            ("max-age=", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age=1.5", Some(0)),
            ("max-age=99999999999999999999999", Some(MOST_SECONDS)),
            ("s-maxage=60", None),
            (",, ,", None),
        ] {
            let span = read(text).span("max-age").map(|span| span.as_secs());
            assert_eq!(span, seconds, "{text}");
        }
        assert!(read("NO-STORE").has("no-store"));
        assert!(read("no-cache=\"set-cookie\"").has("no-cache"));
        assert!(!read("x=\"no-store\"").has("no-store"));
    }

    #[test]
    fn it_is_written_in_one_way() {
        let text = read("Public, MAX-AGE=\"060\", ext=\"a,b\"").text();
        assert_eq!(text, "public, max-age=60, ext");
    }

    #[test]
    fn the_old_word_of_a_request_counts_where_there_is_no_new_one() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, "no-cache".parse().unwrap());
        assert!(Directives::of_request(&headers).has("no-cache"));
        headers.insert(CACHE_CONTROL, "max-age=1".parse().unwrap());
        assert!(!Directives::of_request(&headers).has("no-cache"));
    }
}
