//! Queues that belong to a group.

use std::borrow::Cow;

use trunkline_core::{Error, Result};

use crate::topic::{Source, TopicName};

/// The dead letters of a group, or of a queue.
pub(crate) fn dead_letter_queue(owner: &str) -> Result<TopicName> {
    name(owner, &format!("{owner}.dlq"))
}

/// Who owns a queue of dead letters.
pub(crate) fn owner(queue: &TopicName) -> Option<&str> {
    queue.as_str().strip_suffix(".dlq")
}

/// Where one handler of a group gets messages from that are for it alone: repetitions that carry their own count, and
/// dead letters that are tried again. No two handlers have the same one, and it is nobody's queue of dead letters.
pub(crate) fn retry_queue(owner: &str, source: &Source) -> Result<TopicName> {
    match source {
        Source::Queue(queue) => Ok(queue.clone()),
        Source::Topics(pattern) => {
            let segments: Vec<Cow<'_, str>> = pattern.as_str().split('.').map(spelled).collect();
            name(owner, &format!("{owner}.retry.{}", segments.join(".")))
        }
    }
}

/// A segment of a pattern as a segment of a queue's name. A wildcard is no part of a name and is spelled out; what would
/// read like one of ours gets a mark, so that the last `retry` always ends the owner and no name ends with `dlq`.
fn spelled(segment: &str) -> Cow<'_, str> {
    match segment {
        "*" => Cow::Borrowed("_any"),
        "#" => Cow::Borrowed("_all"),
        "retry" | "dlq" => Cow::Owned(format!("_{segment}")),
        marked if marked.starts_with('_') => Cow::Owned(format!("_{marked}")),
        plain => Cow::Borrowed(plain),
    }
}

fn name(owner: &str, text: &str) -> Result<TopicName> {
    TopicName::new(text).map_err(|error| {
        Error::invalid(format!(
            "`{owner}` cannot have a queue `{text}`; choose a shorter name"
        ))
        .with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn queues_are_named_after_their_owner() {
        let dead = dead_letter_queue("mailer").unwrap();
        assert_eq!(dead.as_str(), "mailer.dlq");
        assert_eq!(owner(&dead), Some("mailer"));
        let source = Source::Topics("user.*.#".parse().unwrap());
        let retry = retry_queue("mailer", &source).unwrap();
        assert_eq!(retry.as_str(), "mailer.retry.user._any._all");
        let work = Source::Queue("work".parse().unwrap());
        assert_eq!(retry_queue("work", &work).unwrap().as_str(), "work");
        let long = "x".repeat(198);
        assert!(
            dead_letter_queue(&long)
                .unwrap_err()
                .message()
                .contains("shorter")
        );
    }
    #[test]
    fn no_two_handlers_share_a_queue() {
        let handlers = [
            ("mailer", "user.*"),
            ("mailer", "user._any"),
            ("mailer", "user.__any"),
            ("mailer", "user.#"),
            ("mailer", "user._all"),
            ("mailer", "a.retry.b"),
            ("mailer", "a._retry.b"),
            ("mailer.retry.a", "b"),
            ("mailer", "a.dlq"),
            ("mailer", "a._dlq"),
        ];
        let queue = |owner, pattern: &str| {
            retry_queue(owner, &Source::Topics(pattern.parse().unwrap())).unwrap()
        };
        let queues = handlers.map(|(owner, pattern)| queue(owner, pattern));
        let distinct: HashSet<_> = queues.iter().collect();
        assert_eq!(distinct.len(), handlers.len(), "{queues:?}");
        for queue in &queues {
            assert_eq!(owner(queue), None, "{queue} is a queue of dead letters");
        }
        assert_eq!(
            queue("mailer", "user.created").as_str(),
            "mailer.retry.user.created"
        );
    }
}
