//! What one subscription has fetched and handed out, and the stream that its owner reads.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_messaging::{Delivery, DeliveryInfo, Subscribe, SubscriptionState};

use super::place::Place;
use super::settle::{Held, Hold, Settler};
use crate::link::Listener;
use crate::wire::{Entry, position};

/// What was fetched and nobody takes goes back after this long, uncounted.
pub(super) const HOLD: Duration = Duration::from_millis(200);

/// How long a new subscription may take to attach before it is handed over detached.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);

/// One subscription.
pub(super) struct Desk {
    pub(super) place: Place,
    pub(super) subscribe: Subscribe,
    pub(super) state: watch::Sender<SubscriptionState>,
    /// Something is to be done: somebody waits, there is room again, a message has come.
    pub(super) work: Notify,
    /// Its owner has dropped it.
    pub(super) dropped: CancellationToken,
    /// A message has come since somebody looked.
    rung: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Ready>,
    out: HashMap<u64, Held>,
    next: u64,
    waker: Option<Waker>,
    /// Somebody waits, or did a moment ago.
    wanted: bool,
    taken_at: Option<Instant>,
    closed: bool,
}

/// Fetched, and not handed out yet.
struct Ready {
    entry: Entry,
    attempt: u32,
    held: Held,
}

impl Desk {
    pub(super) fn new(place: Place, subscribe: Subscribe) -> Self {
        let reason = "not connected yet".to_owned();
        Self {
            place,
            subscribe,
            state: watch::Sender::new(SubscriptionState::Detached { reason }),
            work: Notify::new(),
            dropped: CancellationToken::new(),
            rung: AtomicBool::new(false),
            inner: Mutex::default(),
        }
    }

    /// Whether a message has come since the last look.
    pub(super) fn has_rung(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a moment for the first attempt to attach.
    pub(super) async fn settled_state(&self) {
        let mut state = self.state.subscribe();
        let attached = state.wait_for(|state| !matches!(state, SubscriptionState::Detached { .. }));
        // Where it takes longer the state says so.
        drop(tokio::time::timeout(FIRST_ATTEMPT, attached).await);
    }

    /// How many messages to fetch now.
    pub(super) fn wants(&self) -> usize {
        let inner = self.lock();
        if !inner.wanted || !inner.ready.is_empty() || inner.closed {
            return 0;
        }
        (self.subscribe.prefetch as usize).saturating_sub(inner.out.len())
    }

    /// Puts down what was fetched.
    pub(super) fn put(&self, fetched: Vec<(Entry, u32)>, token: &str, until: Instant) {
        let waker = {
            let mut inner = self.lock();
            for (entry, attempt) in fetched {
                let held = Held {
                    stream: self.place.stream.clone(),
                    group: self.place.group.clone(),
                    id: entry.id.clone(),
                    token: token.to_owned(),
                    until,
                };
                inner.ready.push_back(Ready {
                    entry,
                    attempt,
                    held,
                });
            }
            inner.taken_at = Some(Instant::now());
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// When what lies here goes back, if something does.
    pub(super) fn gives_back_at(&self) -> Option<Instant> {
        let inner = self.lock();
        if inner.ready.is_empty() {
            return None;
        }
        inner.taken_at.map(|at| at + HOLD)
    }

    /// Takes back what nobody took for a while.
    pub(super) fn untaken(&self) -> Vec<Held> {
        let mut inner = self.lock();
        let late = inner.taken_at.is_some_and(|at| at + HOLD <= Instant::now());
        if !late || inner.ready.is_empty() {
            return Vec::new();
        }
        inner.wanted = false;
        inner.ready.drain(..).map(|ready| ready.held).collect()
    }

    /// Until when something that was handed out may still be settled.
    pub(super) fn out_until(&self) -> Option<Instant> {
        self.lock().out.values().map(|held| held.until).max()
    }

    /// Takes back all that was not handed out.
    pub(super) fn clear(&self) -> Vec<Held> {
        let mut inner = self.lock();
        inner.ready.drain(..).map(|ready| ready.held).collect()
    }

    /// Ends the stream. What was not handed out, and what was.
    pub(super) fn close(&self) -> (Vec<Held>, Vec<Held>) {
        let (ready, out, waker) = {
            let mut inner = self.lock();
            inner.closed = true;
            let ready = inner.ready.drain(..).map(|ready| ready.held).collect();
            let out = inner.out.drain().map(|(_, held)| held).collect();
            (ready, out, inner.waker.take())
        };
        self.state.send_replace(SubscriptionState::Closed);
        self.work.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
        (ready, out)
    }

    /// A delivery is settled, or its owner gave up: there is room for another.
    pub(super) fn free(&self, serial: u64) {
        let was_full = {
            let mut inner = self.lock();
            let full = inner.out.len() >= self.subscribe.prefetch as usize;
            inner.out.remove(&serial);
            full && inner.wanted
        };
        if was_full || self.dropped.is_cancelled() {
            self.work.notify_one();
        }
    }

    pub(super) fn detach(&self, reason: String) {
        self.state.send_if_modified(|state| {
            if *state == SubscriptionState::Closed {
                return false;
            }
            *state = SubscriptionState::Detached { reason };
            true
        });
    }

    pub(super) fn attach(&self) {
        self.state.send_if_modified(|state| {
            let changes = matches!(state, SubscriptionState::Detached { .. });
            if changes {
                *state = SubscriptionState::Attached;
            }
            changes
        });
    }

    fn poll(self: &Arc<Self>, settler: &Settler, context: &Context<'_>) -> Poll<Option<Delivery>> {
        let mut inner = self.lock();
        if inner.closed {
            return Poll::Ready(None);
        }
        let now = Instant::now();
        while let Some(ready) = inner.ready.pop_front() {
            inner.taken_at = Some(now);
            if ready.held.until <= now {
                // It may be in other hands.
                continue;
            }
            let Some(destination) = self.place.destination(ready.entry.topic.as_deref()) else {
                // An entry that another client wrote without its topic: there is nobody to hand it to.
                settler.give_back(ready.held, false);
                continue;
            };
            let mut info = DeliveryInfo::new(destination)
                .with_group(self.subscribe.group.clone())
                .with_attempt(ready.attempt);
            info.position = position(&ready.entry.id);
            let serial = inner.next;
            inner.next += 1;
            inner.out.insert(serial, ready.held.clone());
            let hold = Hold::new(settler.clone(), Arc::clone(self), serial, ready.held);
            return Poll::Ready(Some(Delivery::new(ready.entry.message, info, hold)));
        }
        inner.waker = Some(context.waker().clone());
        if !inner.wanted {
            inner.wanted = true;
            self.work.notify_one();
        } else if inner.taken_at.take().is_some() {
            // All that was fetched is taken.
            self.work.notify_one();
        }
        Poll::Pending
    }
}

/// A message has come: look.
impl Listener for Desk {
    fn hear(&self, _: &[u8], _: Vec<u8>) {
        self.rung.store(true, Ordering::Release);
        self.work.notify_one();
    }
}

/// What its owner reads.
pub(super) struct Deliveries {
    pub(super) desk: Arc<Desk>,
    pub(super) settler: Settler,
}

impl Stream for Deliveries {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.desk.poll(&self.settler, context)
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.desk.dropped.cancel();
        self.desk.work.notify_one();
    }
}
