//! Asking for messages, and the stream they come in.

use std::fmt;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::sync::watch;
use trunkline_core::Timestamp;

use crate::delivery::Delivery;
use crate::topic::{Source, TopicName, TopicPattern};

/// Where a group begins when the broker does not know it yet. A known group goes on where it was. A subscriber without
/// a group begins there every time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    #[default]
    Latest,
    /// With the oldest message still kept (capability `replay`).
    Earliest,
    /// With messages that the broker took at this time or later (capability `replay`).
    At(Timestamp),
}

/// What to subscribe to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribe {
    /// Topics or a queue.
    pub source: Source,
    /// Consumers with the same group **and the same source** compete for messages; the group outlives them. The same
    /// name with another pattern is another group with a place of its own: where two patterns overlap, each gets a copy.
    /// The name follows the grammar of [`TopicName`].
    ///
    /// Without a group the subscriber alone gets every message, as long as it is there. A queue has no groups: all its
    /// consumers compete.
    pub group: Option<String>,
    /// Where a new group begins.
    pub start: Start,
    /// Most deliveries that may be unsettled at a time, at least 1. Default 10.
    pub prefetch: u32,
    /// How long the broker waits for a settlement, from the moment the delivery is handed out, before it gives the
    /// message to another. Default 30 s.
    pub lease: Duration,
}

impl Subscribe {
    /// A subscription without a group to every topic under a pattern.
    #[must_use]
    pub fn topics(pattern: impl Into<TopicPattern>) -> Self {
        Self::source(Source::Topics(pattern.into()))
    }

    /// A consumer of a queue; consumers of one queue compete.
    #[must_use]
    pub fn queue(name: TopicName) -> Self {
        Self::source(Source::Queue(name))
    }

    /// A subscription to a source.
    #[must_use]
    pub fn source(source: Source) -> Self {
        let lease = Duration::from_secs(30);
        Self {
            source,
            group: None,
            start: Start::default(),
            prefetch: 10,
            lease,
        }
    }

    /// Joins a group.
    #[must_use]
    pub fn with_group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Says where a new group begins.
    #[must_use]
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets the most deliveries that may be unsettled at a time.
    #[must_use]
    pub fn with_prefetch(mut self, prefetch: u32) -> Self {
        self.prefetch = prefetch.max(1);
        self
    }

    /// Sets how long the broker waits for a settlement.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }
}

/// Whether messages can come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// They can: the broker knows the group or subscriber, and what is published from now on comes.
    Attached,
    /// They cannot now; the backend keeps trying. Readiness is off meanwhile.
    Detached {
        /// Why, in one line.
        reason: String,
    },
    /// They will not come any more: the broker was disconnected.
    Closed,
}

/// The stream of deliveries of one subscription. Dropping it detaches the consumer and gives back what it had not
/// handed out; what it had handed out stays with its owner until it is settled or its lease runs out.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    deliveries: BoxStream<'static, Delivery>,
    state: watch::Receiver<SubscriptionState>,
}

impl Subscription {
    /// Puts a subscription together; for backends. The stream ends only when the broker is disconnected.
    pub fn new(
        deliveries: impl Stream<Item = Delivery> + Send + 'static,
        state: watch::Receiver<SubscriptionState>,
    ) -> Self {
        Self {
            // Several workers take from it: those who come after the end find the end, too.
            deliveries: deliveries.fuse().boxed(),
            state,
        }
    }

    /// The next delivery; `None` when the broker was disconnected.
    ///
    /// # Cancel safety
    /// Cancel safe: no delivery is lost.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.next().await
    }

    /// Whether messages can come, as a value to watch.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<SubscriptionState> {
        self.state.clone()
    }
}

impl Stream for Subscription {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Delivery>> {
        self.deliveries.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_worker_finds_the_end() {
        let ends = futures_util::stream::unfold((), async |()| None::<(Delivery, ())>);
        let (_, state) = watch::channel(SubscriptionState::Closed);
        let mut subscription = Subscription::new(ends, state);
        assert!(subscription.next().await.is_none());
        assert!(subscription.next().await.is_none());
    }
}
