//! The smallest broker that keeps the contract: topics in one process, at most once. It passes the suite by claiming
//! nothing that it cannot do. `docs/adding-a-broker.md` explains it.

// [broker]
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use trunkline_core::{BoxFuture, Clock, Context, Error, Result, Retry, SystemClock};
use trunkline_messaging::{
    Capabilities, Delivery, DeliveryInfo, Destination, MessageBroker, Publish, Receipt, Routed,
    Settle, Settlement, Source, Start, Subscribe, Subscription, SubscriptionState, TopicName,
};

const LARGEST: usize = 1024 * 1024;

pub(crate) struct Smallest {
    listeners: Mutex<HashMap<TopicName, Vec<mpsc::Sender<Delivery>>>>,
    state: watch::Sender<SubscriptionState>,
}

impl Smallest {
    pub(crate) fn new() -> Self {
        let reason = "not connected yet".to_owned();
        Self {
            listeners: Mutex::default(),
            state: watch::Sender::new(SubscriptionState::Detached { reason }),
        }
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<TopicName, Vec<mpsc::Sender<Delivery>>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn check_not_closed(&self) -> Result<()> {
        check_not_closed(&self.state.borrow())
    }

    /// Waits for the connection, no longer than the caller.
    async fn connected(&self) -> Result<()> {
        let limit = Context::current().and_then(|context| context.deadline());
        let limit = limit.unwrap_or_else(|| Instant::now() + std::time::Duration::from_secs(30));
        let mut state = self.state.subscribe();
        let there = state.wait_for(|state| !matches!(state, SubscriptionState::Detached { .. }));
        match tokio::time::timeout_at(limit, there).await {
            Ok(_) => self.check_not_closed(),
            // Nothing was sent: whoever repeats it does no harm.
            Err(_) => Err(Error::unavailable("not connected").with_retry(Retry::Safe)),
        }
    }
}

fn check_not_closed(state: &SubscriptionState) -> Result<()> {
    match state {
        SubscriptionState::Closed => Err(Error::cancelled("the broker was disconnected")),
        SubscriptionState::Attached | SubscriptionState::Detached { .. } => Ok(()),
    }
}

impl MessageBroker for Smallest {
    fn kind(&self) -> &'static str {
        "smallest"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::none();
        capabilities.max_message_size = Some(LARGEST);
        capabilities
    }

    async fn connect(&self) -> Result<()> {
        self.check_not_closed()?;
        self.state.send_replace(SubscriptionState::Attached);
        Ok(())
    }

    async fn disconnect(&self, _: Instant) -> Result<()> {
        self.state.send_replace(SubscriptionState::Closed);
        // Streams end when their senders are gone.
        self.listeners().clear();
        Ok(())
    }

    async fn health_check(&self) -> Result<()> {
        self.check_not_closed()
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        let (can, kind) = (self.capabilities(), self.kind());
        let Destination::Topic(topic) = &publish.destination else {
            return Err(Error::unsupported("this broker has no queues"));
        };
        can.require(publish.delay.is_none(), kind, "delays")?;
        can.require(publish.expires_in.is_none(), kind, "expiry")?;
        can.require(!publish.mandatory, kind, "mandatory messages")?;
        if publish.message.size() > LARGEST {
            let text = format!("the message is larger than {LARGEST} bytes");
            return Err(Error::invalid(text));
        }
        self.connected().await?;
        let mut message = publish.message;
        message.published_at.get_or_insert(SystemClock.now());
        let message = Arc::new(message);
        let senders = self.listeners().get(topic).cloned().unwrap_or_default();
        let mut reached = false;
        for sender in senders {
            let info = DeliveryInfo::new(publish.destination.clone());
            let delivery = Delivery::new(
                Arc::clone(&message),
                info,
                AtMostOnce(self.state.subscribe()),
            );
            // A full channel makes the publisher wait: that is the back-pressure.
            reached |= sender.send(delivery).await.is_ok();
        }
        let routed = if reached { Routed::Yes } else { Routed::No };
        Ok(Receipt::new(message.id.clone(), routed))
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        self.check_not_closed()?;
        let is_topic = matches!(destination, Destination::Topic(_));
        self.capabilities().require(is_topic, self.kind(), "queues")
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        self.check_not_closed()?;
        let (can, kind) = (self.capabilities(), self.kind());
        can.require(subscribe.group.is_none(), kind, "groups")?;
        can.require(subscribe.start == Start::Latest, kind, "replay")?;
        let Source::Topics(pattern) = &subscribe.source else {
            return Err(Error::unsupported("this broker has no queues"));
        };
        let Some(topic) = pattern.as_topic() else {
            return Err(Error::unsupported("this broker has no wildcards"));
        };
        let (sender, receiver) = mpsc::channel(subscribe.prefetch as usize);
        let mut listeners = self.listeners();
        let own = listeners.entry(topic).or_default();
        own.retain(|sender| !sender.is_closed());
        own.push(sender);
        let deliveries = futures_util::stream::unfold(receiver, |mut receiver| async {
            let delivery = receiver.recv().await?;
            Some((delivery, receiver))
        });
        Ok(Subscription::new(deliveries, self.state.subscribe()))
    }
}

/// Nothing comes twice, so there is nothing to tell the broker.
struct AtMostOnce(watch::Receiver<SubscriptionState>);

impl Settle for AtMostOnce {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            check_not_closed(&self.0.borrow())?;
            match settlement {
                Settlement::Ack | Settlement::Reject => Ok(()),
                other => Err(Error::unsupported(format!(
                    "this broker cannot do {other:?}"
                ))),
            }
        })
    }

    fn abandon(self: Box<Self>) {}
}
// [broker]

// [suite]
use trunkline_messaging::AnyBroker;
use trunkline_testing::Scope;
use trunkline_testing::broker::BrokerHarness;

struct Harness;

impl BrokerHarness for Harness {
    async fn open(&self, _: &Scope) -> Option<AnyBroker> {
        Some(Smallest::new().erase())
    }
}

mod smallest {
    trunkline_testing::broker_conformance!(super::Harness);
    mod below_the_router {
        trunkline_testing::router_conformance!(super::super::Harness);
    }
}
// [suite]

/// What the guide prints is what runs here.
#[test]
fn the_guide_prints_this_broker() {
    let guide = include_str!("../../../../docs/adding-a-broker.md");
    let source = include_str!("smallest_broker.rs");
    for part in ["// [broker]\n", "// [suite]\n"] {
        let printed = source.split(part).nth(1).expect("the part is marked");
        assert!(
            guide.contains(printed),
            "docs/adding-a-broker.md does not print this part as it is: {part}"
        );
    }
}
