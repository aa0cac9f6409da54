//! The state behind its lock, and those who wait outside of it.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use trunkline_core::{Context, Error, Result, Retry, SharedClock};

use super::config::MemoryConfig;
use super::state::{Incoming, Now, Refused, State, Wake};
use crate::message::{Publish, Receipt};
use crate::subscription::SubscriptionState;

/// What every handle, stream and delivery of one broker shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: MemoryConfig,
    clock: SharedClock,
    state: Mutex<State>,
    /// Attached while connected; every subscription of this broker shows the same.
    phase: watch::Sender<SubscriptionState>,
    /// Rung when room was made.
    room: Notify,
    waiting_for_room: AtomicUsize,
}

impl Shared {
    pub(super) fn new(config: MemoryConfig, clock: SharedClock) -> Self {
        let reason = "not connected yet".to_owned();
        Self {
            state: Mutex::new(State::new(&config)),
            config,
            clock,
            phase: watch::Sender::new(SubscriptionState::Detached { reason }),
            room: Notify::new(),
            waiting_for_room: AtomicUsize::new(0),
        }
    }

    /// Does something to the state at once. Wakes whom it concerns when the lock is released again.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State, &Now, &mut Wake) -> T) -> T {
        let now = Now::default();
        let mut wake = Wake::new();
        let mut state = self.lock();
        let (messages, bytes) = state.fill();
        let result = work(&mut state, &now, &mut wake);
        let (messages_now, bytes_now) = state.fill();
        let garbage = state.take_garbage();
        drop(state);
        drop(garbage);
        if messages_now < messages || bytes_now < bytes {
            self.ring_for_room();
        }
        for waker in wake {
            waker.wake();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring_for_room(&self) {
        if self.waiting_for_room.load(Ordering::SeqCst) > 0 {
            self.room.notify_one();
        }
    }

    pub(super) fn phase(&self) -> watch::Receiver<SubscriptionState> {
        self.phase.subscribe()
    }

    fn is_open(&self) -> bool {
        *self.phase.borrow() == SubscriptionState::Attached
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.phase.borrow() == SubscriptionState::Closed
    }

    /// Fails when the broker was disconnected.
    pub(super) fn check_not_closed(&self) -> Result<()> {
        if self.is_closed() {
            return Err(closed());
        }
        Ok(())
    }

    /// Fails unless connected.
    pub(super) fn check_open(&self) -> Result<()> {
        match &*self.phase.borrow() {
            SubscriptionState::Attached => Ok(()),
            SubscriptionState::Detached { reason } => Err(unavailable(reason)),
            SubscriptionState::Closed => Err(closed()),
        }
    }

    pub(super) fn connect(&self) -> Result<()> {
        self.check_not_closed()?;
        self.phase.send_if_modified(|phase| {
            let opens = matches!(phase, SubscriptionState::Detached { .. });
            if opens {
                *phase = SubscriptionState::Attached;
            }
            opens
        });
        self.with(|state, _, wake| state.wake_all(wake));
        Ok(())
    }

    pub(super) fn close(&self) {
        self.phase.send_replace(SubscriptionState::Closed);
        self.with(|state, _, wake| state.close(wake));
        self.room.notify_waiters();
    }

    /// Waits until connected.
    async fn opened(&self, deadline: Instant) -> Result<()> {
        if self.is_open() {
            return Ok(());
        }
        let mut phase = self.phase.subscribe();
        let open = phase.wait_for(|phase| !matches!(phase, SubscriptionState::Detached { .. }));
        match tokio::time::timeout_at(deadline, open).await {
            Ok(_) | Err(_) => self.check_open(),
        }
    }

    /// When a publish gives up.
    fn publish_deadline(&self) -> Instant {
        let own = Instant::now() + self.config.publish_timeout;
        let context = Context::current().and_then(|context| context.deadline());
        context.map_or(own, |deadline| deadline.min(own))
    }

    /// Publishes at once, if that can be.
    pub(super) fn publish_now(&self, publish: Publish) -> Result<Result<Receipt>, Box<Later>> {
        if let Err(error) = self.check_size(&publish) {
            return Ok(Err(error));
        }
        let publish = Incoming::new(publish, self.clock.now());
        if !self.is_open() {
            return Err(Box::new(Later(publish)));
        }
        match self.with(|state, now, wake| state.publish(publish, now, wake)) {
            Ok(receipt) => Ok(Ok(receipt)),
            Err(Refused::Never(error)) => Ok(Err(error)),
            Err(Refused::Full { publish, .. }) => Err(Box::new(Later(publish))),
        }
    }

    /// Publishes when connected and when there is room.
    pub(super) async fn publish_later(&self, later: Box<Later>) -> Result<Receipt> {
        let deadline = self.publish_deadline();
        self.opened(deadline).await?;
        self.publish_when_room(later.0, deadline).await
    }

    /// Publishes several under one lock; when there is no room for one, that and those behind it wait in order.
    pub(super) async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        let deadline = self.publish_deadline();
        if let Err(error) = self.opened(deadline).await {
            let again = |_| Err(Error::new(error.kind(), error.message().to_owned()));
            return batch.into_iter().map(again).collect();
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        let at = self.clock.now();
        let prepare = |publish: Publish| {
            self.check_size(&publish)?;
            Ok(Incoming::new(publish, at))
        };
        let batch: Vec<Result<Incoming>> = batch.into_iter().map(prepare).collect();
        let mut rest = batch.into_iter();
        let mut waiting = self.with(|state, now, wake| {
            for publish in rest.by_ref() {
                let publish = match publish {
                    Ok(publish) => publish,
                    Err(error) => {
                        outcomes.push(Err(error));
                        continue;
                    }
                };
                match state.publish(publish, now, wake) {
                    Ok(receipt) => outcomes.push(Ok(receipt)),
                    Err(Refused::Never(error)) => outcomes.push(Err(error)),
                    Err(Refused::Full { publish, .. }) => return Some(Ok(publish)),
                }
            }
            None
        });
        while let Some(publish) = waiting {
            outcomes.push(match publish {
                Ok(publish) => self.publish_when_room(publish, deadline).await,
                Err(error) => Err(error),
            });
            waiting = rest.next();
        }
        outcomes
    }

    async fn publish_when_room(&self, publish: Incoming, deadline: Instant) -> Result<Receipt> {
        let _waiting = Waiting::new(&self.waiting_for_room);
        let mut publish = publish;
        loop {
            let mut room = pin!(self.room.notified());
            // From here on no ring is missed.
            room.as_mut().enable();
            self.check_open()?;
            let again_at = match self.with(|state, now, wake| state.publish(publish, now, wake)) {
                Ok(receipt) => {
                    // There may be room for the next one too.
                    self.ring_for_room();
                    return Ok(receipt);
                }
                Err(Refused::Never(error)) => return Err(error),
                Err(Refused::Full {
                    publish: back,
                    expiry,
                }) => {
                    publish = back;
                    expiry.map_or(deadline, |expiry| expiry.min(deadline))
                }
            };
            if Instant::now() >= deadline {
                return Err(self.full());
            }
            // Rung or not: look again.
            drop(tokio::time::timeout_at(again_at, room).await);
        }
    }

    /// What replaces a delivery.
    pub(super) fn incoming(&self, publish: Publish) -> Result<Incoming> {
        self.check_size(&publish)?;
        Ok(Incoming::new(publish, self.clock.now()))
    }

    fn check_size(&self, publish: &Publish) -> Result<()> {
        let (size, limit) = (publish.message.size(), self.config.max_message_size);
        if size <= limit.as_usize() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the message has {size} bytes with key and headers, and the broker takes {} at most",
            limit.bytes()
        ))
        .with_context("destination", &publish.destination))
    }

    fn full(&self) -> Error {
        let (messages, bytes) = self.lock().fill();
        let (max, max_bytes) = (self.config.max_messages, self.config.max_bytes);
        Error::exhausted(format!(
            "the memory broker is full: {messages} of {max} messages, {bytes} bytes of {max_bytes}; \
             consumers are slower than publishers, or nobody consumes a group"
        ))
        .with_retry(Retry::Safe)
    }
}

/// A message that cannot be published at once.
#[derive(Debug)]
pub(super) struct Later(Incoming);

/// Counts one who waits for room.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) fn closed() -> Error {
    Error::cancelled("the memory broker was disconnected")
}

fn unavailable(reason: &str) -> Error {
    Error::unavailable(format!("the memory broker is {reason}")).with_retry(Retry::Safe)
}
