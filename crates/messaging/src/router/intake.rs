//! Where the workers of one handler get their deliveries from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::delivery::Delivery;
use crate::subscription::Subscription;

/// The subscription of a handler and that of its own retry queue, as one.
pub(super) struct Intake {
    streams: Mutex<Streams>,
    lanes: Option<Lanes>,
}

struct Streams {
    main: Subscription,
    retries: Option<Subscription>,
    /// Whether the retries come first now: both have their turn.
    retries_first: bool,
}

/// A delivery, and its turn among those of its key.
pub(super) struct Next {
    pub(super) delivery: Delivery,
    pub(super) turn: Option<Turn>,
}

/// Waits for those of the same key that came before.
pub(super) type Turn = BoxFuture<'static, OwnedMutexGuard<()>>;

impl Intake {
    /// With `lanes`, messages of one key have their turn one after the other although the broker does not see to that.
    pub(super) fn new(main: Subscription, retries: Option<Subscription>, lanes: bool) -> Self {
        Self {
            streams: Mutex::new(Streams {
                main,
                retries,
                retries_first: true,
            }),
            lanes: lanes.then(Lanes::default),
        }
    }

    /// The next delivery; `None` when the broker was disconnected. Cancel safe.
    pub(super) async fn next(&self) -> Option<Next> {
        let mut streams = self.streams.lock().await;
        let delivery = streams.next().await?;
        // Still under the lock, so that turns are taken in the order of arrival.
        let turn = match (&self.lanes, &delivery.message().key) {
            (Some(lanes), Some(key)) => Some(lanes.turn(key).await),
            _ => None,
        };
        Some(Next { delivery, turn })
    }
}

impl Streams {
    async fn next(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|cx| {
            let Some(retries) = &mut self.retries else {
                return std::pin::Pin::new(&mut self.main).poll_next(cx);
            };
            let (first, second) = match self.retries_first {
                true => (retries, &mut self.main),
                false => (&mut self.main, retries),
            };
            let first = std::pin::Pin::new(first).poll_next(cx);
            if let Poll::Ready(Some(delivery)) = first {
                self.retries_first = !self.retries_first;
                return Poll::Ready(Some(delivery));
            }
            let second = std::pin::Pin::new(second).poll_next(cx);
            match (first, second) {
                (_, Poll::Ready(Some(delivery))) => Poll::Ready(Some(delivery)),
                // Streams end when the broker is disconnected, both of them.
                (Poll::Ready(None), _) | (_, Poll::Ready(None)) => Poll::Ready(None),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                (Poll::Ready(Some(_)), _) => Poll::Pending,
            }
        })
        .await
    }
}

/// One lane for each key that is at work.
#[derive(Default)]
struct Lanes(StdMutex<HashMap<Bytes, Arc<Mutex<()>>>>);

impl Lanes {
    /// Queues up in the lane of a key.
    async fn turn(&self, key: &Bytes) -> Turn {
        let lane = {
            let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // A lane that nobody is in is held by nobody but the map.
            if lanes.len() > 1_000 {
                lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
            }
            Arc::clone(lanes.entry(key.clone()).or_default())
        };
        let mut turn: Turn = Box::pin(lane.lock_owned());
        // The first poll takes the place in the queue.
        match futures_util::poll!(turn.as_mut()) {
            Poll::Ready(guard) => Box::pin(std::future::ready(guard)),
            Poll::Pending => turn,
        }
    }
}
