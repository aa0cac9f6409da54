//! Names of queues and exchanges on the server.

use std::time::Duration;

use trunkline_core::Id;
use trunkline_messaging::{Source, TopicName};

/// Names of AMQP are no longer.
const LONGEST: usize = 255;

/// The queue of a group: its name, then what it subscribes to. A colon stands in neither, so the queue is nobody else's.
pub(crate) fn group_queue(group: &str, source: &Source) -> String {
    let whole = format!("{group}:{}", source.name());
    if whole.len() <= LONGEST {
        return whole;
    }
    // Two hundred bytes of group, and a hash of all of it.
    format!("{group}:#{:032x}", fnv(whole.as_bytes()))
}

/// The queue of one subscriber without a group. That of answers is called like the address that questions carry, so that
/// clients who know nothing of topics answer to it.
pub(crate) fn subscriber_queue(source: &Source) -> String {
    let address = match source {
        Source::Topics(pattern) => pattern.as_topic().as_ref().and_then(answers),
        Source::Queue(_) => None,
    };
    address.unwrap_or_else(|| format!("trunkline.subscriber:{}", Id::new()))
}

/// The address of a requester, `reply.<service>.<id>`, without what an environment puts before it.
fn answers(topic: &TopicName) -> Option<String> {
    let segments: Vec<&str> = topic.segments().collect();
    let [.., reply, service, id] = segments.as_slice() else {
        return None;
    };
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (*reply == "reply" && is_id).then(|| format!("reply.{service}.{id}"))
}

/// Begins the name that stands for a foreign address.
const FOREIGN: &str = "amqp-reply";

/// The name of a queue that stands for a foreign address for answers, with what they are to be correlated by; none if it
/// would be too long.
pub(crate) fn reply_name(address: &str, correlation: Option<&str>) -> Option<TopicName> {
    let mut name = format!("{FOREIGN}.{}", escaped(address));
    if let Some(correlation) = correlation.filter(|text| !text.is_empty()) {
        name = format!("{name}.{}", escaped(correlation));
    }
    TopicName::new(name).ok()
}

/// The address and the correlation that the name of a queue stands for, whatever an environment puts before it.
pub(crate) fn reply_address(queue: &str) -> Option<(String, Option<String>)> {
    let mut segments = queue.split('.').skip_while(|segment| *segment != FOREIGN);
    segments.next()?;
    let address = unescaped(segments.next()?)?;
    let correlation = match segments.next() {
        Some(text) => Some(unescaped(text)?),
        None => None,
    };
    segments.next().is_none().then_some((address, correlation))
}

/// Any text as one segment of a name: `_` and two digits for each byte that has no place there.
fn escaped(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("_{byte:02x}"));
        }
    }
    segment
}

fn unescaped(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'_' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// A consumer's tag, which nobody else has.
pub(crate) fn consumer_tag(name: &str) -> String {
    let name: String = name.chars().filter(char::is_ascii).take(100).collect();
    format!("{name}:{}", Id::new())
}

/// Where messages wait for so many milliseconds before they go to an exchange, or to a queue where that has no name.
pub(crate) fn delay(millis: u64, exchange: &str, routing_key: &str) -> String {
    let to = match exchange {
        "" => format!("queue {routing_key}"),
        exchange => exchange.to_owned(),
    };
    let whole = format!("trunkline.delay:{millis}ms:{to}");
    if whole.len() <= LONGEST {
        return whole;
    }
    format!("trunkline.delay:{millis}ms:#{:032x}", fnv(to.as_bytes()))
}

/// What gives messages that are due to an exchange.
pub(crate) fn due(exchange: &str) -> String {
    let whole = format!("trunkline.due:{exchange}");
    if whole.len() <= LONGEST {
        return whole;
    }
    format!("trunkline.due:#{:032x}", fnv(exchange.as_bytes()))
}

/// A delay in milliseconds, rounded up so that there are few different ones: eight for each doubling, at most an eighth more.
pub(crate) fn rounded_delay(delay: Duration) -> u64 {
    let whole = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    // A part of a millisecond is not cut off: the message must not come early.
    let exact = if delay > Duration::from_millis(whole) {
        whole + 1
    } else {
        whole
    };
    let bits = u64::BITS - exact.leading_zeros();
    let step = 1_u64 << bits.saturating_sub(4);
    exact.div_ceil(step).saturating_mul(step).max(1)
}

/// A foreign routing key as a topic: what the grammar does not know becomes `_`.
pub(crate) fn topic_of_key(key: &str) -> Option<TopicName> {
    if let Ok(topic) = TopicName::new(key) {
        return Some(topic);
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let segments = key.split('.').map(|segment| {
        let segment: String = segment
            .chars()
            .map(|c| if fits(c) { c } else { '_' })
            .collect();
        if segment.is_empty() {
            "_".to_owned()
        } else {
            segment
        }
    });
    let text = segments.collect::<Vec<_>>().join(".");
    let text: String = text.chars().take(200).collect();
    TopicName::new(text.trim_end_matches('.')).ok()
}

/// FNV-1a with 128 bits: the same in every version of this crate, as the names of queues must be.
pub(crate) fn fnv(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
            (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
}

#[cfg(test)]
mod tests {
    use trunkline_messaging::TopicPattern;

    use super::*;

    fn topics(pattern: &str) -> Source {
        Source::Topics(TopicPattern::new(pattern).unwrap())
    }

    #[test]
    fn one_group_with_two_patterns_has_two_queues() {
        assert_eq!(group_queue("mail", &topics("user.*")), "mail:user.*");
        assert_ne!(
            group_queue("mail", &topics("a")),
            group_queue("mail", &topics("b"))
        );
    }

    #[test]
    fn answers_have_a_queue_of_the_name_of_their_address() {
        let address = format!("reply.shop-1.{}", "0a".repeat(16));
        assert_eq!(subscriber_queue(&topics(&address)), address);
        let staged = format!("staging.{address}");
        assert_eq!(subscriber_queue(&topics(&staged)), address);
        for other in ["reply.shop.1", "a.*", "orders"] {
            let queue = subscriber_queue(&topics(other));
            assert!(queue.starts_with("trunkline.subscriber:"), "{queue}");
        }
    }

    #[test]
    fn no_other_queue_stands_for_an_address() {
        for name in [
            "work",
            "amqp-reply",
            "amqp-reply._",
            "amqp-reply.a.b.c",
            "amqp-reply._zz",
        ] {
            assert_eq!(reply_address(name), None, "{name}");
        }
        assert!(reply_name(&"x".repeat(255), None).is_none());
    }

    #[test]
    fn long_names_are_shortened_and_stay_apart() {
        let group = "g".repeat(200);
        let names = ["a", "b"]
            .map(|end| group_queue(&group, &topics(&format!("{}{end}", "p".repeat(199)))));
        assert!(names.iter().all(|name| name.len() <= LONGEST));
        assert_ne!(names[0], names[1]);
        // Written down: a queue must be found again by every later version.
        let name = group_queue(&group, &topics(&"p".repeat(200)));
        assert!(
            name.ends_with(":#ab672b4b748af60ca9a74b4e09b6e035"),
            "{name}"
        );
    }

    #[test]
    fn delays_are_rounded_up_to_few_values() {
        for (millis, expected) in [
            (0, 1),
            (1, 1),
            (100, 104),
            (400, 416),
            (700, 704),
            (3000, 3072),
        ] {
            assert_eq!(
                rounded_delay(Duration::from_millis(millis)),
                expected,
                "{millis}"
            );
        }
        assert_eq!(rounded_delay(Duration::from_micros(1500)), 2);
        let distinct: std::collections::BTreeSet<u64> = (1..100_000)
            .map(|millis| rounded_delay(Duration::from_millis(millis)))
            .collect();
        assert!(distinct.len() < 130, "{}", distinct.len());
        for millis in 1..100_000 {
            let rounded = rounded_delay(Duration::from_millis(millis));
            assert!(
                rounded >= millis && rounded <= millis + millis / 8 + 1,
                "{millis}: {rounded}"
            );
        }
    }

    #[test]
    fn foreign_keys_become_topics() {
        for (key, topic) in [
            ("a.b", "a.b"),
            ("a b/c", "a_b_c"),
            ("", "_"),
            ("a..b", "a._.b"),
        ] {
            assert_eq!(topic_of_key(key).unwrap().as_str(), topic);
        }
        assert!(topic_of_key(&"é.".repeat(150)).is_some());
    }
}
