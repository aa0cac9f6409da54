//! One publish on its way: handed from the caller to a lane, and given up by exactly one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use lapin::protocol::basic::AMQPProperties;
use lapin::types::ShortString;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use trunkline_core::Result;

/// What the server did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in a queue at least.
    Routed,
    /// No queue wants it.
    Unroutable,
}

/// What is sent.
pub(crate) struct Envelope {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: AMQPProperties,
    pub(crate) payload: Bytes,
    /// Milliseconds to wait before the exchange gets it.
    pub(crate) delay: Option<u64>,
}

/// An envelope on its way, and who waits for it.
pub(crate) struct Job {
    pub(crate) envelope: Envelope,
    pub(crate) fate: Fate,
    pub(crate) answer: oneshot::Sender<Result<Outcome>>,
    /// Its place among those in flight.
    pub(crate) place: Place,
}

/// Counts and bytes in flight, free again when this is dropped.
pub(crate) struct Place {
    pub(crate) _count: OwnedSemaphorePermit,
    pub(crate) _bytes: OwnedSemaphorePermit,
}

/// Whether a job was sent or given up, whichever came first.
#[derive(Clone, Default)]
pub(crate) struct Fate(Arc<AtomicU8>);

const WAITING: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Fate {
    /// The lane is about to send it; false when the caller has given up.
    pub(crate) fn send(&self) -> bool {
        self.decide(SENT)
    }

    /// The caller gives up; false when it was sent already, and so may have been processed.
    pub(crate) fn give_up(&self) -> bool {
        self.decide(GIVEN_UP)
    }

    fn decide(&self, fate: u8) -> bool {
        self.0
            .compare_exchange(WAITING, fate, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// Gives up a job that has not been sent when its caller stops waiting.
pub(crate) struct GiveUp(pub(crate) Fate);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.give_up();
    }
}
