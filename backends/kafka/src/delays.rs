//! Messages for later: they wait in one topic of their own, and are moved where they belong when their time has come.
//!
//! Each partition of that topic is for a range of delays, so that a short one does not wait behind a long one. It is a queue
//! like any other, consumed by every process that subscribes to something or has published for later: what is due is published,
//! and is done here when that is confirmed. A process that dies in between leaves it to the next one, which may publish it again,
//! under the same id.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::task::Scope;
use trunkline_core::{Clock as _, Error, ErrorKind, Result, SystemClock};
use trunkline_messaging::{Publish, Subscribe};

use crate::catalog::Catalog;
use crate::hub::Hub;
use crate::hub::forward::{Then, Unforwarded};
use crate::hub::ledger::Handed;
use crate::link::Link;
use crate::names::{Names, delayed};
use crate::publish::Publisher;
use crate::topics::TopicPlan;

/// The longest delay of the first partition; each further one takes delays that are four times as long.
const FIRST: Duration = Duration::from_secs(1);
const TIMES: u32 = 4;
const PARTITIONS: u32 = 11;
/// How long messages are kept beyond the longest delay, should nobody be there to move them.
const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// So many are moved at a time.
const AT_A_TIME: u32 = 256;
/// The pause before one that could not be moved is tried again: doubled up to the last.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest delay there is: twelve days.
fn longest() -> Duration {
    FIRST * TIMES.pow(PARTITIONS - 1)
}

/// The partition for a delay.
///
/// # Errors
/// `Invalid` for one that is too long.
pub(crate) fn tier(delay: Duration) -> Result<i32> {
    let mut limit = FIRST;
    for tier in 0..PARTITIONS {
        if delay <= limit {
            return Ok(i32::try_from(tier).unwrap_or_default());
        }
        limit *= TIMES;
    }
    let (delay, longest) = (delay.as_secs(), longest().as_secs());
    let text = format!("the delay of {delay} s is longer than Kafka's broker can do, {longest} s");
    Err(Error::invalid(text))
}

/// How the topic is made.
pub(crate) fn plan() -> TopicPlan {
    TopicPlan::default()
        .with_partitions(PARTITIONS)
        .with_config("cleanup.policy", "delete")
        .with_config("retention.ms", (longest() + GRACE).as_millis().to_string())
        .with_config("retention.bytes", "-1")
}

/// What moves messages that are due.
#[derive(Debug)]
pub(crate) struct Delays {
    link: Arc<Link>,
    names: Names,
    catalog: Arc<Catalog>,
    publisher: Arc<Publisher>,
    looks: AtomicBool,
    hub: OnceLock<Arc<Hub>>,
    /// Of what moves.
    moving: Scope,
    /// Of the consumer, which outlives it.
    consuming: Scope,
    own: Weak<Self>,
}

impl Delays {
    pub(crate) fn new(
        link: Arc<Link>,
        names: Names,
        catalog: Arc<Catalog>,
        publisher: Arc<Publisher>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            link,
            names,
            catalog,
            publisher,
            looks: AtomicBool::new(false),
            hub: OnceLock::new(),
            moving: Scope::new(),
            consuming: Scope::new(),
            own: Weak::clone(own),
        })
    }

    /// Begins once there is a topic of delayed messages, whoever has made it.
    pub(crate) fn look(&self) {
        if self.looks.swap(true, Ordering::SeqCst) {
            return;
        }
        let (Some(own), stop) = (self.own.upgrade(), self.moving.token()) else {
            return;
        };
        let every = self.link.config().topic_refresh;
        self.moving.spawn("kafka delays", async move {
            let found = async {
                loop {
                    if own.hub.get().is_some() {
                        return false;
                    }
                    let deadline = Instant::now() + Duration::from_secs(3600);
                    match own.catalog.exists(&own.names.delays, deadline).await {
                        Ok(true) => return true,
                        Err(error) if error.kind() == ErrorKind::Cancelled => return false,
                        Ok(false) | Err(_) => tokio::time::sleep(every).await,
                    }
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                found = found => if found { own.begin() },
            }
        });
    }

    /// Begins, unless it has begun.
    pub(crate) fn begin(&self) {
        let (Some(own), Ok(queue)) = (self.own.upgrade(), delayed()) else {
            return;
        };
        let mut begins = None;
        let hub = self.hub.get_or_init(|| {
            let subscribe = Subscribe::queue(queue)
                .with_prefetch(AT_A_TIME)
                // Longer than a publish takes.
                .with_lease(self.link.config().request_timeout * 2);
            let hub = Hub::new(Arc::clone(&self.link), self.names.clone(), &subscribe);
            begins = hub.join(&subscribe);
            hub
        });
        let (Some(member), hub) = (begins, Arc::clone(hub)) else {
            return;
        };
        hub.start_once(&self.catalog, &self.publisher, &self.consuming);
        let stop = self.moving.token();
        self.moving
            .spawn("kafka delays", own.move_due(hub, member, stop));
    }

    async fn move_due(self: Arc<Self>, hub: Arc<Hub>, member: u64, stop: CancellationToken) {
        let mut moving = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(()) = moving.next() => {}
                next = hub.take_handed(member) => match next {
                    Some(handed) => moving.push(self.move_one(&hub, handed)),
                    None => break,
                },
            }
        }
        // What is on its way is waited for, so that it is not published again.
        while moving.next().await.is_some() {}
        drop(moving);
        hub.end();
    }

    async fn move_one(&self, hub: &Hub, handed: Handed) {
        let destination = handed.destination.clone();
        let mut publish = Publish::new(destination.clone(), (*handed.message).clone());
        let now = SystemClock.now().unix_millis();
        publish.expires_in = handed.expires.map(|expires| {
            let left = u64::try_from(expires.saturating_sub(now));
            Duration::from_millis(left.unwrap_or_default())
        });
        let moved = match self.link.config().transactions {
            true => self.move_at_once(hub, handed.number, publish).await,
            false => self.publish(publish).await.map_err(Unforwarded::from),
        };
        let Err(Unforwarded { error, then }) = moved else {
            // When the partition has gone meanwhile it is published again, by who has it.
            drop(hub.done(handed.number).await);
            return;
        };
        let pause = PAUSE * 2_u32.saturating_pow(handed.returned.min(10));
        if error.kind() != ErrorKind::Cancelled {
            tracing::warn!(
                target: "trunkline",
                broker = "kafka",
                destination = %destination,
                message_id = %handed.message.id,
                error = %error.report(),
                "a message that is due could not be moved to its destination; it is tried again"
            );
        }
        if !matches!(then, Then::Undecided) {
            drop(hub.put_off(handed.number, Some(pause.min(LONGEST_PAUSE))));
        }
    }

    async fn publish(&self, publish: Publish) -> Result<()> {
        let deadline = Instant::now() + self.link.config().request_timeout;
        // A queue that has been removed meanwhile is made again: it was there when the message was taken.
        let topic = self.names.topic(&publish.destination)?;
        self.catalog.ensure(&topic, deadline).await?;
        let sent = self.publisher.send(publish, deadline).await?;
        self.publisher.confirmed(sent, deadline).await.map(drop)
    }

    /// It is published and done in one step.
    async fn move_at_once(
        &self,
        hub: &Hub,
        number: u64,
        publish: Publish,
    ) -> std::result::Result<(), Unforwarded> {
        let deadline = Instant::now() + self.link.config().request_timeout;
        let topic = self.names.topic(&publish.destination)?;
        self.catalog.ensure(&topic, deadline).await?;
        hub.transact(number, vec![publish], deadline).await
    }

    /// Why nothing is moved for now, if a rival is the reason.
    pub(crate) fn stands_aside(&self) -> Option<String> {
        self.hub.get().and_then(|hub| hub.stands_aside())
    }

    /// Why transactions cannot be made, if they cannot.
    pub(crate) fn not_ready(&self) -> Option<Error> {
        self.hub.get().and_then(|hub| hub.not_ready())
    }

    /// Ends when what is on its way has arrived; says how much of it did not end in time.
    pub(crate) async fn end(&self, deadline: Instant) -> usize {
        let left = self.moving.shutdown(deadline).await;
        if let Some(hub) = self.hub.get() {
            hub.end();
        }
        left + self.consuming.shutdown(deadline).await
    }

    /// Ends at once.
    pub(crate) fn stop(&self) {
        if let Some(hub) = self.hub.get() {
            hub.end();
        }
        self.moving.stop();
        self.consuming.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_waits_among_those_of_its_length() {
        let tiers = [
            (Duration::from_millis(1), 0),
            (Duration::from_secs(1), 0),
            (Duration::from_millis(1001), 1),
            (Duration::from_secs(4), 1),
            (Duration::from_secs(30), 3),
            (longest(), 10),
        ];
        for (delay, expected) in tiers {
            assert_eq!(tier(delay).unwrap(), expected, "{delay:?}");
        }
        let longer = longest() + Duration::from_millis(1);
        assert_eq!(tier(longer).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(longest() > Duration::from_secs(12 * 24 * 3600));
    }
}
