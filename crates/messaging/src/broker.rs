//! The contract that every message broker fulfils.

use std::future::Future;

use tokio::time::Instant;
use trunkline_core::{Error, Result, Timestamp};

use crate::capabilities::Capabilities;
use crate::delivery::DeliveryInfo;
use crate::erased::AnyBroker;
use crate::message::{Message, Publish, Receipt};
use crate::subscription::{Subscribe, Subscription};
use crate::topic::{Destination, TopicName};

/// A message broker: bytes with headers in, guarded deliveries out.
///
/// What every implementation promises, and the conformance suite checks:
/// - **Publish** returns when the broker has the message as durably as `capabilities().durable` says. An error whose
///   [`retry`](Error::retry) is `Safe` means it does not have it; `IfIdempotent` means nobody knows: only a repetition
///   under the same id is right.
/// - **Deliveries** come at least once where `redelivery` is claimed, else at most once. A dropped delivery is given
///   back. Nothing confirmed is lost to a consumer that dies.
/// - **Reconnection** has one owner, the backend: connection, topology and exactly one consumer per subscription are
///   restored without the caller's help.
/// - **Calls before `connect`, or while the broker is away**: `publish` waits until the deadline of the running
///   [`Context`](trunkline_core::Context), or its configured timeout, then fails with `Unavailable`; `subscribe`
///   returns a subscription that is detached and attaches as soon as it can.
/// - **Calls after `disconnect`** fail with `Cancelled`, `connect` too, and streams end.
/// - **Order**: with [`OrderingGuarantee::PerKey`](crate::OrderingGuarantee) the next message of a key comes only when
///   the one before is done for that group: acked, rejected, forwarded, expired. One that is to come again, at once or
///   after a delay, holds its key meanwhile. A delayed publish takes its place when it is due.
/// - **Limits**: when the broker is full, `publish` waits like when the broker is away, then fails with `Exhausted`.
/// - All methods may be called from many tasks at once.
///
/// Implementers write plain `async fn`s. Everything above the trait takes an [`AnyBroker`].
#[doc(alias = "MessageQueueService")]
pub trait MessageBroker: Send + Sync + Sized + 'static {
    /// The kind of broker, as configuration names it: `memory`, `embedded`.
    fn kind(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Connects. Does nothing when connected. Where the server is not there it fails; it may go on trying behind the
    /// scenes, and is called again until it has succeeded once.
    ///
    /// Errors: `Unavailable`, `Timeout`, `Unauthenticated`, `Config`. Cancel safe: may be called again.
    fn connect(&self) -> impl Future<Output = Result<()>> + Send;

    /// Flushes what was accepted, ends every subscription, gives back what their consumers still hold (with
    /// `redelivery`) and closes; does not wait for the consumers. Does nothing when disconnected, and
    /// works on a broker that was never connected.
    ///
    /// Errors: `Timeout` when not everything was flushed by the deadline. Not cancel safe.
    fn disconnect(&self, deadline: Instant) -> impl Future<Output = Result<()>> + Send;

    /// Asks the broker itself whether it works.
    ///
    /// Errors: `Unavailable`, `Timeout`, `Exhausted`. Cancel safe.
    fn health_check(&self) -> impl Future<Output = Result<()>> + Send;

    /// Publishes one message and waits for the confirm.
    ///
    /// Errors: `NotFound` when mandatory and unroutable; `Invalid` when too large; `Exhausted` when a limit is
    /// reached; `Unsupported` for a capability that is missing; `Unavailable`, `Timeout`. Cancel safe in the sense that
    /// the message may or may not have been published.
    fn publish(&self, publish: Publish) -> impl Future<Output = Result<Receipt>> + Send;

    /// Publishes several messages: one outcome for each, in order. Messages to one destination are stored in the order
    /// given. One that fails does not stop the others.
    ///
    /// Unless overridden, each is confirmed before the next one is sent; a broker that can send them together should.
    fn publish_batch(
        &self,
        batch: Vec<Publish>,
    ) -> impl Future<Output = Vec<Result<Receipt>>> + Send {
        async move {
            let mut outcomes = Vec::with_capacity(batch.len());
            for publish in batch {
                outcomes.push(self.publish(publish).await);
            }
            outcomes
        }
    }

    /// Creates a topic or queue where the broker needs that. Does nothing when it is there already.
    ///
    /// Errors: `Unsupported`, `Unavailable`, `Conflict` when it exists with other properties. Cancel safe.
    fn declare(&self, destination: Destination) -> impl Future<Output = Result<()>> + Send;

    /// Subscribes. Returns at once; see the subscription's state for whether it is attached. Once it is, what is
    /// published comes; what is published before may be missed by a subscriber that the broker does not know yet.
    ///
    /// Errors: `Unsupported`; `Invalid` for a group on a queue or a group's name that is no [`TopicName`]; `Cancelled`
    /// after `disconnect`. Cancel safe.
    fn subscribe(&self, subscribe: Subscribe) -> impl Future<Output = Result<Subscription>> + Send;

    /// Looks at stored messages without consuming them (capability `browse`): of a topic what is kept, of a queue what
    /// is not done, those in the hands of consumers included. Expired messages are left out. With `peek`, only what waits in
    /// a queue.
    ///
    /// Errors: `Unsupported`, `NotFound` for a queue that does not exist, `Unavailable`. Cancel safe.
    fn browse(&self, browse: Browse) -> impl Future<Output = Result<BrowsePage>> + Send {
        let _ = browse;
        let kind = self.kind();
        async move {
            Err(Error::unsupported(format!(
                "the {kind} broker cannot be browsed"
            )))
        }
    }

    /// Removes stored messages of a queue by their positions and says how many were there (capability `browse`, or `peek`).
    /// One in the hands of a consumer is removed as well, not with `peek`; its settlement then fails with `Conflict`.
    ///
    /// Errors: as `browse`; `Conflict` where only consumers of the queue could remove them, and they are in another process;
    /// `Exhausted` where there is no room to note it. Cancel safe: some may be removed.
    fn remove(
        &self,
        queue: TopicName,
        positions: Vec<u64>,
    ) -> impl Future<Output = Result<u64>> + Send {
        let _ = (queue, positions);
        let kind = self.kind();
        async move {
            Err(Error::unsupported(format!(
                "the {kind} broker cannot remove messages"
            )))
        }
    }

    /// Every queue there is, by name (capability `browse`).
    ///
    /// Errors: `Unsupported`, `Unavailable`. Cancel safe.
    fn queues(&self) -> impl Future<Output = Result<Vec<QueueInfo>>> + Send {
        let kind = self.kind();
        async move {
            Err(Error::unsupported(format!(
                "the {kind} broker cannot list its queues"
            )))
        }
    }

    /// How many messages wait for the group or queue of a subscription (capability `lag`), whoever has subscribed: those that
    /// it could have had by now and nobody has in hand. Those put off until later are not counted. Where the broker knows only
    /// what is done, those in the hands of consumers are counted as well. `None` where nobody can say: there is no such group
    /// yet, or the subscriber is without one.
    ///
    /// Errors: `Unsupported`, `Unavailable`, `Timeout`, `Cancelled`. Cancel safe.
    fn lag(&self, subscribe: &Subscribe) -> impl Future<Output = Result<Option<u64>>> + Send {
        let _ = subscribe;
        let kind = self.kind();
        async move {
            Err(Error::unsupported(format!(
                "the {kind} broker cannot say how many messages wait"
            )))
        }
    }

    /// Erases the type. Erasing twice gives the same handle.
    fn erase(self) -> AnyBroker {
        AnyBroker::of(self)
    }
}

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Browse {
    /// The topic or queue.
    pub destination: Destination,
    /// Only messages behind this position; 0 begins with the oldest.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
}

impl Browse {
    /// The oldest messages, at most 100.
    #[must_use]
    pub fn new(destination: Destination) -> Self {
        Self {
            destination,
            after: 0,
            limit: 100,
        }
    }

    /// Goes on behind a position.
    #[must_use]
    pub fn after(mut self, position: u64) -> Self {
        self.after = position;
        self
    }

    /// Sets how many at most.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredMessage {
    /// The message.
    pub message: Message,
    /// What the broker says about it.
    pub info: DeliveryInfo,
    /// When it was stored.
    pub stored_at: Timestamp,
}

impl StoredMessage {
    /// Puts one together; for backends.
    #[must_use]
    pub fn new(message: Message, info: DeliveryInfo, stored_at: Timestamp) -> Self {
        Self {
            message,
            info,
            stored_at,
        }
    }
}

/// Some stored messages, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrowsePage {
    /// The messages.
    pub messages: Vec<StoredMessage>,
    /// Where to go on, if there may be more.
    pub next: Option<u64>,
    /// How many are stored in all, where the broker knows.
    pub total: Option<u64>,
}

/// A queue and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Its name.
    pub name: TopicName,
    /// Messages not done, those in the hands of consumers included.
    pub messages: u64,
}

impl QueueInfo {
    /// Puts one together; for backends.
    #[must_use]
    pub fn new(name: TopicName, messages: u64) -> Self {
        Self { name, messages }
    }
}
