//! The stream of one consumer, and the guard of one delivery.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::{Instant, Sleep};
use trunkline_core::{BoxFuture, Error, Result};

use super::shared::{Shared, closed};
use super::state::{HandedOut, Key, Taken};
use crate::delivery::{Delivery, DeliveryInfo, Settle, Settlement};

/// The deliveries of one consumer. It has no task: time passes for a mailbox when somebody looks into it, and whoever
/// waits arms a timer for the next thing due.
pub(super) struct Deliveries {
    shared: Arc<Shared>,
    mailbox: Key,
    consumer: Key,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deliveries {
    pub(super) fn new(shared: Arc<Shared>, mailbox: Key, consumer: Key) -> Self {
        Self {
            shared,
            mailbox,
            consumer,
            timer: None,
        }
    }

    fn delivery(&self, out: HandedOut) -> Delivery {
        let info = DeliveryInfo::new(out.destination)
            .with_group(out.group)
            .with_attempt(out.attempt)
            .at(out.position);
        let held = Held {
            shared: Arc::clone(&self.shared),
            mailbox: self.mailbox,
            lease: out.lease,
        };
        Delivery::new(out.message, info, held)
    }

    fn poll_timer(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = match &mut self.timer {
            Some(timer) => {
                timer.as_mut().reset(at);
                timer
            }
            None => self.timer.insert(Box::pin(tokio::time::sleep_until(at))),
        };
        timer.as_mut().poll(cx)
    }
}

impl Stream for Deliveries {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        // A busy stream lets other tasks have their turn.
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        loop {
            let (mailbox, consumer) = (self.mailbox, self.consumer);
            // Read before the lock is taken.
            let now = Instant::now();
            let taken = self
                .shared
                .with(|state, _, wake| state.take(mailbox, consumer, cx.waker(), now, wake));
            match taken {
                Taken::Message(out) => {
                    turn.made_progress();
                    return Poll::Ready(Some(self.delivery(out)));
                }
                Taken::Wait(_) if self.shared.is_closed() => return Poll::Ready(None),
                Taken::Wait(None) => return Poll::Pending,
                Taken::Wait(Some(at)) => ready!(self.poll_timer(at, cx)),
            }
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let (mailbox, consumer) = (self.mailbox, self.consumer);
        self.shared
            .with(|state, _, wake| state.unsubscribe(mailbox, consumer, wake));
    }
}

/// One message in the hands of a consumer.
struct Held {
    shared: Arc<Shared>,
    mailbox: Key,
    lease: Key,
}

impl Held {
    fn settle_now(&self, settlement: Settlement) -> Result<()> {
        let (mailbox, lease) = (self.mailbox, self.lease);
        let settled = match settlement {
            Settlement::Ack | Settlement::Reject => self
                .shared
                .with(|state, _, wake| state.finish(mailbox, lease, wake))
                .map(Ok),
            Settlement::Requeue { delay } => self
                .shared
                .with(|state, now, wake| state.requeue(mailbox, lease, delay, now.get(), wake))
                .map(Ok),
            Settlement::Forward(publish) => {
                let publish = self.shared.incoming(*publish);
                let publish = publish.inspect_err(|_| self.give_back())?;
                self.shared
                    .with(|state, now, wake| state.forward(mailbox, lease, publish, now, wake))
            }
            Settlement::ForwardAll(_) => {
                self.give_back();
                let text =
                    "the memory broker cannot acknowledge and publish several messages in one step";
                return Err(Error::unsupported(text));
            }
        };
        // Closing forgets every mailbox, so this is asked afterwards.
        self.shared.check_not_closed()?;
        settled.unwrap_or_else(|| Err(lost()))
    }

    fn give_back(&self) {
        let (mailbox, lease) = (self.mailbox, self.lease);
        self.shared
            .with(|state, now, wake| state.requeue(mailbox, lease, None, now.get(), wake));
    }
}

impl Settle for Held {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move { self.settle_now(settlement) })
    }

    fn abandon(self: Box<Self>) {
        self.give_back();
    }

    fn extend(&self, lease: Duration) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let (mailbox, held) = (self.mailbox, self.lease);
            let extended = self
                .shared
                .with(|state, now, wake| state.extend(mailbox, held, lease, now.get(), wake));
            if self.shared.is_closed() {
                return Err(closed());
            }
            extended.ok_or_else(lost)
        })
    }
}

fn lost() -> Error {
    Error::conflict(
        "the message is no longer held: its lease ran out, or it was removed; it may be with another consumer",
    )
}
