//! One subscription of this process: what was given to it and what it has handed out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio::sync::watch;
use trunkline_core::SharedClock;
use trunkline_messaging::{
    Delivery, DeliveryInfo, Destination, Message, Source, Start, SubscriptionState,
};

use super::group::{Left, Member};
use super::outbox::Outbox;
use super::settle::{Handle, Item};
use super::span::{Keyed, Run};
use crate::engine::{JobSender, Nudge};

/// Bytes that one subscription may hold unsettled, beside its count of messages.
const MOST_BYTES: usize = 32 << 20;

/// What one subscription asked for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) source: Source,
    pub(super) group: Option<String>,
    pub(super) start: Start,
    pub(super) prefetch: usize,
    /// In microseconds.
    pub(super) lease: i64,
}

/// A consumer's place in the broker, once it is connected.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) member: Member,
    pub(super) jobs: JobSender,
    pub(super) outbox: Outbox,
    pub(super) nudge: Nudge,
    pub(super) max_message_size: usize,
}

pub(super) struct Consumer {
    pub(super) wish: Wish,
    pub(super) clock: SharedClock,
    pub(super) state: watch::Sender<SubscriptionState>,
    attached: OnceLock<Attached>,
    inner: Mutex<Inner>,
    /// More is waiting than it could take.
    hungry: AtomicBool,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Ready>,
    /// Messages that wait for an earlier one with their key, by the digest of the key.
    held: HashMap<i64, VecDeque<Ready>>,
    outstanding: usize,
    bytes: usize,
    waker: Option<Waker>,
    /// Somebody asked for a message since it last gave some back for want of demand.
    asking: bool,
    /// Somebody asked since this was last looked at.
    asked: bool,
    stage: Stage,
    /// A settlement could not be written: the tables say that it has what was handed out.
    unsettled: bool,
    items: Vec<Item>,
    job_queued: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Open,
    /// The subscription was dropped; deliveries that are out can still be settled.
    Left,
    /// The broker was disconnected.
    Closed,
}

/// A message that was given to this consumer and not handed out yet.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) message: Message,
    pub(super) destination: Destination,
    pub(super) topic: i64,
    pub(super) position: i64,
    pub(super) attempt: i64,
    pub(super) key: Option<Keyed>,
    pub(super) size: usize,
    /// When it may be given to another.
    pub(super) until: i64,
}

impl Ready {
    fn run(&self) -> Run {
        Run::one(self.topic, self.position, self.attempt)
    }
}

impl Consumer {
    pub(super) fn new(wish: Wish, clock: SharedClock, reason: &str) -> Arc<Self> {
        let (state, _) = watch::channel(SubscriptionState::Detached {
            reason: reason.to_owned(),
        });
        Arc::new(Self {
            wish,
            clock,
            state,
            attached: OnceLock::new(),
            inner: Mutex::default(),
            hungry: AtomicBool::new(false),
        })
    }

    pub(super) fn attached(&self) -> Option<&Attached> {
        self.attached.get()
    }

    /// Gives it its place; false when it was closed or dropped meanwhile.
    pub(super) fn attach(&self, attached: Attached) -> bool {
        let fresh = self.attached.set(attached).is_ok();
        let open = self.stage() == Stage::Open;
        if fresh && open {
            self.state.send_replace(SubscriptionState::Attached);
        }
        open
    }

    pub(super) fn detached(&self, reason: String) {
        self.state
            .send_replace(SubscriptionState::Detached { reason });
    }

    pub(super) fn stage(&self) -> Stage {
        self.lock().stage
    }

    fn is_done(&self) -> bool {
        let inner = self.lock();
        inner.stage != Stage::Open && inner.outstanding == 0
    }

    /// How long a message that is not handed out yet may keep the lease it came with: after that it is renewed, so that
    /// whoever gets it has the whole lease.
    pub(super) fn slack(&self) -> i64 {
        self.wish.lease / 4
    }

    /// When a message given out now may be given to another.
    pub(super) fn until(&self, now: i64) -> i64 {
        now.saturating_add(self.wish.lease)
            .saturating_add(self.slack())
    }

    /// How many messages it can take now.
    pub(super) fn capacity(&self) -> usize {
        let inner = self.lock();
        if inner.stage != Stage::Open || !inner.asking || inner.bytes > MOST_BYTES {
            return 0;
        }
        self.wish.prefetch.saturating_sub(inner.outstanding)
    }

    /// Says that more is waiting than it could take: it asks again when there is room.
    pub(super) fn is_hungry(&self) {
        self.hungry.store(true, Ordering::Release);
    }

    /// Takes messages in. Those that could not be taken any more are returned.
    pub(super) fn deliver(&self, ready: Vec<Ready>, held: Vec<Ready>) -> Vec<Ready> {
        let waker = {
            let mut inner = self.lock();
            if inner.stage != Stage::Open {
                return ready.into_iter().chain(held).collect();
            }
            inner.outstanding += ready.len() + held.len();
            inner.bytes += ready.iter().chain(&held).map(|one| one.size).sum::<usize>();
            inner.ready.extend(ready);
            for one in held {
                let digest = one.key.map_or(0, |key| key.digest);
                let chain = inner.held.entry(digest).or_default();
                let place = chain.partition_point(|other| {
                    other.key.map(|key| key.ord) < one.key.map(|key| key.ord)
                });
                chain.insert(place, one);
            }
            inner.waker.take()
        };
        wake(waker);
        Vec::new()
    }

    /// The message before it is settled: hands on the next one with the key. What stood before that one was lost.
    pub(super) fn unblock(&self, digest: i64, topic: i64, position: i64) {
        let waker = {
            let mut inner = self.lock();
            let Some(chain) = inner.held.get_mut(&digest) else {
                return;
            };
            let at = |one: &Ready| one.topic == topic && one.position == position;
            let Some(before) = chain.iter().position(at) else {
                return;
            };
            let lost: Vec<Ready> = chain.drain(..before).collect();
            let next = chain.pop_front();
            if chain.is_empty() {
                inner.held.remove(&digest);
            }
            inner.release(lost.len(), lost.iter().map(|one| one.size).sum());
            inner.ready.extend(next);
            inner.waker.take()
        };
        wake(waker);
    }

    /// Forgets what waits behind a message that went elsewhere, and returns it.
    pub(super) fn drop_chain(&self, digest: i64) -> Vec<Ready> {
        let mut inner = self.lock();
        let chain: Vec<Ready> = inner
            .held
            .remove(&digest)
            .map(Vec::from)
            .unwrap_or_default();
        inner.release(chain.len(), chain.iter().map(|one| one.size).sum());
        chain
    }

    /// Some deliveries are settled, or lost: there is room. Returns whether nothing is left out of a consumer that was
    /// dropped.
    pub(super) fn settled(&self, count: usize, bytes: usize) -> bool {
        let last = {
            let mut inner = self.lock();
            inner.release(count, bytes);
            inner.stage == Stage::Left && inner.outstanding == 0
        };
        if count > 0
            && self.hungry.swap(false, Ordering::AcqRel)
            && let Some(attached) = self.attached()
        {
            attached.nudge.now();
        }
        last
    }

    /// A settlement could not be written.
    pub(super) fn unsettled(&self) {
        self.lock().unsettled = true;
    }

    /// How it leaves what the tables say it has. A claim may be written there that it has not heard of.
    pub(super) fn left(&self) -> Left {
        let inner = self.lock();
        if inner.outstanding == 0 && !inner.unsettled {
            Left::Untouched
        } else {
            Left::Seen
        }
    }

    /// What it has not handed out and must renew now, as runs. Asked every half slack, so that nothing grows older than
    /// the slack. What grew too old all the same, because the process stood still, is let go.
    pub(super) fn aging(&self, now: i64) -> Vec<Run> {
        let late = self.until(now).saturating_sub(self.slack() / 2);
        let mut lost = (0, 0);
        let mut stands = |one: &Ready| {
            let stands = one.until > now;
            if !stands {
                lost.0 += 1;
                lost.1 += one.size;
            }
            stands
        };
        let runs = {
            let mut inner = self.lock();
            inner.retain(&mut stands);
            let waiting = inner.ready.iter().chain(inner.held.values().flatten());
            let aging = waiting.filter(|one| one.until < late);
            Run::of(aging.map(Ready::run).collect())
        };
        self.settled(lost.0, lost.1);
        runs
    }

    /// Whether it has messages that are not handed out.
    pub(super) fn holds(&self) -> bool {
        let inner = self.lock();
        !inner.ready.is_empty() || !inner.held.is_empty()
    }

    /// Whether it holds messages although nobody has asked for one since the last time this was called.
    pub(super) fn is_idle(&self) -> bool {
        let mut inner = self.lock();
        let asked = std::mem::take(&mut inner.asked);
        !asked && !inner.ready.is_empty()
    }

    /// Returns what it has not handed out, and asks for nothing more until somebody asks it.
    pub(super) fn rest(&self) -> Vec<Ready> {
        let mut inner = self.lock();
        if inner.asked {
            return Vec::new();
        }
        inner.asking = false;
        inner.drain()
    }

    /// The outcome of a renewal: what is in none of the pieces was lost.
    pub(super) fn renewed(&self, asked: &[Run], kept: &[Run], until: i64) {
        let within = |runs: &[Run], one: &Ready| {
            runs.iter().any(|run| {
                run.topic == one.topic
                    && run.attempt == one.attempt
                    && (run.lo..=run.hi).contains(&one.position)
            })
        };
        let mut lost = (0, 0);
        let mut keep = |one: &mut Ready| {
            if !within(asked, one) {
                return true;
            }
            if within(kept, one) {
                one.until = until;
                return true;
            }
            lost.0 += 1;
            lost.1 += one.size;
            false
        };
        self.lock().retain_mut(&mut keep);
        self.settled(lost.0, lost.1);
    }

    /// Ends it, and returns what it had not handed out, and whether nothing else is out.
    pub(super) fn end(&self, stage: Stage) -> (Vec<Ready>, bool) {
        let (waiting, last, waker) = {
            let mut inner = self.lock();
            if inner.stage == Stage::Closed || inner.stage == stage {
                return (Vec::new(), false);
            }
            inner.stage = stage;
            let waiting = inner.drain();
            (waiting, inner.outstanding == 0, inner.waker.take())
        };
        if stage == Stage::Closed {
            self.state.send_replace(SubscriptionState::Closed);
        }
        wake(waker);
        (waiting, last)
    }

    /// Queues a settlement; true when a job must be queued for it.
    pub(super) fn push(&self, item: Item) -> bool {
        let mut inner = self.lock();
        inner.items.push(item);
        !std::mem::replace(&mut inner.job_queued, true)
    }

    /// Takes the settlements of one job; true when there are more.
    pub(super) fn take_items(&self, at_most: usize) -> (Vec<Item>, bool) {
        let mut inner = self.lock();
        let count = inner.items.len().min(at_most);
        let items = inner.items.drain(..count).collect();
        inner.job_queued = !inner.items.is_empty();
        (items, inner.job_queued)
    }

    fn next(self: &Arc<Self>, cx: &Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            let ready = {
                let mut inner = self.lock();
                inner.asked = true;
                let begins = !std::mem::replace(&mut inner.asking, true);
                if begins && let Some(attached) = self.attached() {
                    attached.nudge.now();
                }
                match (inner.ready.pop_front(), inner.stage) {
                    (Some(ready), _) => ready,
                    (None, Stage::Open) => {
                        match &mut inner.waker {
                            Some(waker) => waker.clone_from(cx.waker()),
                            empty => *empty = Some(cx.waker().clone()),
                        }
                        return Poll::Pending;
                    }
                    (None, Stage::Left | Stage::Closed) => return Poll::Ready(None),
                }
            };
            // The process may have been stopped for longer than the lease: then another one has it.
            let now = self.clock.now().unix_micros();
            if ready.until <= now {
                self.settled(1, ready.size);
                let behind = ready.key.map(|key| self.drop_chain(key.digest));
                super::settle::give_back(self, &behind.unwrap_or_default());
                continue;
            }
            return Poll::Ready(Some(self.hand_out(ready, now)));
        }
    }

    fn hand_out(self: &Arc<Self>, ready: Ready, now: i64) -> Delivery {
        let attempt = u32::try_from(ready.attempt).unwrap_or(u32::MAX);
        let info = DeliveryInfo::new(ready.destination.clone())
            .with_group(self.wish.group.clone())
            .with_attempt(attempt)
            .at(ready.position.unsigned_abs());
        let handle = Handle::new(Arc::clone(self), &ready);
        if ready.until < now.saturating_add(self.wish.lease) {
            // It waited here for longer than foreseen; its lease begins now.
            handle.renew(self.wish.lease);
        }
        Delivery::new(ready.message, info, handle)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn retain(&mut self, stays: &mut impl FnMut(&Ready) -> bool) {
        self.retain_mut(&mut |one| stays(one));
    }

    /// Keeps some of what is not handed out. The caller releases the rest.
    fn retain_mut(&mut self, stays: &mut impl FnMut(&mut Ready) -> bool) {
        self.ready.retain_mut(&mut *stays);
        for chain in self.held.values_mut() {
            chain.retain_mut(&mut *stays);
        }
        self.held.retain(|_, chain| !chain.is_empty());
    }

    /// Takes out everything that is not handed out.
    fn drain(&mut self) -> Vec<Ready> {
        let mut waiting: Vec<Ready> = self.ready.drain(..).collect();
        waiting.extend(self.held.drain().flat_map(|(_, chain)| chain));
        self.release(waiting.len(), waiting.iter().map(|one| one.size).sum());
        waiting
    }

    fn release(&mut self, count: usize, bytes: usize) {
        self.outstanding = self.outstanding.saturating_sub(count);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("wish", &self.wish)
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The stream of a subscription.
#[derive(Debug)]
pub(super) struct Deliveries(pub(super) Arc<Consumer>);

impl Stream for Deliveries {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.0.next(cx)
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        super::settle::leave(&self.0);
    }
}

/// Messages by run, to give them back together.
pub(super) fn runs(messages: &[Ready]) -> Vec<Run> {
    Run::of(messages.iter().map(Ready::run).collect())
}

/// The consumers of one broker in this process, by the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Consumers(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    all: BTreeMap<u64, Arc<Consumer>>,
    closed: bool,
}

impl Consumers {
    /// Adds one, unless the broker was closed.
    pub(super) fn add(&self, consumer: &Arc<Consumer>) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        let number = state.next;
        state.next += 1;
        state.all.insert(number, Arc::clone(consumer));
        true
    }

    /// Those that are open, with their numbers. Those that were dropped and have nothing out are forgotten.
    pub(super) fn open(&self) -> Vec<(u64, Arc<Consumer>)> {
        let mut state = self.lock();
        state.all.retain(|_, consumer| !consumer.is_done());
        let open = state
            .all
            .iter()
            .filter(|(_, consumer)| consumer.stage() == Stage::Open);
        open.map(|(number, consumer)| (*number, Arc::clone(consumer)))
            .collect()
    }

    pub(super) fn close(&self) -> Vec<Arc<Consumer>> {
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.all).into_values().collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
