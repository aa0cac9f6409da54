//! Deliveries on their way from the consumer's task to whoever polls the stream.
//!
//! The server sends as many as the prefetch allows, and those lie here until they are taken. What nobody takes is missing
//! to the other consumers of the queue: so the intake knows since when nobody has polled, and the task gives back.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_messaging::Delivery;

use super::session::Session;

/// A delivery of the driver, with the session that it belongs to.
pub(super) struct Arrived {
    pub(super) delivery: lapin::message::Delivery,
    pub(super) session: Arc<Session>,
}

pub(super) struct Intake {
    state: Mutex<State>,
    /// Somebody polls, and there is nothing.
    pub(super) wanted: Notify,
}

struct State {
    arrived: VecDeque<Arrived>,
    waker: Option<Waker>,
    /// When the stream was polled last.
    polled: Instant,
    closed: bool,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                arrived: VecDeque::new(),
                waker: None,
                polled: Instant::now(),
                closed: false,
            }),
            wanted: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, arrived: Arrived) {
        let waker = {
            let mut state = self.state();
            state.arrived.push_back(arrived);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes back what nobody has taken.
    pub(super) fn take_back(&self) -> VecDeque<Arrived> {
        std::mem::take(&mut self.state().arrived)
    }

    /// Since when deliveries lie here that nobody polls for, if any do.
    pub(super) fn neglected_since(&self) -> Option<Instant> {
        let state = self.state();
        (!state.arrived.is_empty()).then_some(state.polled)
    }

    /// The stream ends, now and for ever. Returns what nobody has taken.
    pub(super) fn close(&self) -> VecDeque<Arrived> {
        let (waker, rest) = {
            let mut state = self.state();
            state.closed = true;
            (state.waker.take(), std::mem::take(&mut state.arrived))
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        rest
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Arrived>> {
        let mut state = self.state();
        state.polled = Instant::now();
        if state.closed {
            return Poll::Ready(None);
        }
        if let Some(arrived) = state.arrived.pop_front() {
            return Poll::Ready(Some(arrived));
        }
        state.waker = Some(cx.waker().clone());
        drop(state);
        self.wanted.notify_one();
        Poll::Pending
    }
}

/// The stream of one subscription. Dropping it ends the consumer.
pub(super) struct Deliveries {
    pub(super) intake: Arc<Intake>,
    pub(super) dropped: CancellationToken,
    /// Where the latest delivery came from.
    pub(super) latest: Weak<Session>,
}

impl Stream for Deliveries {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            let arrived = match self.intake.poll(cx) {
                Poll::Ready(Some(arrived)) => arrived,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    // The server may be waiting for what was done, before it sends more.
                    if let Some(session) = self.latest.upgrade() {
                        session.tell_done_if_awaited();
                    }
                    return Poll::Pending;
                }
            };
            if !std::ptr::eq(self.latest.as_ptr(), Arc::as_ptr(&arrived.session)) {
                self.latest = Arc::downgrade(&arrived.session);
            }
            // What came too late for its session or has expired is nobody's.
            if let Some(delivery) = Session::hand_out(arrived) {
                return Poll::Ready(Some(delivery));
            }
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.dropped.cancel();
    }
}
