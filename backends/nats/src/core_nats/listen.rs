//! The task of one subscription to core NATS.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message as Raw, Subscriber};
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::names::message_header;
use trunkline_core::{BoxFuture, Clock as _, Error, ErrorKind, Id, Result, SystemClock};
use trunkline_messaging::{
    Delivery, DeliveryInfo, Settle, Settlement, SubscriptionState, TopicName, TopicPattern,
};

use crate::error::closed;
use crate::link::{Link, LinkState, Up};
use crate::names::Names;
use crate::wire;

/// After a failure, until the next attempt.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the server may take to say that it knows the subscription.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// Makes deliveries of what arrives.
pub(super) struct Inbound {
    pub(super) names: Names,
    pub(super) pattern: TopicPattern,
    pub(super) group: Option<String>,
    pub(super) link: Arc<Link>,
}

pub(super) struct Listener {
    pub(super) link: Arc<Link>,
    pub(super) subjects: Vec<String>,
    pub(super) group: Option<String>,
    pub(super) nobody: String,
    pub(super) inbound: Inbound,
    pub(super) sender: mpsc::Sender<Delivery>,
    pub(super) state: watch::Sender<SubscriptionState>,
    pub(super) stop: CancellationToken,
}

impl Listener {
    /// Runs until the subscription is dropped or the broker disconnected.
    pub(super) async fn run(self) {
        let mut links = self.link.state();
        while !self.stop.is_cancelled() && !self.sender.is_closed() {
            let up = match &*links.borrow_and_update() {
                LinkState::Up(up) => Some(up.clone()),
                LinkState::Closed => break,
                LinkState::Idle | LinkState::Down(_) => None,
            };
            let failed = match up {
                None => self.link.down().to_string(),
                Some(up) => match self.listen(&up).await {
                    Ok(()) => continue,
                    Err(error) => error.report().to_string(),
                },
            };
            self.state.send_if_modified(|state| {
                let next = SubscriptionState::Detached { reason: failed };
                let other = *state != next;
                *state = next;
                other
            });
            let again = self.link.now().is_some();
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.sender.closed() => {}
                // An error: the link is gone, which the next look sees.
                _ = links.changed() => {}
                () = tokio::time::sleep(PAUSE), if again => {}
            }
        }
        self.state.send_replace(SubscriptionState::Closed);
    }

    /// Listens on one client. It keeps its subscriptions over its own reconnections; only one that is another needs new ones.
    async fn listen(&self, first: &Up) -> Result<()> {
        let mut inbox: SelectAll<Subscriber> = SelectAll::new();
        for subject in &self.subjects {
            let subscribed = match &self.group {
                Some(group) => {
                    first
                        .client
                        .queue_subscribe(subject.clone(), group.clone())
                        .await
                }
                None => first.client.subscribe(subject.clone()).await,
            };
            inbox.push(subscribed.map_err(|error| {
                Error::unavailable("the subscription could not be made").with_source(error)
            })?);
        }
        self.known(first).await?;
        self.state.send_replace(SubscriptionState::Attached);
        loop {
            let raw = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = self.sender.closed() => return Ok(()),
                () = self.link.lost(first.generation) => return Ok(()),
                raw = inbox.next() => raw,
            };
            let Some(raw) = raw else {
                return Err(Error::unavailable(
                    "the client of the subscription has ended",
                ));
            };
            let Some(delivery) = self.inbound.delivery(raw) else {
                continue;
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                // Closed: the subscription was dropped, which the next look sees.
                sent = self.sender.send(delivery) => drop(sent),
            }
        }
    }

    /// Waits until the server knows the subscription: what is asked behind it is answered after it.
    async fn known(&self, up: &Up) -> Result<()> {
        let deadline = Instant::now() + KNOWN_WITHIN;
        let nobody = self.nobody.clone();
        match self
            .link
            .request(up, deadline, nobody, bytes::Bytes::new())
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Inbound {
    fn delivery(&self, raw: Raw) -> Option<Delivery> {
        // Words of the server, and what a `>` catches of others' requests.
        if raw.status.is_some()
            || raw.subject.starts_with("_INBOX.")
            || raw.subject.starts_with('$')
        {
            return None;
        }
        let destination = self.names.destination(&raw.subject)?;
        if !self.pattern.matches(destination.name()) {
            return None;
        }
        let now = SystemClock.now();
        let id = || Id::new().to_string();
        let arrived = wire::decode(raw.headers.as_ref(), raw.payload, id, Some(now));
        let mut message = arrived.message;
        let ours = raw
            .headers
            .as_ref()
            .is_some_and(|headers| headers.get(wire::CONFIRM.clone()).is_some());
        if let Some(reply) = raw.reply.filter(|_| !ours) {
            // A request of somebody else: the answer goes to its subject, which is a topic where there is no prefix.
            let topic = self.names.destination(&reply);
            if let Some(topic) = topic.and_then(|topic| TopicName::new(topic.name()).ok()) {
                message
                    .headers
                    .insert_if_absent(message_header::REPLY_TO, topic.as_str());
                let id = message.id.clone();
                message.headers.insert_if_absent(message_header::CE_ID, id);
            }
        }
        let info = DeliveryInfo::new(destination).with_group(self.group.clone());
        let settle = AtMostOnce(Arc::clone(&self.link));
        Some(Delivery::new(message, info, settle))
    }
}

/// The stream of a subscription.
pub(super) fn deliveries(
    receiver: mpsc::Receiver<Delivery>,
) -> impl Stream<Item = Delivery> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async {
        let delivery = receiver.recv().await?;
        Some((delivery, receiver))
    })
}

/// Nothing comes twice, so there is nothing to tell the server.
struct AtMostOnce(Arc<Link>);

impl Settle for AtMostOnce {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            if self.0.is_closed() {
                return Err(closed());
            }
            match settlement {
                Settlement::Ack | Settlement::Reject => Ok(()),
                other => Err(Error::unsupported(format!(
                    "core NATS delivers at most once and cannot do this: {other:?}"
                ))),
            }
        })
    }

    fn abandon(self: Box<Self>) {}
}
