//! What one subscription hears, until it is taken.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio_util::sync::CancellationToken;
use trunkline_core::{BoxFuture, Error, Result};
use trunkline_messaging::{
    Delivery, DeliveryInfo, Destination, Settle, Settlement, TopicName, TopicPattern,
};

use super::{channel, wire};
use crate::link::Listener;

/// What is heard of a subscription's channel. Redis holds nothing back for a client that is slow, and closes the
/// connection of one that reads too little; so what does not fit here is dropped, and counted.
pub(super) struct Ear {
    pub(super) prefix: String,
    pub(super) pattern: TopicPattern,
    /// Messages and bytes that may wait.
    pub(super) room: (usize, usize),
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    heard: VecDeque<(TopicName, Vec<u8>)>,
    bytes: usize,
    /// Dropped since there was room the last time.
    dropped: u64,
    waker: Option<Waker>,
    closed: bool,
}

impl Ear {
    pub(super) fn new(prefix: String, pattern: TopicPattern, room: (usize, usize)) -> Self {
        Self {
            prefix,
            pattern,
            room,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream ends; what has not been taken is dropped.
    pub(super) fn close(&self) {
        let waker = {
            let mut state = self.state();
            state.closed = true;
            state.heard.clear();
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<(TopicName, Vec<u8>)>> {
        let mut state = self.state();
        if state.closed {
            return Poll::Ready(None);
        }
        let Some(heard) = state.heard.pop_front() else {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.bytes -= heard.1.len();
        let dropped = std::mem::take(&mut state.dropped);
        drop(state);
        if dropped > 0 {
            tracing::warn!(
                target: "trunkline",
                pattern = %self.pattern, dropped,
                "a subscriber of Redis Pub/Sub was too slow, and messages for it were dropped"
            );
        }
        Poll::Ready(Some(heard))
    }
}

impl Listener for Ear {
    fn hear(&self, from: &[u8], payload: Vec<u8>) {
        let Some(topic) = channel::topic(&self.prefix, from) else {
            return;
        };
        if !self.pattern.matches(&topic) {
            return;
        }
        let waker = {
            let mut state = self.state();
            let (messages, bytes) = self.room;
            // One that is larger than all the room is taken when there is nothing else.
            let full = state.bytes + payload.len() > bytes && !state.heard.is_empty();
            if state.closed || full || state.heard.len() >= messages {
                state.dropped += u64::from(!state.closed);
                return;
            }
            state.bytes += payload.len();
            state.heard.push_back((topic, payload));
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The stream of a subscription. Dropping it ends the subscription.
pub(super) struct Deliveries {
    pub(super) ear: Arc<Ear>,
    pub(super) closed: CancellationToken,
    pub(super) dropped: CancellationToken,
}

impl Stream for Deliveries {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let Some((topic, heard)) = std::task::ready!(self.ear.poll(cx)) else {
            return Poll::Ready(None);
        };
        let info = DeliveryInfo::new(Destination::Topic(topic));
        let settle = AtMostOnce(self.closed.clone());
        Poll::Ready(Some(Delivery::new(wire::read(heard), info, settle)))
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.dropped.cancel();
    }
}

/// Nothing comes twice, so there is nothing to tell the server.
struct AtMostOnce(CancellationToken);

impl Settle for AtMostOnce {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            if self.0.is_cancelled() {
                return Err(Error::cancelled("the broker was disconnected"));
            }
            match settlement {
                Settlement::Ack | Settlement::Reject => Ok(()),
                Settlement::Requeue { .. } => Err(unable("give a message back")),
                _ => Err(unable("acknowledge and publish in one step")),
            }
        })
    }

    fn abandon(self: Box<Self>) {}
}

fn unable(what: &str) -> Error {
    Error::unsupported(format!(
        "Redis Pub/Sub delivers at most once and cannot do this: {what}"
    ))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn pair(room: (usize, usize)) -> (Arc<Ear>, Deliveries) {
        let pattern = TopicPattern::new("user.*").unwrap();
        let ear = Arc::new(Ear::new("p:".to_owned(), pattern, room));
        let deliveries = Deliveries {
            ear: Arc::clone(&ear),
            closed: CancellationToken::new(),
            dropped: CancellationToken::new(),
        };
        (ear, deliveries)
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_the_rest_comes() {
        let (ear, mut deliveries) = pair((2, 100));
        for number in 0..5 {
            ear.hear(b"p:user.made", vec![b'0' + number]);
        }
        assert_eq!(ear.state().dropped, 3);
        for expected in ["0", "1"] {
            let delivery = deliveries.next().await.unwrap();
            assert_eq!(delivery.message().payload, expected);
        }
        ear.hear(b"p:user.made", vec![0; 1000]);
        ear.hear(b"p:user.made", vec![0; 1]);
        assert_eq!(
            ear.state().dropped,
            1,
            "the large one has taken all the room"
        );
        assert_eq!(
            deliveries.next().await.unwrap().message().payload.len(),
            1000
        );
        assert_eq!(ear.state().bytes, 0);
    }

    #[tokio::test]
    async fn only_what_matches_is_heard_and_a_closed_ear_hears_nothing() {
        let (ear, mut deliveries) = pair((10, 100));
        for other in ["p:user.made.twice", "user.made", "p:order.made", "p:user."] {
            ear.hear(other.as_bytes(), vec![1]);
        }
        ear.hear(b"p:user.made", b"yes".to_vec());
        assert_eq!(deliveries.next().await.unwrap().message().payload, "yes");
        ear.hear(b"p:user.made", b"late".to_vec());
        ear.close();
        ear.hear(b"p:user.made", b"later".to_vec());
        assert!(deliveries.next().await.is_none());
    }
}
