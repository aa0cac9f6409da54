//! Publishes that nobody knows the outcome of.
//!
//! The server recognises a publish by an id and stores it once. That must be the id of the publish and not of the message: a
//! message may be published again on purpose, as a dead letter that is tried again is. So each publish has an id of its own,
//! unless the one before of the same message to the same place ended in doubt: then it is its repetition, and has its id.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Id;
use trunkline_messaging::Message;

use super::publish::Outgoing;
use crate::names;

/// Most that are remembered; the oldest are forgotten.
const MOST: usize = 20_000;

/// Which message to which place: whatever is in it counts, but not the time.
pub(crate) fn key(message: &Message, subject: &str) -> u64 {
    let mut parts: Vec<&[u8]> = vec![
        message.id.as_bytes(),
        b"\n",
        subject.as_bytes(),
        b"\n",
        &message.payload,
    ];
    for (name, value) in message.headers.iter() {
        parts.extend([b"\n".as_slice(), name.as_bytes(), b"\n", value.as_bytes()]);
    }
    names::fnv(&parts)
}

#[derive(Debug, Default)]
struct Book {
    ids: HashMap<u64, (String, Instant)>,
    order: VecDeque<(u64, Instant)>,
}

/// What is in doubt.
#[derive(Debug)]
pub(crate) struct Doubts {
    book: Mutex<Book>,
    window: Duration,
}

impl Doubts {
    /// The server recognises a repetition for so long.
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            book: Mutex::default(),
            window,
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id for a publish: that of the one that it repeats, or a new one.
    pub(crate) fn publish_id(&self, key: u64, id: &str) -> String {
        let known = self.book().ids.remove(&key);
        match known {
            Some((known, at)) if at.elapsed() < self.window => known,
            _ => {
                let readable: String = id.chars().filter(char::is_ascii_graphic).take(64).collect();
                format!("{readable}/{}", Id::new())
            }
        }
    }

    /// From now on the outcome is in doubt, until it is known.
    pub(crate) fn guard(&self, outgoing: &Outgoing) -> InDoubt<'_> {
        InDoubt {
            doubts: self,
            key: outgoing.key,
            publish_id: Some(outgoing.publish_id.clone()),
        }
    }

    fn remember(&self, key: u64, publish_id: String) {
        let now = Instant::now();
        let mut book = self.book();
        book.ids.insert(key, (publish_id, now));
        book.order.push_back((key, now));
        while let Some((oldest, at)) = book.order.front().copied() {
            if book.order.len() <= MOST && now.saturating_duration_since(at) < self.window {
                break;
            }
            book.order.pop_front();
            if book.ids.get(&oldest).is_some_and(|(_, known)| *known == at) {
                book.ids.remove(&oldest);
            }
        }
    }
}

/// A publish whose outcome is not known yet. Dropped before it is, it is remembered.
#[derive(Debug)]
pub(crate) struct InDoubt<'a> {
    doubts: &'a Doubts,
    key: u64,
    publish_id: Option<String>,
}

impl InDoubt<'_> {
    /// The outcome is known, whatever it is.
    pub(crate) fn settled(mut self) {
        self.publish_id = None;
    }
}

impl Drop for InDoubt<'_> {
    fn drop(&mut self) {
        if let Some(publish_id) = self.publish_id.take() {
            self.doubts.remember(self.key, publish_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(doubts: &Doubts) -> (usize, usize) {
        let book = doubts.book();
        (book.ids.len(), book.order.len())
    }

    const WINDOW: Duration = Duration::from_secs(120);

    #[tokio::test(start_paused = true)]
    async fn only_the_repetition_of_what_is_in_doubt_has_its_id() {
        let doubts = Doubts::new(WINDOW);
        let message = Message::new("p").with_id("one two");
        let key = key(&message, "q.work");
        let first = doubts.publish_id(key, "one two");
        assert!(first.starts_with("onetwo/"), "{first}");
        let again = doubts.publish_id(key, "one two");
        assert_ne!(again, first, "nothing was in doubt");
        doubts.remember(key, first.clone());
        assert_eq!(doubts.publish_id(key, "one two"), first);
        doubts.remember(key, first.clone());
        tokio::time::advance(WINDOW).await;
        assert_ne!(
            doubts.publish_id(key, "one two"),
            first,
            "the server has forgotten it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let doubts = Doubts::new(WINDOW);
        for key in 0..MOST as u64 + 10 {
            doubts.remember(key, String::new());
        }
        assert_eq!(sizes(&doubts), (MOST, MOST));
        tokio::time::advance(WINDOW).await;
        doubts.remember(1, String::new());
        assert_eq!(sizes(&doubts), (1, 1));
    }

    #[test]
    fn whatever_is_in_a_message_tells_it_apart() {
        let message = Message::new("p").with_id("one").with_header("a", "b");
        let same = key(&message, "q.work");
        assert_eq!(key(&message, "q.work"), same);
        for other in [
            key(&message, "q.other"),
            key(&message.clone().with_header("a", "c"), "q.work"),
            key(&message.with_id("two"), "q.work"),
        ] {
            assert_ne!(other, same);
        }
    }
}
