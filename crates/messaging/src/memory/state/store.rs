//! The messages themselves: how many, how large, which are kept for replay.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Timestamp;

use super::arena::{Arena, Key};
use crate::memory::config::MemoryConfig;
use crate::message::Message;
use crate::topic::{Destination, TopicName, TopicPattern};

/// Looking for expired messages walks through everything, so it is not done more often than this.
const BETWEEN_SWEEPS: Duration = Duration::from_millis(50);

/// Topics remembered for speed although nothing of them is kept.
const TOPICS_REMEMBERED: usize = 10_000;

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) message: Arc<Message>,
    pub(super) destination: Destination,
    /// The topic it was published to, if it was one.
    pub(super) topic: Option<Key>,
    pub(super) position: u64,
    pub(super) stored_at: Timestamp,
    /// Published for later.
    pub(super) due: Option<Instant>,
    pub(super) expires: Option<Instant>,
    pub(super) size: usize,
    /// Mailboxes that are not done with it.
    pub(super) pending: usize,
    /// Whether it is kept for replay.
    pub(super) retained: bool,
}

/// A topic that is remembered: for its messages, and for who gets new ones.
#[derive(Debug)]
struct Topic {
    name: TopicName,
    log: VecDeque<Key>,
    routes: Arc<[Key]>,
    /// The routing by which the routes were found.
    routing: u64,
}

#[derive(Debug)]
pub(super) struct Store {
    messages: Arena<Stored>,
    bytes: usize,
    position: u64,
    /// What is kept for replay, oldest first; and the same by topic.
    history: VecDeque<Key>,
    history_bytes: usize,
    topics: Arena<Topic>,
    names: HashMap<TopicName, Key>,
    most_topics: usize,
    routing: u64,
    /// Messages removed; their memory is freed when the lock is released.
    garbage: Vec<Arc<Message>>,
    /// No message expires before this.
    next_expiry: Option<Instant>,
    max_messages: usize,
    max_bytes: usize,
    retain_messages: usize,
    retain_bytes: usize,
}

impl Store {
    pub(super) fn new(config: &MemoryConfig) -> Self {
        Self {
            messages: Arena::default(),
            bytes: 0,
            position: 0,
            history: VecDeque::new(),
            history_bytes: 0,
            topics: Arena::default(),
            names: HashMap::new(),
            most_topics: TOPICS_REMEMBERED,
            routing: 0,
            garbage: Vec::new(),
            next_expiry: None,
            max_messages: config.max_messages,
            max_bytes: config.max_bytes.as_usize(),
            retain_messages: config.retain_messages,
            retain_bytes: config.retain_bytes.as_usize(),
        }
    }

    pub(super) fn next_position(&self) -> u64 {
        self.position + 1
    }

    pub(super) fn insert(&mut self, stored: Stored) -> Key {
        self.position = stored.position;
        self.bytes += stored.size;
        if let Some(expires) = stored.expires {
            let earliest = self.next_expiry.map_or(expires, |known| known.min(expires));
            self.next_expiry = Some(earliest);
        }
        self.messages.insert(stored)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Stored> {
        self.messages.get(key)
    }

    /// Keeps a message of a topic for replay, as far as that is allowed; forgets one that nobody needs.
    pub(super) fn settle_retention(&mut self, key: Key) {
        let Some(stored) = self.messages.get_mut(key) else {
            return;
        };
        let fits = self.retain_messages > 0 && stored.size <= self.retain_bytes;
        if let Some(topic) = stored.topic.and_then(|topic| self.topics.get_mut(topic))
            && fits
        {
            stored.retained = true;
            self.history_bytes += stored.size;
            self.history.push_back(key);
            topic.log.push_back(key);
            while self.history.len() > self.retain_messages
                || self.history_bytes > self.retain_bytes
            {
                self.forget_oldest();
            }
        } else if stored.pending == 0 {
            self.remove(key);
        }
    }

    /// Gives up the oldest message kept for replay. It stays while a mailbox needs it.
    fn forget_oldest(&mut self) -> bool {
        let Some(key) = self.history.pop_front() else {
            return false;
        };
        let Some(stored) = self.messages.get_mut(key) else {
            return true;
        };
        stored.retained = false;
        self.history_bytes -= stored.size;
        if let Some(topic) = stored.topic.and_then(|topic| self.topics.get_mut(topic)) {
            // The oldest of all is the oldest of its topic.
            topic.log.pop_front();
        }
        if stored.pending == 0 {
            self.remove(key);
        }
        true
    }

    /// One mailbox is done with a message.
    pub(super) fn release(&mut self, key: Key) {
        let Some(stored) = self.messages.get_mut(key) else {
            return;
        };
        stored.pending = stored.pending.saturating_sub(1);
        if stored.pending == 0 && !stored.retained {
            self.remove(key);
        }
    }

    /// One mailbox more needs a message; says when it is due.
    pub(super) fn add_pending(&mut self, key: Key) -> Option<Instant> {
        let stored = self.messages.get_mut(key)?;
        stored.pending += 1;
        stored.due
    }

    fn remove(&mut self, key: Key) {
        if let Some(gone) = self.messages.remove(key) {
            self.bytes -= gone.size;
            self.garbage.push(gone.message);
        }
    }

    /// Messages that were removed, to be freed.
    pub(super) fn take_garbage(&mut self) -> Vec<Arc<Message>> {
        std::mem::take(&mut self.garbage)
    }

    /// The topic of this name and the mailboxes that get its messages; they are found once.
    pub(super) fn topic(
        &mut self,
        name: &TopicName,
        find: impl FnOnce() -> Arc<[Key]>,
    ) -> (Key, Arc<[Key]>) {
        let routing = self.routing;
        if let Some(key) = self.names.get(name)
            && let Some(topic) = self.topics.get_mut(*key)
        {
            if topic.routing != routing {
                topic.routing = routing;
                topic.routes = find();
            }
            return (*key, Arc::clone(&topic.routes));
        }
        if self.topics.len() >= self.most_topics {
            self.forget_empty_topics();
        }
        let routes = find();
        let key = self.topics.insert(Topic {
            name: name.clone(),
            log: VecDeque::new(),
            routes: Arc::clone(&routes),
            routing,
        });
        self.names.insert(name.clone(), key);
        (key, routes)
    }

    /// Who gets which messages has changed: it is found anew for every topic.
    pub(super) fn reroute(&mut self) {
        self.routing += 1;
    }

    /// A topic of which nothing is kept is remembered for speed alone.
    fn forget_empty_topics(&mut self) {
        let empty = self.topics.iter().filter(|(_, topic)| topic.log.is_empty());
        let empty: Vec<Key> = empty.map(|(key, _)| key).collect();
        for key in empty {
            if let Some(gone) = self.topics.remove(key) {
                self.names.remove(&gone.name);
            }
        }
        self.most_topics = TOPICS_REMEMBERED.max(self.topics.len() * 2);
    }

    /// Whether a message of this size fits, after giving up what is kept for replay.
    pub(super) fn make_room(&mut self, size: usize) -> bool {
        while self.messages.len() >= self.max_messages || self.bytes + size > self.max_bytes {
            if !self.forget_oldest() {
                return false;
            }
        }
        true
    }

    /// Messages and bytes stored.
    pub(super) fn fill(&self) -> (usize, usize) {
        (self.messages.len(), self.bytes)
    }

    pub(super) fn is_expired(&self, key: Key, now: Instant) -> bool {
        let expires = self.messages.get(key).and_then(|stored| stored.expires);
        expires.is_some_and(|expires| expires <= now)
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    pub(super) fn note_next_expiry(&mut self, now: Instant) {
        let all = self
            .messages
            .iter()
            .filter_map(|(_, stored)| stored.expires);
        let earliest = all.filter(|expires| *expires > now).min();
        self.next_expiry = earliest.map(|expires| expires.max(now + BETWEEN_SWEEPS));
    }

    /// Messages kept for replay under a pattern, since a time, in order.
    pub(super) fn kept(&self, pattern: &TopicPattern, from: Timestamp, now: Instant) -> Vec<Key> {
        let wanted = |key: &&Key| {
            self.messages.get(**key).is_some_and(|stored| {
                stored.stored_at >= from && stored.expires.is_none_or(|expires| expires > now)
            })
        };
        match pattern.as_topic() {
            Some(topic) => {
                let log = self.log_keys(&topic);
                log.filter(wanted).copied().collect()
            }
            None => {
                let matches = |key: &&Key| {
                    self.messages
                        .get(**key)
                        .is_some_and(|stored| pattern.matches(stored.destination.name()))
                };
                self.history
                    .iter()
                    .filter(matches)
                    .filter(wanted)
                    .copied()
                    .collect()
            }
        }
    }

    /// The messages of one topic kept for replay, oldest first.
    pub(super) fn log(&self, topic: &TopicName) -> impl Iterator<Item = &Stored> {
        self.log_keys(topic)
            .filter_map(|key| self.messages.get(*key))
    }

    fn log_keys(&self, topic: &TopicName) -> impl Iterator<Item = &Key> {
        let topic = self.names.get(topic).and_then(|key| self.topics.get(*key));
        topic.into_iter().flat_map(|topic| &topic.log)
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.history.clear();
        self.topics.clear();
        self.names.clear();
        self.bytes = 0;
        self.history_bytes = 0;
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let bytes: usize = self.messages.iter().map(|(_, stored)| stored.size).sum();
        assert_eq!(bytes, self.bytes, "bytes are counted right");
        let retained = self.messages.iter().filter(|(_, s)| s.retained).count();
        assert_eq!(retained, self.history.len(), "history is counted right");
        let logged: usize = self.topics.iter().map(|(_, topic)| topic.log.len()).sum();
        assert_eq!(
            logged,
            self.history.len(),
            "each kept message is in one log"
        );
        let needed = |s: &Stored| s.pending > 0 || s.retained;
        assert!(
            self.messages.iter().all(|(_, s)| needed(s)),
            "nothing leaks"
        );
    }
}
