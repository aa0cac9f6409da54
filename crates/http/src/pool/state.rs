//! Which connections there are, who waits for one, and who gets the next: pure, told the time, it does no I/O.
//!
//! A *place* is the leave to have one connection open; there are `max_connections` of them. Whoever dials holds one,
//! and the connection keeps it for as long as it lives. Nothing is dropped in here: a connection gives its place back
//! when it is dropped, which needs the lock that guards this state, so what has to go is handed out in [`Discarded`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::connect::ConnectFailed;
use crate::origin::{CarriedHash, Origin};

/// Once the first in the queue has waited this long, a connection that comes back is closed to make room for it, even
/// if somebody further back could use that connection at once.
const PATIENCE: Duration = Duration::from_millis(250);

/// Origins that are remembered as left; with more than this the memory is begun anew, and what is in use there is kept for as
/// long as anything without a request.
const MOST_RETIRED: usize = 1024;

/// The limits, all of them settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections open at once.
    pub(crate) open: usize,
    /// Connections without a request.
    pub(crate) idle: usize,
    /// How long one may be without a request.
    pub(crate) expiry: Duration,
    /// Requests that may wait for a connection.
    pub(crate) waiting: usize,
}

/// What a pool keeps.
pub(crate) trait Pooled {
    /// Whether it can carry no further request. Looked at while it carries none, under the pool's lock: nothing may be
    /// dropped that holds a place. One that is dead is not used again.
    fn is_dead(&mut self) -> bool;
}

/// The state of a pool: `X` are connections that carry one request at a time, `S` handles of those that carry many.
pub(crate) struct State<X, S> {
    limits: Limits,
    /// Places taken.
    open: usize,
    /// Connections without a request.
    idle: usize,
    origins: HashMap<Origin, Slot<X, S>, CarriedHash>,
    waiting: VecDeque<Waiter<X, S>>,
    /// Connections that were closed to make room and have not given their place back yet.
    leaving: usize,
    /// Origins that nobody is to be found at any more: connections that are still in use are not kept.
    retired: HashSet<Origin, CarriedHash>,
    /// Names the shared connections.
    counter: u64,
    closed: bool,
}

/// What belongs to one origin.
struct Slot<X, S> {
    /// Oldest first; taken from the back.
    idle: VecDeque<Idle<X>>,
    shared: Vec<Shared<S>>,
    /// Connections on their way.
    dialing: usize,
    /// Whether connections are shared there, as far as it is known.
    shares: Option<bool>,
}

impl<X, S> Default for Slot<X, S> {
    fn default() -> Self {
        Self {
            idle: VecDeque::new(),
            shared: Vec::new(),
            dialing: 0,
            shares: None,
        }
    }
}

struct Idle<X> {
    since: Instant,
    connection: X,
}

struct Shared<S> {
    id: u64,
    handle: S,
    /// Requests on it.
    active: usize,
    /// Requests it takes at most.
    most: usize,
    /// Since when it has none.
    since: Instant,
}

struct Waiter<X, S> {
    origin: Origin,
    since: Instant,
    /// How long a connection may take to open, for this one.
    connecting: Duration,
    sender: oneshot::Sender<Grant<X, S>>,
}

/// What somebody who asked gets.
#[derive(Debug)]
pub(crate) enum Grant<X, S> {
    /// A connection of one's own.
    Reuse(X),
    /// Room on a shared connection, to be given back under its id.
    Stream(u64, S),
    /// A place: dial, then say what came of it.
    Dial,
    /// Nothing: the connection that was waited for could not be made.
    Failed(Box<ConnectFailed>),
    /// Nothing: the pool is closed.
    Closed,
}

/// The answer to a request for a connection.
pub(crate) enum Checkout<X, S> {
    Granted(Grant<X, S>),
    Wait(oneshot::Receiver<Grant<X, S>>),
    /// Too many wait already.
    Full,
}

/// What has to be dropped once the lock is free.
#[derive(Debug)]
pub(crate) struct Discarded<X, S> {
    pub(crate) connections: Vec<X>,
    pub(crate) handles: Vec<S>,
}

impl<X, S> Default for Discarded<X, S> {
    fn default() -> Self {
        Self {
            connections: Vec::new(),
            handles: Vec::new(),
        }
    }
}

/// How many there are of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Connections open or being opened.
    pub open: usize,
    /// Connections without a request.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
}

impl<X: Pooled, S: Pooled + Clone> State<X, S> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: 0,
            idle: 0,
            origins: HashMap::default(),
            waiting: VecDeque::new(),
            leaving: 0,
            retired: HashSet::default(),
            counter: 0,
            closed: false,
        }
    }

    pub(crate) fn stats(&self) -> PoolStats {
        PoolStats {
            open: self.open,
            idle: self.idle,
            waiting: self
                .waiting
                .iter()
                .filter(|waiter| !waiter.sender.is_closed())
                .count(),
        }
    }

    /// Asks for a connection to an origin. `may_share` says whether one that is on its way might turn out to be shared,
    /// in which case it is waited for; `connecting` is how long one may take to open.
    pub(crate) fn checkout(
        &mut self,
        origin: &Origin,
        may_share: bool,
        connecting: Duration,
        now: Instant,
        out: &mut Discarded<X, S>,
    ) -> Checkout<X, S> {
        if self.closed {
            return Checkout::Granted(Grant::Closed);
        }
        // Somebody is there again.
        if !self.retired.is_empty() {
            self.retired.remove(origin);
        }
        let slot = self.slot(origin);
        if slot.shares.is_none() && !may_share {
            slot.shares = Some(false);
        }
        if let Some(grant) = self.grant(origin, now, out) {
            return Checkout::Granted(grant);
        }
        if self.waiting.len() >= self.limits.waiting {
            self.waiting.retain(|waiter| !waiter.sender.is_closed());
            if self.waiting.len() >= self.limits.waiting {
                return Checkout::Full;
            }
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.push_back(Waiter {
            origin: origin.clone(),
            since: now,
            connecting,
            sender,
        });
        self.make_room(out);
        Checkout::Wait(receiver)
    }

    /// A connection that is there, if one is: nobody dials and nobody waits.
    pub(crate) fn ready(
        &mut self,
        origin: &Origin,
        now: Instant,
        out: &mut Discarded<X, S>,
    ) -> Option<Grant<X, S>> {
        // After it was closed there is none.
        self.grant_ready(origin, now, out)
    }

    /// Takes a connection back that has finished its request.
    pub(crate) fn checkin(
        &mut self,
        origin: &Origin,
        connection: X,
        now: Instant,
        out: &mut Discarded<X, S>,
    ) {
        let starved = self.waiting.front().is_some_and(|first| {
            first.origin != *origin && now.saturating_duration_since(first.since) >= PATIENCE
        });
        if self.closed || starved || self.is_retired(origin) {
            out.connections.push(connection);
            return;
        }
        self.slot(origin).idle.push_back(Idle {
            since: now,
            connection,
        });
        self.idle += 1;
        if !self.waiting.is_empty() {
            self.serve_origin(origin, now, out);
            self.make_room(out);
        }
        self.trim(out);
    }

    /// A place came free: a connection was closed, or whoever was to dial gave up.
    pub(crate) fn place_freed(&mut self, now: Instant, out: &mut Discarded<X, S>) {
        self.open = self.open.saturating_sub(1);
        self.leaving = self.leaving.saturating_sub(1);
        self.serve_anyone(now, out);
    }

    /// Dialing ended without a shared connection, whether or not it led to one of one's own. `shares` says what is
    /// known of the origin now.
    pub(crate) fn dialed(
        &mut self,
        origin: &Origin,
        shares: Option<bool>,
        now: Instant,
        out: &mut Discarded<X, S>,
    ) {
        let slot = self.slot(origin);
        slot.dialing = slot.dialing.saturating_sub(1);
        slot.shares = shares.or(slot.shares);
        self.serve_origin(origin, now, out);
        self.forget_if_empty(origin);
    }

    /// Dialing failed. Who waits for nothing but that connection shares its fate: each of them finding out in turn would
    /// take as many times as long. Not so where the time was up and they have more.
    pub(crate) fn dial_failed(
        &mut self,
        origin: &Origin,
        why: &ConnectFailed,
        now: Instant,
        out: &mut Discarded<X, S>,
    ) {
        if self.awaits_dial(origin) {
            let has_time = |waiter: &Waiter<X, S>| {
                let limit = why.timeout;
                limit.is_some_and(|limit| limit < waiter.connecting)
            };
            for waiter in std::mem::take(&mut self.waiting) {
                if waiter.origin != *origin || has_time(&waiter) {
                    self.waiting.push_back(waiter);
                } else {
                    // Whoever no longer waits needs no answer.
                    drop(waiter.sender.send(Grant::Failed(Box::new(why.clone()))));
                }
            }
        }
        self.dialed(origin, None, now, out);
    }

    /// Whether those who wait for this origin wait for a connection that is on its way, and not for a free place.
    pub(crate) fn awaits_dial(&self, origin: &Origin) -> bool {
        self.origins.get(origin).is_some_and(|slot| {
            slot.dialing > 0 && slot.shares != Some(false) && slot.shared.is_empty()
        })
    }

    /// Dialing led to a shared connection, on which whoever dialed has the first room.
    pub(crate) fn shared(
        &mut self,
        origin: &Origin,
        handle: S,
        most: usize,
        now: Instant,
        out: &mut Discarded<X, S>,
    ) -> u64 {
        self.counter += 1;
        let id = self.counter;
        let slot = self.slot(origin);
        slot.dialing = slot.dialing.saturating_sub(1);
        slot.shares = Some(true);
        slot.shared.push(Shared {
            id,
            handle,
            active: 1,
            most: most.max(1),
            since: now,
        });
        self.serve_origin(origin, now, out);
        id
    }

    /// Takes room on a shared connection back. One that is not `alive` is forgotten.
    pub(crate) fn stream_ended(
        &mut self,
        origin: &Origin,
        id: u64,
        alive: bool,
        now: Instant,
        out: &mut Discarded<X, S>,
    ) {
        let retired = self.is_retired(origin);
        let closed = self.closed;
        let Some(slot) = self.origins.get_mut(origin) else {
            return;
        };
        let Some(at) = slot.shared.iter().position(|shared| shared.id == id) else {
            return;
        };
        let shared = &mut slot.shared[at];
        shared.active = shared.active.saturating_sub(1);
        shared.since = now;
        let unused = shared.active == 0;
        if !alive || closed || (unused && retired) {
            out.handles.push(slot.shared.swap_remove(at).handle);
        } else if unused {
            self.idle += 1;
        }
        self.serve_origin(origin, now, out);
        self.make_room(out);
        self.trim(out);
        self.forget_if_empty(origin);
    }

    /// Forgets connections that have been without a request for too long, and those that the other side closed. Returns
    /// whether any are left without a request.
    pub(crate) fn expire(&mut self, now: Instant, out: &mut Discarded<X, S>) -> bool {
        let expiry = self.limits.expiry;
        let over = |since: Instant| now.saturating_duration_since(since) >= expiry;
        let idle = &mut self.idle;
        self.origins.retain(|_, slot| {
            for mut kept in std::mem::take(&mut slot.idle) {
                if over(kept.since) || kept.connection.is_dead() {
                    *idle -= 1;
                    out.connections.push(kept.connection);
                } else {
                    slot.idle.push_back(kept);
                }
            }
            let mut at = 0;
            while at < slot.shared.len() {
                let shared = &mut slot.shared[at];
                let unused = shared.active == 0;
                if unused && over(shared.since) || shared.handle.is_dead() {
                    *idle -= usize::from(unused);
                    out.handles.push(slot.shared.swap_remove(at).handle);
                } else {
                    at += 1;
                }
            }
            !slot.is_empty()
        });
        self.idle > 0
    }

    /// Nobody is to be found there any more: closes what has no request, and what has one when that is over.
    pub(crate) fn retire(&mut self, origin: &Origin, out: &mut Discarded<X, S>) {
        if self.retired.len() >= MOST_RETIRED {
            self.retired.clear();
        }
        let Some(slot) = self.origins.get_mut(origin) else {
            // Connections that carry one request each are not known here while they do.
            if self.open > 0 {
                self.retired.insert(origin.clone());
            }
            return;
        };
        self.retired.insert(origin.clone());
        self.idle -= slot.idle.len();
        out.connections
            .extend(slot.idle.drain(..).map(|kept| kept.connection));
        let mut at = 0;
        while at < slot.shared.len() {
            if slot.shared[at].active == 0 {
                self.idle -= 1;
                out.handles.push(slot.shared.swap_remove(at).handle);
            } else {
                at += 1;
            }
        }
        self.forget_if_empty(origin);
    }

    fn is_retired(&self, origin: &Origin) -> bool {
        !self.retired.is_empty() && self.retired.contains(origin)
    }

    /// Closes the pool: nothing is handed out any more, what is in use goes on.
    pub(crate) fn close(&mut self, out: &mut Discarded<X, S>) {
        self.closed = true;
        for waiter in self.waiting.drain(..) {
            // Whoever no longer waits needs no answer.
            drop(waiter.sender.send(Grant::Closed));
        }
        for slot in self.origins.values_mut() {
            out.connections
                .extend(slot.idle.drain(..).map(|kept| kept.connection));
            out.handles
                .extend(slot.shared.drain(..).map(|shared| shared.handle));
        }
        self.idle = 0;
    }

    fn slot(&mut self, origin: &Origin) -> &mut Slot<X, S> {
        // Not `entry`: that would copy the key each time.
        if !self.origins.contains_key(origin) {
            self.origins.insert(origin.clone(), Slot::default());
        }
        self.origins
            .get_mut(origin)
            .expect("it is there or was just put there")
    }

    fn forget_if_empty(&mut self, origin: &Origin) {
        if self.origins.get(origin).is_some_and(Slot::is_empty) {
            self.origins.remove(origin);
        }
    }

    /// What can be given for an origin at once.
    fn grant(
        &mut self,
        origin: &Origin,
        now: Instant,
        out: &mut Discarded<X, S>,
    ) -> Option<Grant<X, S>> {
        if let Some(ready) = self.grant_ready(origin, now, out) {
            return Some(ready);
        }
        let slot = self.origins.get_mut(origin)?;
        if slot.dialing > 0 && slot.shares != Some(false) || self.open >= self.limits.open {
            return None;
        }
        slot.dialing += 1;
        self.open += 1;
        Some(Grant::Dial)
    }

    fn grant_ready(
        &mut self,
        origin: &Origin,
        now: Instant,
        out: &mut Discarded<X, S>,
    ) -> Option<Grant<X, S>> {
        let expiry = self.limits.expiry;
        let slot = self.origins.get_mut(origin)?;
        if let Some(shared) = slot
            .shared
            .iter_mut()
            .find(|shared| shared.active < shared.most)
        {
            self.idle -= usize::from(shared.active == 0);
            shared.active += 1;
            return Some(Grant::Stream(shared.id, shared.handle.clone()));
        }
        if let Some(kept) = slot.idle.pop_back() {
            self.idle -= 1;
            if now.saturating_duration_since(kept.since) < expiry {
                return Some(Grant::Reuse(kept.connection));
            }
            // The youngest is too old, so all are.
            out.connections.push(kept.connection);
            self.idle -= slot.idle.len();
            out.connections
                .extend(slot.idle.drain(..).map(|kept| kept.connection));
        }
        None
    }

    /// Gives those who wait for this origin what there is for it, in the order in which they came.
    fn serve_origin(&mut self, origin: &Origin, now: Instant, out: &mut Discarded<X, S>) {
        loop {
            let wanted =
                |waiter: &Waiter<X, S>| waiter.origin == *origin && !waiter.sender.is_closed();
            let Some(at) = self.waiting.iter().position(wanted) else {
                return;
            };
            if !self.serve_waiter(at, now, out) {
                return;
            }
        }
    }

    /// Gives free places to those who wait, in the order in which they came.
    fn serve_anyone(&mut self, now: Instant, out: &mut Discarded<X, S>) {
        let mut at = 0;
        while self.open < self.limits.open && at < self.waiting.len() {
            if self.waiting[at].sender.is_closed() {
                self.waiting.remove(at);
            } else if !self.serve_waiter(at, now, out) {
                at += 1;
            }
        }
    }

    /// Serves one who waits, if there is something to give. Returns whether they left the queue.
    fn serve_waiter(&mut self, at: usize, now: Instant, out: &mut Discarded<X, S>) -> bool {
        let origin = self.waiting[at].origin.clone();
        self.slot(&origin);
        let Some(grant) = self.grant(&origin, now, out) else {
            return false;
        };
        if let Some(waiter) = self.waiting.remove(at)
            && let Err(grant) = waiter.sender.send(grant)
        {
            self.take_back(&origin, grant, now);
        }
        true
    }

    /// Whoever was to get it has just gone.
    fn take_back(&mut self, origin: &Origin, grant: Grant<X, S>, now: Instant) {
        let slot = self.slot(origin);
        match grant {
            Grant::Reuse(connection) => {
                slot.idle.push_back(Idle {
                    since: now,
                    connection,
                });
                self.idle += 1;
            }
            Grant::Stream(id, _) => {
                if let Some(shared) = slot.shared.iter_mut().find(|shared| shared.id == id) {
                    shared.active -= 1;
                    self.idle += usize::from(shared.active == 0);
                }
            }
            Grant::Dial => {
                slot.dialing -= 1;
                self.open -= 1;
            }
            Grant::Failed(_) | Grant::Closed => {}
        }
    }

    /// Closes connections without a request so that others can be opened for those who wait.
    fn make_room(&mut self, out: &mut Discarded<X, S>) {
        while self.leaving < self.waiting.len()
            && self.open >= self.limits.open
            && self.evict_oldest(out)
        {
            self.leaving += 1;
        }
    }

    /// Keeps no more connections without a request than allowed.
    fn trim(&mut self, out: &mut Discarded<X, S>) {
        while self.idle > self.limits.idle && self.evict_oldest(out) {}
    }

    fn evict_oldest(&mut self, out: &mut Discarded<X, S>) -> bool {
        if self.idle == 0 {
            return false;
        }
        let oldest = self
            .origins
            .iter()
            .filter_map(|(origin, slot)| Some((slot.oldest()?, origin)))
            .min_by_key(|(since, _)| *since)
            .map(|(_, origin)| origin.clone());
        let Some(origin) = oldest else { return false };
        let slot = self.slot(&origin);
        let own = slot.idle.front().map(|kept| kept.since);
        let unused = slot.oldest_shared();
        match (own, unused) {
            (Some(since), unused) if unused.is_none_or(|(_, other)| since <= other) => {
                out.connections
                    .extend(slot.idle.pop_front().map(|kept| kept.connection));
            }
            (_, Some((at, _))) => out.handles.push(slot.shared.swap_remove(at).handle),
            (_, None) => return false,
        }
        self.idle -= 1;
        self.forget_if_empty(&origin);
        true
    }
}

impl<X, S> Slot<X, S> {
    fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.shared.is_empty() && self.dialing == 0
    }

    /// Since when the one that has been without a request for longest has been so.
    fn oldest(&self) -> Option<Instant> {
        let own = self.idle.front().map(|kept| kept.since);
        let shared = self.oldest_shared().map(|(_, since)| since);
        own.into_iter().chain(shared).min()
    }

    fn oldest_shared(&self) -> Option<(usize, Instant)> {
        self.shared
            .iter()
            .enumerate()
            .filter(|(_, shared)| shared.active == 0)
            .map(|(at, shared)| (at, shared.since))
            .min_by_key(|(_, since)| *since)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
