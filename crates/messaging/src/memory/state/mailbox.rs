//! Where messages wait for consumers that compete.
//!
//! Of every key only the first message is ever ready, in the hands of a consumer, or delayed because it comes again; the
//! others of that key wait behind it. So order per key needs no search.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::arena::{Arena, Key};
use super::store::{Store, Stored};
use super::{HandedOut, Wake};
use crate::message::Message;
use crate::topic::Destination;

/// One message in one mailbox.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Key,
    pub(super) position: u64,
    key: Option<Bytes>,
    /// Times it was handed out.
    attempts: u32,
}

impl Entry {
    pub(super) fn new(message: Key, stored: &Stored) -> Self {
        Self {
            message,
            position: stored.position,
            key: stored.message.key.clone(),
            attempts: 0,
        }
    }
}

#[derive(Debug)]
struct Lease {
    entry: Entry,
    consumer: Key,
    expires: Instant,
}

#[derive(Debug)]
struct Consumer {
    prefetch: u32,
    lease: Duration,
    held: u32,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    /// When it looks again by itself.
    until: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Queue,
    Group(String),
    /// Of one subscriber, and gone with it.
    Private,
}

/// What a consumer gets.
#[derive(Debug)]
pub(in crate::memory) enum Taken {
    /// A message.
    Message(HandedOut),
    /// Nothing now; look again when woken, or at this time.
    Wait(Option<Instant>),
}

#[derive(Debug)]
pub(super) struct Mailbox {
    kind: Kind,
    ready: VecDeque<Entry>,
    /// By when they are due; the number keeps those of one instant apart. True: it comes again and holds its key.
    delayed: BTreeMap<(Instant, u64), (Entry, bool)>,
    delays: u64,
    leases: Arena<Lease>,
    /// No lease runs out before this.
    lease_due: Option<Instant>,
    /// Keys whose first message is ready, leased, or comes again; and what waits behind it.
    keys: HashMap<Bytes, VecDeque<Entry>>,
    consumers: Arena<Consumer>,
}

impl Mailbox {
    pub(super) fn queue() -> Self {
        Self::new(Kind::Queue)
    }

    pub(super) fn listener(group: Option<&str>) -> Self {
        Self::new(group.map_or(Kind::Private, |group| Kind::Group(group.to_owned())))
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            ready: VecDeque::new(),
            delayed: BTreeMap::new(),
            delays: 0,
            leases: Arena::default(),
            lease_due: None,
            keys: HashMap::new(),
            consumers: Arena::default(),
        }
    }

    pub(super) fn is_private(&self) -> bool {
        self.kind == Kind::Private
    }

    pub(super) fn add_consumer(&mut self, prefetch: u32, lease: Duration) -> Key {
        self.consumers.insert(Consumer {
            prefetch: prefetch.max(1),
            lease,
            held: 0,
            waiting: None,
        })
    }

    pub(super) fn remove_consumer(&mut self, consumer: Key) {
        self.consumers.remove(consumer);
    }

    /// Puts a new message at its place: behind those of its key, else at the end.
    pub(super) fn place(&mut self, entry: Entry) {
        match &entry.key {
            None => self.ready.push_back(entry),
            Some(key) => match self.keys.get_mut(key) {
                Some(behind) => behind.push_back(entry),
                None => {
                    self.keys.insert(key.clone(), VecDeque::new());
                    self.ready.push_back(entry);
                }
            },
        }
    }

    /// Keeps a new message until it is due; only then it takes its place.
    pub(super) fn place_later(&mut self, entry: Entry, due: Instant) {
        self.delay(entry, due, false);
    }

    /// Puts a message back that comes again: before everything new, at once or when it is due.
    pub(super) fn place_again(&mut self, entry: Entry, due: Option<Instant>) {
        match due {
            Some(due) => self.delay(entry, due, true),
            None => {
                // Several that come back keep their order among themselves.
                let earlier =
                    |other: &&Entry| other.attempts > 0 && other.position < entry.position;
                let before = self.ready.iter().take_while(earlier).count();
                self.ready.insert(before, entry);
            }
        }
    }

    fn delay(&mut self, entry: Entry, due: Instant, again: bool) {
        self.delays += 1;
        self.delayed.insert((due, self.delays), (entry, again));
        // Those who wait for something later must look earlier.
        for consumer in self.consumers.values_mut() {
            if let Some(waiting) = &mut consumer.waiting
                && waiting.until.is_none_or(|until| until > due)
            {
                waiting.until = None;
            }
        }
    }

    /// A message is done: the next of its key may come.
    pub(super) fn finish_key(&mut self, entry: &Entry) {
        let Some(key) = &entry.key else {
            return;
        };
        let next = self.keys.get_mut(key).and_then(VecDeque::pop_front);
        match next {
            Some(next) => self.ready.push_back(next),
            None => drop(self.keys.remove(key)),
        }
    }

    /// Brings everything up to this time: what is due is ready, leases that ran out are given back.
    pub(super) fn advance(&mut self, now: Instant, store: &mut Store, wake: &mut Wake) {
        let mut changed = false;
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now
        {
            changed = true;
            let (entry, again) = first.remove();
            if again {
                self.place_again(entry, None);
            } else {
                self.place(entry);
            }
        }
        if self.lease_due.is_some_and(|due| due <= now) {
            changed = true;
            self.end_old_leases(now, store);
        }
        if changed {
            self.wake(wake);
        }
    }

    fn end_old_leases(&mut self, now: Instant, store: &mut Store) {
        let old: Vec<Key> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.expires <= now)
            .map(|(key, _)| key)
            .collect();
        for key in old {
            if let Some(entry) = self.end_lease(key) {
                if store.is_expired(entry.message, now) {
                    self.finish_key(&entry);
                    store.release(entry.message);
                } else {
                    self.place_again(entry, None);
                }
            }
        }
        self.lease_due = self.leases.iter().map(|(_, lease)| lease.expires).min();
    }

    /// The next message for a consumer, or when to look again.
    pub(super) fn take(
        &mut self,
        consumer: Key,
        waker: &Waker,
        now: Instant,
        store: &mut Store,
        wake: &mut Wake,
    ) -> Taken {
        if let Some(found) = self.consumers.get_mut(consumer) {
            found.waiting = None;
        }
        self.advance(now, store, wake);
        let Some(found) = self.consumers.get_mut(consumer) else {
            return Taken::Wait(None);
        };
        let (span, has_credit) = (found.lease, found.held < found.prefetch);
        if has_credit && let Some((entry, message, destination)) = self.next_ready(now, store) {
            let expires = far(now, span);
            let (position, attempt) = (entry.position, entry.attempts);
            let lease = self.lease(entry, consumer, expires);
            self.remind_others(expires, wake);
            return Taken::Message(HandedOut {
                message,
                destination,
                group: self.group().map(str::to_owned),
                position,
                attempt,
                lease,
            });
        }
        let next_delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        let until = [next_delayed, self.lease_due].into_iter().flatten().min();
        if let Some(found) = self.consumers.get_mut(consumer) {
            let waker = waker.clone();
            found.waiting = Some(Waiting { waker, until });
        }
        Taken::Wait(until)
    }

    fn group(&self) -> Option<&str> {
        match &self.kind {
            Kind::Group(name) => Some(name),
            Kind::Queue | Kind::Private => None,
        }
    }

    fn next_ready(
        &mut self,
        now: Instant,
        store: &mut Store,
    ) -> Option<(Entry, Arc<Message>, Destination)> {
        while let Some(mut entry) = self.ready.pop_front() {
            match store.get(entry.message) {
                Some(stored) if stored.expires.is_none_or(|expires| expires > now) => {
                    entry.attempts = entry.attempts.saturating_add(1);
                    let message = Arc::clone(&stored.message);
                    return Some((entry, message, stored.destination.clone()));
                }
                _ => {
                    self.finish_key(&entry);
                    store.release(entry.message);
                }
            }
        }
        None
    }

    fn lease(&mut self, entry: Entry, consumer: Key, expires: Instant) -> Key {
        self.lease_due = Some(self.lease_due.map_or(expires, |due| due.min(expires)));
        if let Some(found) = self.consumers.get_mut(consumer) {
            found.held += 1;
        }
        self.leases.insert(Lease {
            entry,
            consumer,
            expires,
        })
    }

    /// Somebody who waits must be there when the new lease runs out.
    fn remind_others(&mut self, expires: Instant, wake: &mut Wake) {
        for consumer in self.consumers.values_mut() {
            let late = consumer
                .waiting
                .take_if(|waiting| waiting.until.is_none_or(|until| until > expires));
            wake.extend(late.map(|waiting| waiting.waker));
        }
    }

    /// Ends a lease, if it is still held.
    pub(super) fn end_lease(&mut self, lease: Key) -> Option<Entry> {
        let ended = self.leases.remove(lease)?;
        if let Some(consumer) = self.consumers.get_mut(ended.consumer) {
            consumer.held = consumer.held.saturating_sub(1);
        }
        Some(ended.entry)
    }

    pub(super) fn holds(&self, lease: Key) -> bool {
        self.leases.get(lease).is_some()
    }

    pub(super) fn extend(
        &mut self,
        lease: Key,
        span: Duration,
        now: Instant,
        wake: &mut Wake,
    ) -> Option<()> {
        let expires = far(now, span);
        self.leases.get_mut(lease)?.expires = expires;
        // The bound may be too early now, never too late.
        self.lease_due = Some(self.lease_due.map_or(expires, |due| due.min(expires)));
        self.remind_others(expires, wake);
        Some(())
    }

    /// Wakes those who wait and could take something, or must look earlier than they meant to.
    pub(super) fn wake(&mut self, wake: &mut Wake) {
        let is_ready = !self.ready.is_empty();
        let has_delayed = !self.delayed.is_empty();
        if !is_ready && !has_delayed {
            return;
        }
        for consumer in self.consumers.values_mut() {
            let has_credit = consumer.held < consumer.prefetch;
            let due = consumer.waiting.take_if(|waiting| {
                (is_ready && has_credit) || (has_delayed && waiting.until.is_none())
            });
            wake.extend(due.map(|waiting| waiting.waker));
        }
    }

    pub(super) fn wake_all(&mut self, wake: &mut Wake) {
        for consumer in self.consumers.values_mut() {
            wake.extend(consumer.waiting.take().map(|waiting| waiting.waker));
        }
    }

    /// Removes waiting messages and tells which.
    pub(super) fn remove_where(&mut self, done: &mut Vec<Key>, gone: impl Fn(&Entry) -> bool) {
        for behind in self.keys.values_mut() {
            behind.retain(|entry| keep(entry, done, &gone));
        }
        let mut first_of_key = Vec::new();
        for entry in std::mem::take(&mut self.ready) {
            if gone(&entry) {
                first_of_key.push(entry);
            } else {
                self.ready.push_back(entry);
            }
        }
        for (due, (entry, again)) in std::mem::take(&mut self.delayed) {
            match (gone(&entry), again) {
                (false, _) => drop(self.delayed.insert(due, (entry, again))),
                (true, true) => first_of_key.push(entry),
                (true, false) => done.push(entry.message),
            }
        }
        for entry in first_of_key {
            self.finish_key(&entry);
            done.push(entry.message);
        }
    }

    /// Removes leased messages and tells which; their owners' settlements come too late then.
    pub(super) fn remove_leased_where(
        &mut self,
        done: &mut Vec<Key>,
        gone: impl Fn(&Entry) -> bool,
    ) {
        let leased = self.leases.iter().filter(|(_, lease)| gone(&lease.entry));
        let keys: Vec<Key> = leased.map(|(key, _)| key).collect();
        for key in keys {
            if let Some(entry) = self.end_lease(key) {
                self.finish_key(&entry);
                done.push(entry.message);
            }
        }
    }

    pub(super) fn take_leased(&mut self) -> Vec<Key> {
        let mut done = Vec::new();
        self.remove_leased_where(&mut done, |_| true);
        done
    }

    /// Every message that could be handed out by now, if there were hands for it, or waits behind one of its key.
    pub(super) fn waiting(&self, now: Instant) -> impl Iterator<Item = Key> {
        let late = self.leases.iter().map(|(_, lease)| lease);
        let late = late.filter(move |lease| lease.expires <= now);
        let due = self.delayed.iter().filter(move |((at, _), _)| *at <= now);
        self.ready
            .iter()
            .chain(late.map(|lease| &lease.entry))
            .chain(due.map(|(_, (entry, _))| entry))
            .chain(self.keys.values().flatten())
            .map(|entry| entry.message)
    }

    /// Every message that is not done, with the times it was handed out, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Key, u32)> {
        let leased = self.leases.iter().map(|(_, lease)| &lease.entry);
        let delayed = self.delayed.values().map(|(entry, _)| entry);
        self.ready
            .iter()
            .chain(leased)
            .chain(delayed)
            .chain(self.keys.values().flatten())
            .map(|entry| (entry.message, entry.attempts))
    }
}

fn keep(entry: &Entry, done: &mut Vec<Key>, gone: &impl Fn(&Entry) -> bool) -> bool {
    let is_gone = gone(entry);
    if is_gone {
        done.push(entry.message);
    }
    !is_gone
}

/// An instant so far ahead as can be said.
fn far(now: Instant, span: Duration) -> Instant {
    let years = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(span).unwrap_or(now + years)
}
