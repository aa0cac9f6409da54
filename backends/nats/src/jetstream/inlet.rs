//! Between the task that fetches and the consumer that takes: what was fetched, and whether somebody waits.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::{BoxFuture, Clock as _, Error, Result, SystemClock};
use trunkline_messaging::{Delivery, DeliveryInfo, Message, Settle, Settlement};

use super::ledger::{Ledger, Token, Word};
use crate::link::Link;

/// What a settlement may take on its way to the server.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// A message that was fetched and not handed out yet.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) message: Message,
    pub(crate) info: DeliveryInfo,
    pub(crate) expires: Option<i64>,
    pub(crate) token: Token,
    pub(crate) at: Instant,
}

impl Fetched {
    fn is_expired(&self) -> bool {
        self.expires
            .is_some_and(|expires| SystemClock.now().unix_millis() >= expires)
    }
}

#[derive(Debug, Default)]
struct Inside {
    buffer: VecDeque<Fetched>,
    waker: Option<Waker>,
    /// Somebody asked and got nothing yet; it may have been dropped since.
    waiting: bool,
    asked: Option<Instant>,
    unsettled: u32,
    /// The subscription was dropped.
    dropped: bool,
    /// The broker was disconnected.
    closed: bool,
}

/// What consumer and fetcher share.
#[derive(Debug)]
pub(crate) struct Inlet {
    inside: Mutex<Inside>,
    /// For the fetcher: something is different.
    pub(crate) changed: Notify,
    prefetch: u32,
    lease: Duration,
    /// The consumer was deleted with its subscription: what it handed out will come to nobody.
    gone: CancellationToken,
}

/// What the fetcher should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) waiting: bool,
    pub(crate) buffered: u32,
    /// Deliveries that may still be fetched.
    pub(crate) free: u32,
    pub(crate) asked: Option<Instant>,
    /// When the oldest that waits to be taken came.
    pub(crate) oldest: Option<Instant>,
    pub(crate) dropped: bool,
}

impl Inlet {
    pub(crate) fn new(prefetch: u32, lease: Duration) -> Arc<Self> {
        Arc::new(Self {
            inside: Mutex::default(),
            changed: Notify::new(),
            prefetch,
            lease,
            gone: CancellationToken::new(),
        })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn demand(&self) -> Demand {
        let inside = self.inside();
        let buffered = u32::try_from(inside.buffer.len()).unwrap_or(u32::MAX);
        let used = inside.unsettled.saturating_add(buffered);
        Demand {
            waiting: inside.waiting,
            buffered,
            free: self.prefetch.saturating_sub(used),
            asked: inside.asked,
            oldest: inside.buffer.front().map(|fetched| fetched.at),
            dropped: inside.dropped,
        }
    }

    /// A message has come.
    pub(crate) fn push(&self, fetched: Fetched) {
        let waker = {
            let mut inside = self.inside();
            inside.buffer.push_back(fetched);
            inside.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes back what nobody has taken. Whoever had asked for it has gone: until somebody asks again there is no demand,
    /// or what is given back would be fetched at once, again and again, which other members would count as attempts.
    pub(crate) fn take_back(&self) -> Vec<Fetched> {
        let mut inside = self.inside();
        if !inside.buffer.is_empty() {
            inside.waiting = false;
        }
        inside.buffer.drain(..).collect()
    }

    /// A delivery is done.
    pub(crate) fn settled(&self) {
        let mut inside = self.inside();
        inside.unsettled = inside.unsettled.saturating_sub(1);
        drop(inside);
        self.changed.notify_one();
    }

    /// The place of a subscriber without a group goes away with it.
    pub(crate) fn leave(&self) {
        self.gone.cancel();
    }

    /// Returns when the consumer is deleted with its subscription.
    pub(crate) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// The stream ends.
    pub(crate) fn close(&self) {
        let waker = {
            let mut inside = self.inside();
            inside.closed = true;
            inside.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        self.changed.notify_one();
    }
}

/// The stream of a subscription.
pub(crate) struct Deliveries {
    pub(crate) inlet: Arc<Inlet>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) link: Arc<Link>,
}

impl Deliveries {
    fn deliver(&self, fetched: Fetched) -> Option<Delivery> {
        let id = self
            .ledger
            .hand_out(fetched.token, self.inlet.lease, &self.inlet)?;
        let held = HeldDelivery {
            id,
            ledger: Arc::clone(&self.ledger),
            link: Arc::clone(&self.link),
        };
        Some(Delivery::new(fetched.message, fetched.info, held))
    }
}

impl Stream for Deliveries {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            let mut inside = self.inlet.inside();
            if inside.closed {
                return Poll::Ready(None);
            }
            let now = Instant::now();
            inside.asked = Some(now);
            let Some(mut fetched) = inside.buffer.pop_front() else {
                inside.waker = Some(cx.waker().clone());
                let news = !std::mem::replace(&mut inside.waiting, true);
                drop(inside);
                if news {
                    self.inlet.changed.notify_one();
                }
                return Poll::Pending;
            };
            if fetched.is_expired() {
                drop(inside);
                self.ledger.tell(fetched.token.reply, Word::Ack);
                self.inlet.changed.notify_one();
                continue;
            }
            if fetched.token.server_until <= now + self.inlet.lease + ON_THE_WAY {
                if fetched.token.server_until <= now {
                    // It is another's already.
                    drop(inside);
                    self.ledger.untried.note(&fetched.token);
                    self.inlet.changed.notify_one();
                    continue;
                }
                // It has lain here for a while: its lease counts from now.
                self.ledger
                    .tell(fetched.token.reply.clone(), Word::Progress);
                fetched.token.server_until = now + fetched.token.patience;
            }
            inside.waiting = false;
            inside.unsettled += 1;
            let low = inside.buffer.is_empty();
            drop(inside);
            if low {
                self.inlet.changed.notify_one();
            }
            let delivery = self.deliver(fetched);
            if delivery.is_none() {
                self.inlet.settled();
            }
            return Poll::Ready(delivery);
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let mut inside = self.inlet.inside();
        inside.dropped = true;
        inside.waiting = false;
        inside.waker = None;
        drop(inside);
        self.inlet.changed.notify_one();
    }
}

/// A delivery in somebody's hands.
struct HeldDelivery {
    id: u64,
    ledger: Arc<Ledger>,
    link: Arc<Link>,
}

impl Settle for HeldDelivery {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let word = match settlement {
                Settlement::Ack => Word::Ack,
                Settlement::Requeue { delay } => Word::Nak(delay.filter(|delay| !delay.is_zero())),
                Settlement::Reject => Word::Term,
                other => {
                    // What is refused gives the message back.
                    self.ledger
                        .settle(&self.link, self.id, Word::Nak(None))
                        .await?;
                    return Err(Error::unsupported(format!(
                        "JetStream cannot acknowledge and publish in one step: {other:?}"
                    )));
                }
            };
            self.ledger.settle(&self.link, self.id, word).await
        })
    }

    fn abandon(self: Box<Self>) {
        self.ledger.abandon(self.id);
    }

    fn extend(&self, lease: Duration) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.ledger.extend(&self.link, self.id, lease))
    }
}
