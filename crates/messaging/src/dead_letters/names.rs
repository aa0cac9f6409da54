//! Queues that belong to a group.

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
/// dead letters that are tried again. A wildcard is no part of a queue's name and is spelled out.
pub(crate) fn retry_queue(owner: &str, source: &Source) -> Result<TopicName> {
    match source {
        Source::Queue(queue) => Ok(queue.clone()),
        Source::Topics(pattern) => {
            let segments = pattern.as_str().split('.').map(|segment| match segment {
                "*" => "_any",
                "#" => "_all",
                plain => plain,
            });
            let topics: Vec<&str> = segments.collect();
            name(owner, &format!("{owner}.retry.{}", topics.join(".")))
        }
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
}
