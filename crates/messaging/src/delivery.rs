//! A message in the hands of a consumer, guarded: it is settled exactly once, and dropping it gives it back.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{BoxFuture, Error, Result};

use crate::message::{Message, Publish};
use crate::topic::Destination;

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// It is done.
    Ack,
    /// It shall come again, at once or after a delay (capability `delayed_redelivery`).
    Requeue {
        /// No earlier than this from now.
        delay: Option<Duration>,
    },
    /// It is given up: the broker forgets it.
    Reject,
    /// It is done, and this is published in the same step, both or neither (capability `atomic_forward`). Limits do not
    /// hold it up: one message goes, one comes.
    Forward(Box<Publish>),
    /// As `Forward`, with any number of messages: all of them and the acknowledgement, or nothing. Only a broker with
    /// transactions can do it, Kafka's where its option `transactions` is set; others fail with `Unsupported`.
    ForwardAll(Vec<Publish>),
}

/// What a backend implements for one delivery.
///
/// A settlement that comes too late — the lease ran out, the message was removed — changes nothing and fails with
/// `Conflict`; after `disconnect` it fails with `Cancelled`. A `Forward` whose publish is refused gives the message back
/// and fails as the publish would.
pub trait Settle: Send + Sync + 'static {
    /// Settles and waits until the broker knows.
    ///
    /// When the future is dropped the settlement may or may not happen; at-least-once holds either way.
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>>;

    /// Gives the message back at once, without waiting: the delivery was dropped, perhaps outside of a runtime. Must not
    /// block or panic.
    fn abandon(self: Box<Self>);

    /// Keeps the message for longer, counted from now (capability `lease_extension`).
    ///
    /// Unless overridden, fails with `Unsupported`.
    fn extend(&self, lease: Duration) -> BoxFuture<'_, Result<()>> {
        let _ = lease;
        Box::pin(async { Err(Error::unsupported("this broker has no leases to extend")) })
    }
}

/// What the broker says about a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryInfo {
    /// Where the message was published to.
    pub destination: Destination,
    /// The group it is delivered to.
    pub group: Option<String>,
    /// 1 the first time. Where the broker does not count (capability `attempts`), at least 2 when it is a repetition, and
    /// perhaps when another consumer had fetched it without handing it out.
    /// Counted is every delivery that was handed out, whatever became of it: given back, dropped, or its lease run out.
    pub attempt: u32,
    /// How often a settlement has given it back, as far as is known here: for a broker that knows that, and does not count
    /// attempts for good.
    pub returns: Option<u32>,
    /// Its place in the broker's log, where there is one.
    pub position: Option<u64>,
}

impl DeliveryInfo {
    /// A first delivery.
    #[must_use]
    pub fn new(destination: Destination) -> Self {
        Self {
            destination,
            group: None,
            attempt: 1,
            returns: None,
            position: None,
        }
    }

    /// Names the group.
    #[must_use]
    pub fn with_group(mut self, group: Option<String>) -> Self {
        self.group = group;
        self
    }

    /// Says the how manyeth attempt it is.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Says how often a settlement has given it back.
    #[must_use]
    pub fn with_returns(mut self, returns: u32) -> Self {
        self.returns = Some(returns);
        self
    }

    /// Adds the place in the broker's log.
    #[must_use]
    pub fn at(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }
}

/// A message delivered. Settle it with one of the methods; a dropped delivery is given back (a nack) and comes again.
#[must_use = "a dropped delivery is given back"]
pub struct Delivery {
    message: Arc<Message>,
    info: DeliveryInfo,
    settle: Option<Box<dyn Settle>>,
    /// When its lease began, or was renewed last.
    since: Mutex<Instant>,
}

impl Delivery {
    /// Puts a delivery together; for backends. The message may be shared, where the broker keeps it too.
    pub fn new(message: impl Into<Arc<Message>>, info: DeliveryInfo, settle: impl Settle) -> Self {
        Self {
            message: message.into(),
            info,
            settle: Some(Box::new(settle)),
            since: Mutex::new(Instant::now()),
        }
    }

    /// Takes it apart, for a broker that wraps another. Whoever has the settlement must use it.
    #[must_use]
    pub fn into_parts(mut self) -> (Arc<Message>, DeliveryInfo, Option<Box<dyn Settle>>) {
        let settle = self.settle.take();
        (Arc::clone(&self.message), self.info.clone(), settle)
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The message, to be kept longer than the delivery.
    #[must_use]
    pub fn shared_message(&self) -> Arc<Message> {
        Arc::clone(&self.message)
    }

    /// What the broker says about it.
    #[must_use]
    pub fn info(&self) -> &DeliveryInfo {
        &self.info
    }

    /// 1 the first time.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.info.attempt
    }

    /// It is done. Returns when the broker knows.
    ///
    /// # Errors
    /// When the broker could not be told, the message may come again: `Conflict` when the lease was lost, `Cancelled`
    /// after `disconnect`, `Unavailable`.
    ///
    /// # Cancel safety
    /// When dropped, the broker may or may not know; the message may come again.
    pub async fn ack(self) -> Result<()> {
        self.settle(Settlement::Ack).await
    }

    /// It shall come again, at once or after a delay.
    ///
    /// # Errors
    /// `Unsupported` for a delay without the capability `delayed_redelivery`; else as [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::ack`].
    pub async fn nack(self, delay: Option<Duration>) -> Result<()> {
        self.settle(Settlement::Requeue { delay }).await
    }

    /// It is given up: the broker forgets it.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::ack`].
    pub async fn reject(self) -> Result<()> {
        self.settle(Settlement::Reject).await
    }

    /// Settles in any way.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::ack`].
    pub async fn settle(mut self, settlement: Settlement) -> Result<()> {
        match self.settle.take() {
            Some(settle) => settle.settle(settlement).await,
            None => Ok(()),
        }
    }

    /// Keeps the message for longer, counted from now.
    ///
    /// # Errors
    /// `Unsupported` without the capability `lease_extension`; `Conflict` when the lease was lost already.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn extend(&self, lease: Duration) -> Result<()> {
        let Some(settle) = &self.settle else {
            return Ok(());
        };
        // From when it was asked for: it does not count from later.
        let since = Instant::now();
        settle.extend(lease).await?;
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
        Ok(())
    }

    /// When its lease began, as far as is known here, or was renewed last.
    pub(crate) fn held_since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle.abandon();
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.message.id)
            .field("info", &self.info)
            .field("settled", &self.settle.is_none())
            .finish_non_exhaustive()
    }
}
