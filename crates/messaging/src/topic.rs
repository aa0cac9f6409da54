//! Names of topics and queues, and patterns over them: one grammar for every broker.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trunkline_core::{Error, Result};

/// Longest name; RabbitMQ and Kafka allow 255 and 249 bytes, and suffixes such as `.dlq` must still fit.
const LONGEST: usize = 200;

/// The name of a topic or queue: segments of letters, digits, `_` and `-`, joined by dots, 1 to 200 bytes.
///
/// ```
/// use trunkline_messaging::TopicName;
///
/// let topic: TopicName = "order.created".parse()?;
/// assert_eq!(topic.segments().count(), 2);
/// assert!("order..created".parse::<TopicName>().is_err());
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// `Invalid` when the text does not follow the grammar; says where.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        check(name, false)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts between the dots.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// The name with another segment behind it, such as `orders.dlq`.
    ///
    /// # Errors
    /// `Invalid` when that would be too long or no name.
    pub fn join(&self, segment: &str) -> Result<Self> {
        Self::new(format!("{}.{segment}", self.0))
    }
}

/// A topic name in which `*` stands for one segment and `#` for any number of them, as in AMQP.
///
/// ```
/// use trunkline_messaging::{TopicName, TopicPattern};
///
/// let pattern: TopicPattern = "user.*".parse()?;
/// assert!(pattern.matches(&TopicName::new("user.created")?));
/// assert!(!pattern.matches(&TopicName::new("user.address.changed")?));
/// assert!("user.#".parse::<TopicPattern>()?.matches(&TopicName::new("user")?));
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicPattern(Arc<str>);

impl TopicPattern {
    /// Checks and takes a pattern; a plain name is one too.
    ///
    /// # Errors
    /// `Invalid` when the text does not follow the grammar; says where.
    pub fn new(pattern: impl AsRef<str>) -> Result<Self> {
        let pattern = pattern.as_ref();
        check(pattern, true)?;
        Ok(Self(pattern.into()))
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no wildcard in it.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains(['*', '#'])
    }

    /// The one topic it names, if there is no wildcard in it.
    #[must_use]
    pub fn as_topic(&self) -> Option<TopicName> {
        self.is_exact().then(|| TopicName(Arc::clone(&self.0)))
    }

    /// Whether a topic falls under the pattern.
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        let pattern: Vec<&str> = self.0.split('.').collect();
        let topic: Vec<&str> = topic.segments().collect();
        matches(&pattern, &topic)
    }
}

/// Follows the pattern once and, at a mismatch, lets the last `#` take one segment more: linear in practice, and never
/// worse than the product of both lengths.
fn matches(pattern: &[&str], topic: &[&str]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut hash: Option<(usize, usize)> = None;
    while seen < topic.len() {
        match pattern.get(at) {
            Some(&"#") => {
                hash = Some((at, seen));
                at += 1;
            }
            Some(&segment) if segment == "*" || Some(&segment) == topic.get(seen) => {
                at += 1;
                seen += 1;
            }
            _ => match hash {
                Some((hash_at, taken)) => {
                    hash = Some((hash_at, taken + 1));
                    at = hash_at + 1;
                    seen = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|segment| *segment == "#")
}

/// Whether a text is a name; for constants, which cannot make an error.
pub(crate) const fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.len() > LONGEST {
        return false;
    }
    let mut at = 0;
    let mut before = b'.';
    while at < bytes.len() {
        let byte = bytes[at];
        let fits = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !fits && (byte != b'.' || before == b'.') {
            return false;
        }
        before = byte;
        at += 1;
    }
    before != b'.'
}

fn check(text: &str, wildcards: bool) -> Result<()> {
    let what = if wildcards {
        "topic pattern"
    } else {
        "topic name"
    };
    let refuse = |why: String| {
        let shown: String = text.chars().take(64).collect();
        Err(Error::invalid(format!("`{shown}` is no {what}: {why}")))
    };
    if text.is_empty() || text.len() > LONGEST {
        return refuse(format!("it must have 1 to {LONGEST} bytes"));
    }
    for segment in text.split('.') {
        if segment.is_empty() {
            return refuse("there is an empty segment; write single dots between names".to_owned());
        }
        if wildcards && (segment == "*" || segment == "#") {
            continue;
        }
        let wrong = segment
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && *c != '_' && *c != '-');
        if let Some(c) = wrong {
            let hint = match c {
                '*' | '#' if wildcards => "; a wildcard must be a whole segment",
                '*' | '#' => "; wildcards are for subscriptions only",
                _ => "",
            };
            return refuse(format!(
                "`{c}` is not allowed; use letters, digits, `_`, `-` and dots{hint}"
            ));
        }
    }
    Ok(())
}

macro_rules! text_conversions {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

text_conversions!(TopicName);
text_conversions!(TopicPattern);

impl From<TopicName> for TopicPattern {
    fn from(name: TopicName) -> Self {
        Self(name.0)
    }
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To every group that subscribes to it. Nobody listening is counted, and an error only if `mandatory`.
    Topic(TopicName),
    /// To one consumer of the queue. A queue that does not exist is an error.
    Queue(TopicName),
}

impl Destination {
    /// The name of the topic or queue.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        match self {
            Self::Topic(name) | Self::Queue(name) => name,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Queue(name) => write!(f, "queue {name}"),
        }
    }
}

/// Where messages come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Every topic under a pattern.
    Topics(TopicPattern),
    /// One queue, which subscribing creates.
    Queue(TopicName),
}

impl Source {
    /// The queue or pattern as text.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Topics(pattern) => pattern.as_str(),
            Self::Queue(name) => name.as_str(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topics(pattern) => write!(f, "topics {pattern}"),
            Self::Queue(name) => write!(f, "queue {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the documentation says, without cleverness.
    fn expected(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern.split_first(), topic.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), None) => expected(rest, topic),
            (Some((&"#", rest)), Some((_, later))) => {
                expected(rest, topic) || expected(pattern, later)
            }
            (Some((&first, rest)), Some((&segment, later))) => {
                (first == "*" || first == segment) && expected(rest, later)
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_what_the_documentation_says(
            pattern in "(a|b|[*]|#)([.](a|b|[*]|#)){0,5}",
            topic in "(a|b)([.](a|b)){0,6}",
        ) {
            let segments: Vec<&str> = pattern.split('.').collect();
            let parts: Vec<&str> = topic.split('.').collect();
            let matches = TopicPattern::new(&pattern)
                .unwrap()
                .matches(&TopicName::new(&topic).unwrap());
            prop_assert_eq!(matches, expected(&segments, &parts), "{} {}", pattern, topic);
        }

        #[test]
        fn constants_are_checked_by_the_same_grammar(text in "[a-b.*_é -]{0,6}|[a.]{195,205}") {
            prop_assert_eq!(is_name(&text), TopicName::new(&text).is_ok());
        }
    }
}
