//! Publishes that nobody knows the outcome of.
//!
//! The server recognises a publish by an id and stores it once. That must be the id of the publish and not of the message: a
//! message may be published again on purpose, as a dead letter that is tried again is. So each publish has an id of its own,
//! unless the one before of the same message to the same place ended in doubt: then it is its repetition, and has its id.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Id;
use trunkline_messaging::Message;

/// Most that are remembered; the oldest are forgotten.
const MOST: usize = 20_000;

/// Which message to which place: whatever is in it counts, but not the time.
pub(crate) fn key(message: &Message, subject: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(message.id.as_bytes());
    hasher.write(b"\n");
    hasher.write(subject.as_bytes());
    hasher.write(b"\n");
    hasher.write(&message.payload);
    for (name, value) in message.headers.iter() {
        for part in [b"\n", name.as_bytes(), b"\n", value.as_bytes()] {
            hasher.write(part);
        }
    }
    hasher.finish()
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

    /// Begins a publish: under the id of the one that it repeats, or under a new one.
    pub(crate) fn begin(self: &Arc<Self>, key: u64, id: &str) -> InDoubt {
        let known = self.book().ids.remove(&key);
        let known = known.filter(|(_, at)| at.elapsed() < self.window);
        let repeats = known.is_some();
        let publish_id = known.map(|(known, _)| known).unwrap_or_else(|| {
            let readable: String = id.chars().filter(char::is_ascii_graphic).take(64).collect();
            format!("{readable}/{}", Id::new())
        });
        InDoubt {
            doubts: Arc::clone(self),
            key,
            publish_id,
            repeats,
            is_open: AtomicBool::new(repeats),
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

/// A publish. Dropped while its outcome, or that of the one that it repeats, is not known, it is remembered.
#[derive(Debug)]
pub(crate) struct InDoubt {
    doubts: Arc<Doubts>,
    key: u64,
    publish_id: String,
    repeats: bool,
    is_open: AtomicBool,
}

impl InDoubt {
    pub(crate) fn publish_id(&self) -> &str {
        &self.publish_id
    }

    /// From now on it may be stored.
    pub(crate) fn sent(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    /// It is stored.
    pub(crate) fn confirmed(&self) {
        self.is_open.store(false, Ordering::Release);
    }

    /// It is not stored. That says nothing of the one that it repeats, which may be on its way still.
    pub(crate) fn refused(&self) {
        self.is_open.store(self.repeats, Ordering::Release);
    }
}

impl Drop for InDoubt {
    fn drop(&mut self) {
        if self.is_open.load(Ordering::Acquire) {
            let publish_id = std::mem::take(&mut self.publish_id);
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
        let doubts = Arc::new(Doubts::new(WINDOW));
        let key = key(&Message::new("p").with_id("one two"), "q.work");
        let id = |publish: &InDoubt| publish.publish_id().to_owned();
        let begin = || doubts.begin(key, "one two");
        let first = id(&begin());
        assert!(first.starts_with("onetwo/"), "{first}");
        let second = begin();
        assert_ne!(id(&second), first, "nothing was sent");
        let second_id = id(&second);
        second.sent();
        second.refused();
        drop(second);
        let third = begin();
        assert_ne!(id(&third), second_id, "it is known not to be stored");
        let in_doubt = id(&third);
        third.sent();
        drop(third);
        let repeated = begin();
        assert_eq!(id(&repeated), in_doubt);
        repeated.sent();
        repeated.confirmed();
        drop(repeated);
        let later = begin();
        assert_ne!(id(&later), in_doubt, "it is known to be stored");
        let in_doubt = id(&later);
        later.sent();
        drop(later);
        tokio::time::advance(WINDOW).await;
        assert_ne!(id(&begin()), in_doubt, "the server has forgotten it");
    }

    /// What is in doubt stays so whatever becomes of its repetitions, until one is confirmed.
    #[tokio::test(start_paused = true)]
    async fn a_repetition_that_fails_settles_nothing() {
        let doubts = Arc::new(Doubts::new(WINDOW));
        let key = key(&Message::new("p").with_id("one"), "q.work");
        let first = doubts.begin(key, "one");
        first.sent();
        let in_doubt = first.publish_id().to_owned();
        drop(first);
        type Fate = fn(&InDoubt);
        let fates: [Fate; 3] = [
            |_| {},
            InDoubt::sent,
            |repetition| {
                repetition.sent();
                repetition.refused();
            },
        ];
        for fate in fates {
            let repetition = doubts.begin(key, "one");
            assert_eq!(repetition.publish_id(), in_doubt);
            fate(&repetition);
        }
        assert_eq!(doubts.begin(key, "one").publish_id(), in_doubt);
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
