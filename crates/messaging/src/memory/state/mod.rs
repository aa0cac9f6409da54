//! What the broker knows, as a machine without I/O: the time is passed in, and who has to be woken is passed out.
//!
//! A *mailbox* is a place where messages wait for consumers that compete: of a group, of a queue, or of one subscriber
//! without a group. A message is stored once and counted by how many mailboxes still need it.

mod arena;
mod browse;
mod lag;
mod mailbox;
mod store;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Error, Result, Timestamp};

use arena::Arena;
pub(super) use arena::Key;
pub(super) use mailbox::Taken;
use mailbox::{Entry, Mailbox};
use store::{Store, Stored};

use super::config::MemoryConfig;
use crate::message::{Message, Publish, Receipt, Routed};
use crate::subscription::{Start, Subscribe};
use crate::topic::{Destination, Source, TopicName, TopicPattern};

/// The time, read when somebody asks for it: most publishes and acknowledgements do not.
#[derive(Debug, Default)]
pub(super) struct Now(Cell<Option<Instant>>);

impl Now {
    #[cfg(test)]
    pub(super) fn at(instant: Instant) -> Self {
        Self(Cell::new(Some(instant)))
    }

    pub(super) fn get(&self) -> Instant {
        let now = self.0.get().unwrap_or_else(Instant::now);
        self.0.set(Some(now));
        now
    }
}

/// A message on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) destination: Destination,
    pub(super) message: Arc<Message>,
    pub(super) size: usize,
    pub(super) delay: Option<Duration>,
    pub(super) expires_in: Option<Duration>,
    pub(super) mandatory: bool,
    /// When the broker got it.
    pub(super) at: Timestamp,
}

impl Incoming {
    pub(super) fn new(publish: Publish, at: Timestamp) -> Self {
        let Publish {
            destination,
            mut message,
            delay,
            expires_in,
            mandatory,
        } = publish;
        message.published_at.get_or_insert(at);
        Self {
            destination,
            size: message.size(),
            message: Arc::new(message),
            delay,
            expires_in,
            mandatory,
            at,
        }
    }
}

/// Why a message was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// There is no room now. When a message expires there may be.
    Full {
        publish: Incoming,
        expiry: Option<Instant>,
    },
    /// It will not be taken later either.
    Never(Error),
}

/// Leave for one message to come in.
#[derive(Debug)]
struct Admitted {
    route: Route,
    /// Whether it is stored at all.
    keep: bool,
}

/// The mailboxes that get a message, and the topic it is kept for.
#[derive(Debug)]
enum Route {
    Queue(Key),
    Topic { topic: Key, routes: Arc<[Key]> },
}

impl Route {
    fn mailboxes(&self) -> &[Key] {
        match self {
            Self::Queue(key) => std::slice::from_ref(key),
            Self::Topic { routes, .. } => routes,
        }
    }

    fn topic(&self) -> Option<Key> {
        match self {
            Self::Queue(_) => None,
            Self::Topic { topic, .. } => Some(*topic),
        }
    }
}

/// Those who have to be polled again; wake them after the lock is released.
pub(super) type Wake = Vec<Waker>;

#[derive(Debug)]
pub(super) struct State {
    store: Store,
    mailboxes: Arena<Mailbox>,
    /// Every mailbox of topics, in the order in which they came.
    listeners: Vec<(TopicPattern, Key)>,
    groups: HashMap<(String, TopicPattern), Key>,
    queues: BTreeMap<TopicName, Key>,
}

impl State {
    pub(super) fn new(config: &MemoryConfig) -> Self {
        Self {
            store: Store::new(config),
            mailboxes: Arena::default(),
            listeners: Vec::new(),
            groups: HashMap::new(),
            queues: BTreeMap::new(),
        }
    }

    /// Takes a message, or says why not.
    pub(super) fn publish(
        &mut self,
        publish: Incoming,
        now: &Now,
        wake: &mut Wake,
    ) -> Result<Receipt, Refused> {
        let route = self.route(&publish).map_err(Refused::Never)?;
        let keep = self.make_room(publish.size, now, wake);
        if !keep && !route.mailboxes().is_empty() {
            return Err(Refused::Full {
                publish,
                expiry: self.store.next_expiry(),
            });
        }
        // What nobody listens to need not be kept.
        Ok(self.accept(publish, &Admitted { route, keep }, now, wake))
    }

    /// Publishes a message and ends a lease with its message done: both or neither. A refused message is given back.
    /// There need not be room: one goes, one comes. `None` when the lease is lost.
    pub(super) fn forward(
        &mut self,
        mailbox: Key,
        lease: Key,
        publish: Incoming,
        now: &Now,
        wake: &mut Wake,
    ) -> Option<Result<()>> {
        if let Some(found) = self.mailboxes.get_mut(mailbox) {
            found.advance(now.get(), &mut self.store, wake);
            if !found.holds(lease) {
                return None;
            }
        }
        let route = match self.route(&publish) {
            Ok(route) => route,
            Err(refused) => {
                self.requeue(mailbox, lease, None, now.get(), wake)?;
                return Some(Err(refused));
            }
        };
        let room = self.make_room(publish.size, now, wake);
        let keep = room || !route.mailboxes().is_empty();
        self.accept(publish, &Admitted { route, keep }, now, wake);
        self.finish(mailbox, lease, wake).map(Ok)
    }

    fn accept(
        &mut self,
        publish: Incoming,
        admitted: &Admitted,
        now: &Now,
        wake: &mut Wake,
    ) -> Receipt {
        let mailboxes = admitted.route.mailboxes();
        let routed = if mailboxes.is_empty() {
            Routed::No
        } else {
            Routed::Yes
        };
        let position = self.store.next_position();
        let receipt = Receipt::new(publish.message.id.clone(), routed).at(position);
        if !admitted.keep {
            return receipt;
        }
        let due = publish.delay.and_then(|delay| now.get().checked_add(delay));
        let key = self.store.insert(Stored {
            message: publish.message,
            destination: publish.destination,
            topic: admitted.route.topic(),
            position,
            stored_at: publish.at,
            due,
            expires: publish
                .expires_in
                .and_then(|span| now.get().checked_add(span)),
            size: publish.size,
            pending: mailboxes.len(),
            retained: false,
        });
        for mailbox in mailboxes {
            self.place(*mailbox, key, due, now, wake);
        }
        self.store.settle_retention(key);
        receipt
    }

    fn place(
        &mut self,
        route: Key,
        message: Key,
        due: Option<Instant>,
        now: &Now,
        wake: &mut Wake,
    ) {
        let (Some(mailbox), Some(stored)) =
            (self.mailboxes.get_mut(route), self.store.get(message))
        else {
            return;
        };
        let entry = Entry::new(message, stored);
        match due.filter(|due| *due > now.get()) {
            Some(due) => mailbox.place_later(entry, due),
            None => mailbox.place(entry),
        }
        mailbox.wake(wake);
    }

    fn route(&mut self, publish: &Incoming) -> Result<Route> {
        match &publish.destination {
            Destination::Queue(name) => {
                let key = self.queues.get(name).ok_or_else(|| missing_queue(name))?;
                Ok(Route::Queue(*key))
            }
            Destination::Topic(name) => {
                let listeners = &self.listeners;
                let (topic, routes) = self.store.topic(name, || matching(listeners, name));
                if publish.mandatory && routes.is_empty() {
                    return Err(Error::not_found(format!(
                        "nobody subscribes to the topic {name}, and the message is mandatory"
                    )));
                }
                Ok(Route::Topic { topic, routes })
            }
        }
    }

    /// Makes room for a message, at the cost of those kept for replay and of expired ones.
    fn make_room(&mut self, size: usize, now: &Now, wake: &mut Wake) -> bool {
        if self.store.make_room(size) {
            return true;
        }
        let is_due = |next| next <= now.get();
        if !self.store.next_expiry().is_some_and(is_due) {
            return false;
        }
        self.sweep(now.get(), wake);
        self.store.make_room(size)
    }

    /// Drops every expired message that no consumer holds.
    fn sweep(&mut self, now: Instant, wake: &mut Wake) {
        let mut done = Vec::new();
        let store = &self.store;
        for mailbox in self.mailboxes.values_mut() {
            mailbox.remove_where(&mut done, |entry| store.is_expired(entry.message, now));
            mailbox.wake(wake);
        }
        for message in done {
            self.store.release(message);
        }
        self.store.note_next_expiry(now);
    }

    /// Messages and bytes stored.
    pub(super) fn fill(&self) -> (usize, usize) {
        self.store.fill()
    }

    /// Creates a queue unless it is there.
    pub(super) fn declare_queue(&mut self, name: &TopicName) -> Key {
        if let Some(known) = self.queues.get(name) {
            return *known;
        }
        let key = self.mailboxes.insert(Mailbox::queue());
        self.queues.insert(name.clone(), key);
        key
    }

    /// Adds a consumer: the mailbox it takes from, and itself in it.
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe, now: &Now) -> (Key, Key) {
        let key = match &subscribe.source {
            Source::Queue(name) => self.declare_queue(name),
            Source::Topics(pattern) => self.listener(pattern, subscribe, now),
        };
        let consumer = self
            .mailboxes
            .get_mut(key)
            .map(|mailbox| mailbox.add_consumer(subscribe.prefetch, subscribe.lease))
            .expect("the mailbox was found or made just now");
        (key, consumer)
    }

    fn listener(&mut self, pattern: &TopicPattern, subscribe: &Subscribe, now: &Now) -> Key {
        let identity = subscribe
            .group
            .as_ref()
            .map(|group| (group.clone(), pattern.clone()));
        if let Some(identity) = &identity
            && let Some(known) = self.groups.get(identity)
        {
            return *known;
        }
        let mailbox = Mailbox::listener(subscribe.group.as_deref());
        let key = self.mailboxes.insert(mailbox);
        self.listeners.push((pattern.clone(), key));
        self.store.reroute();
        if let Some(identity) = identity {
            self.groups.insert(identity, key);
        }
        self.replay(pattern, subscribe.start, key, now);
        key
    }

    /// Messages that were removed, to be freed when the lock is released.
    pub(super) fn take_garbage(&mut self) -> Vec<Arc<Message>> {
        self.store.take_garbage()
    }

    fn replay(&mut self, pattern: &TopicPattern, start: Start, mailbox: Key, now: &Now) {
        let from = match start {
            Start::Latest => return,
            Start::Earliest => Timestamp::from_unix_micros(i64::MIN),
            Start::At(time) => time,
        };
        for message in self.store.kept(pattern, from, now.get()) {
            let due = self.store.add_pending(message);
            self.place(mailbox, message, due, now, &mut Wake::new());
        }
    }

    /// Takes a consumer away. What it was handed out stays with its owner; a subscriber without a group takes its
    /// mailbox along.
    pub(super) fn unsubscribe(&mut self, mailbox: Key, consumer: Key, wake: &mut Wake) {
        let Some(found) = self.mailboxes.get_mut(mailbox) else {
            return;
        };
        found.remove_consumer(consumer);
        if !found.is_private() {
            found.wake(wake);
            return;
        }
        self.listeners.retain(|(_, key)| *key != mailbox);
        self.store.reroute();
        let mut done = Vec::new();
        if let Some(mut gone) = self.mailboxes.remove(mailbox) {
            gone.remove_where(&mut done, |_| true);
            done.extend(gone.take_leased());
        }
        for message in done {
            self.store.release(message);
        }
    }

    /// The next message for a consumer; if there is none its waker is kept, and the answer says when to look again at
    /// the latest.
    pub(super) fn take(
        &mut self,
        mailbox: Key,
        consumer: Key,
        waker: &Waker,
        now: Instant,
        wake: &mut Wake,
    ) -> Taken {
        let store = &mut self.store;
        let Some(mailbox) = self.mailboxes.get_mut(mailbox) else {
            return Taken::Wait(None);
        };
        mailbox.take(consumer, waker, now, store, wake)
    }

    /// Ends a lease with the message done. `None` when it is lost; one that has run out and that nobody has noticed yet
    /// still holds.
    pub(super) fn finish(&mut self, mailbox: Key, lease: Key, wake: &mut Wake) -> Option<()> {
        let Some(found) = self.mailboxes.get_mut(mailbox) else {
            // Its subscriber without a group has gone: nobody else can get the message.
            return Some(());
        };
        let entry = found.end_lease(lease)?;
        found.finish_key(&entry);
        found.wake(wake);
        self.store.release(entry.message);
        Some(())
    }

    /// Ends a lease with the message coming again. `None` when it is lost.
    pub(super) fn requeue(
        &mut self,
        mailbox: Key,
        lease: Key,
        delay: Option<Duration>,
        now: Instant,
        wake: &mut Wake,
    ) -> Option<()> {
        let Some(found) = self.mailboxes.get_mut(mailbox) else {
            return Some(());
        };
        found.advance(now, &mut self.store, wake);
        let entry = found.end_lease(lease)?;
        let due = delay.and_then(|delay| now.checked_add(delay));
        found.place_again(entry, due.filter(|due| *due > now));
        found.wake(wake);
        Some(())
    }

    /// Lets a lease run for so long from now. `None` when it is lost.
    pub(super) fn extend(
        &mut self,
        mailbox: Key,
        lease: Key,
        span: Duration,
        now: Instant,
        wake: &mut Wake,
    ) -> Option<()> {
        let Some(found) = self.mailboxes.get_mut(mailbox) else {
            return Some(());
        };
        found.advance(now, &mut self.store, wake);
        found.extend(lease, span, now, wake)
    }

    /// Everything that waits, to be woken because the broker closes; forgets all messages.
    pub(super) fn close(&mut self, wake: &mut Wake) {
        for mailbox in self.mailboxes.values_mut() {
            mailbox.wake_all(wake);
        }
        self.mailboxes.clear();
        self.store.clear();
        self.listeners.clear();
        self.groups.clear();
        self.queues.clear();
    }

    /// Wakes everybody who waits.
    pub(super) fn wake_all(&mut self, wake: &mut Wake) {
        for mailbox in self.mailboxes.values_mut() {
            mailbox.wake_all(wake);
        }
    }
}

/// The mailboxes that want the messages of a topic.
fn matching(listeners: &[(TopicPattern, Key)], topic: &TopicName) -> Arc<[Key]> {
    let wanted = listeners
        .iter()
        .filter(|(pattern, _)| pattern.matches(topic));
    wanted.map(|(_, key)| *key).collect()
}

pub(super) fn missing_queue(name: &TopicName) -> Error {
    Error::not_found(format!(
        "there is no queue {name}; declare it, or subscribe to it"
    ))
}

/// A message handed out.
#[derive(Debug)]
pub(super) struct HandedOut {
    pub(super) message: Arc<Message>,
    pub(super) destination: Destination,
    pub(super) group: Option<String>,
    pub(super) position: u64,
    pub(super) attempt: u32,
    pub(super) lease: Key,
}
