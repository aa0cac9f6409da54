//! One dead letter, read.

use trunkline_core::Timestamp;
use trunkline_core::names::message_header as header;

use crate::broker::StoredMessage;
use crate::message::Message;
use crate::topic::{Source, TopicName, TopicPattern};

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its place in the queue of dead letters.
    pub position: u64,
    /// Why: `attempts`, `crashes`, `undecodable`, `untrusted`, `handler`; `unknown` when it was not a router that put it there.
    pub reason: String,
    /// The last error with its causes.
    pub error: String,
    /// Attempts made.
    pub attempts: u32,
    /// Where it was published to first: `topic order.created`.
    pub origin: Option<String>,
    /// The group whose handler gave it up; none for a consumer of a queue.
    pub group: Option<String>,
    /// What that handler subscribes to.
    pub source: Option<Source>,
    /// The name of that handler.
    pub handler: Option<String>,
    /// When it was given up.
    pub at: Option<Timestamp>,
    /// How often it was tried again before.
    pub replays: u32,
    /// The message, with all of its headers.
    pub message: Message,
}

impl DeadLetter {
    pub(super) fn read(stored: StoredMessage) -> Self {
        let headers = &stored.message.headers;
        let text = |name: &str| headers.get(name).map(str::to_owned);
        let number = |name: &str| headers.get(name).and_then(|text| text.parse().ok());
        Self {
            position: stored.info.position.unwrap_or_default(),
            reason: text(header::DEAD_REASON).unwrap_or_else(|| "unknown".to_owned()),
            error: text(header::DEAD_ERROR).unwrap_or_default(),
            attempts: number(header::ATTEMPTS).unwrap_or_default(),
            origin: text(header::ORIGIN),
            group: text(header::DEAD_GROUP),
            source: headers.get(header::DEAD_SOURCE).and_then(read_source),
            handler: text(header::DEAD_HANDLER),
            at: headers
                .get(header::DEAD_AT)
                .and_then(|text| text.parse().ok()),
            replays: number(header::REPLAYS).unwrap_or_default(),
            message: stored.message,
        }
    }

    /// The message as it was before it was given up, with the number of replays.
    pub(super) fn revived(&self) -> Message {
        let mut message = self.message.clone();
        for name in [
            header::DEAD_REASON,
            header::DEAD_ERROR,
            header::DEAD_GROUP,
            header::DEAD_SOURCE,
            header::DEAD_HANDLER,
            header::DEAD_AT,
            header::ATTEMPTS,
            header::COPY,
        ] {
            message.headers.remove(name);
        }
        let replays = self.replays.saturating_add(1).to_string();
        message.headers.insert(header::REPLAYS, replays);
        message
    }
}

fn read_source(text: &str) -> Option<Source> {
    let (kind, name) = text.split_once(' ')?;
    match kind {
        "topics" => TopicPattern::new(name).ok().map(Source::Topics),
        "queue" => TopicName::new(name).ok().map(Source::Queue),
        _ => None,
    }
}

/// Which dead letters are meant: those that pass every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterFilter {
    /// Only at these positions.
    pub positions: Option<Vec<u64>>,
    /// Only with this id.
    pub id: Option<String>,
    /// Only with this key.
    pub key: Option<String>,
    /// Only for this reason.
    pub reason: Option<String>,
    /// Only first published under this pattern.
    pub topic: Option<TopicPattern>,
    /// Only with this text in the error, in any case.
    pub error: Option<String>,
    /// Only given up at this time or later.
    pub since: Option<Timestamp>,
    /// Only given up before this time.
    pub until: Option<Timestamp>,
}

impl LetterFilter {
    /// Whether a dead letter is meant.
    #[must_use]
    pub fn passes(&self, letter: &DeadLetter) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        let positions = self.positions.as_ref();
        let error = self.error.as_ref().map(|text| text.to_lowercase());
        positions.is_none_or(|wanted| wanted.contains(&letter.position))
            && is(&self.id, Some(&letter.message.id))
            && is(&self.key, letter.message.key_text())
            && is(&self.reason, Some(&letter.reason))
            && self
                .topic
                .as_ref()
                .is_none_or(|wanted| comes_from(letter, wanted))
            && error.is_none_or(|text| letter.error.to_lowercase().contains(&text))
            && self
                .since
                .is_none_or(|since| letter.at.is_some_and(|at| at >= since))
            && self
                .until
                .is_none_or(|until| letter.at.is_some_and(|at| at < until))
    }
}

fn comes_from(letter: &DeadLetter, wanted: &TopicPattern) -> bool {
    let name = letter
        .origin
        .as_deref()
        .and_then(|text| text.split_once(' '));
    let name = name.and_then(|(_, name)| TopicName::new(name).ok());
    name.is_some_and(|name| wanted.matches(&name))
}

/// Some dead letters, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterPage {
    /// The dead letters.
    pub letters: Vec<DeadLetter>,
    /// Where to go on, if there may be more.
    pub next: Option<u64>,
    /// How many are in the queue, whatever the filter, where the broker knows.
    pub total: Option<u64>,
}
