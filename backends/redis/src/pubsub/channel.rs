//! Topics as channels of Redis.

use trunkline_messaging::{TopicName, TopicPattern};

use crate::link::Channel;

/// The channel of a topic.
pub(super) fn of_topic(prefix: &str, topic: &TopicName) -> String {
    format!("{prefix}{topic}")
}

/// Where to listen for a pattern. Redis has one wildcard, which stands for any text, dots included: it brings more than is
/// wanted, and what matches the pattern is sorted out here.
pub(super) fn of_pattern(prefix: &str, pattern: &TopicPattern) -> Channel {
    if let Some(topic) = pattern.as_topic() {
        return Channel::Exact(of_topic(prefix, &topic));
    }
    let mut glob = String::with_capacity(prefix.len() + pattern.as_str().len());
    for letter in prefix.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
            glob.push('\\');
        }
        glob.push(letter);
    }
    // `#` stands for no segment, too: the dot beside it is a part of what may be missing.
    let any = pattern.as_str().replace(".#", "*").replace("#.", "*");
    glob.push_str(&any.replace('#', "*"));
    Channel::Pattern(glob)
}

/// The topic of a channel, if it is one.
pub(super) fn topic(prefix: &str, channel: &[u8]) -> Option<TopicName> {
    let name = channel.strip_prefix(prefix.as_bytes())?;
    TopicName::new(std::str::from_utf8(name).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_bring_all_that_matches() {
        let listen = |pattern: &str| of_pattern("{a}*:", &TopicPattern::new(pattern).unwrap());
        let exact = Channel::Exact("{a}*:user.created".to_owned());
        assert_eq!(listen("user.created"), exact);
        for (pattern, glob) in [
            ("user.*", "user.*"),
            ("user.#", "user*"),
            ("#.created", "*created"),
            ("a.#.b", "a*.b"),
            ("#", "*"),
        ] {
            let expected = Channel::Pattern(format!("{{a}}\\*:{glob}"));
            assert_eq!(listen(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn foreign_channels_are_no_topics() {
        assert_eq!(topic("p:", b"p:a.b").unwrap().as_str(), "a.b");
        for other in ["a.b", "p:", "p:a b", "p:__keyspace@0__:x"] {
            assert_eq!(topic("p:", other.as_bytes()), None, "{other}");
        }
    }
}
