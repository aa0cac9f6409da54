//! One consumer on one channel of one connection: what it hands out can be settled here and nowhere else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::AMQPValue;
use tokio::sync::Notify;
use trunkline_core::{BoxFuture, Clock as _, Error, ErrorKind, Result, SystemClock};
use trunkline_messaging::{
    Delivery, DeliveryInfo, Destination, Settle, Settlement, Source, TopicName,
};

use super::Shared;
use super::acks::Acks;
use super::intake::Arrived;
use super::unread::Unread;
use crate::error::from_driver;
use crate::link::Link;
use crate::names;
use crate::publisher::{Envelope, Outcome};
use crate::wire;

/// Acknowledgements that are told at once at most.
const LARGEST_BATCH: usize = 128;

/// What a consumer is of, for as long as its subscription lives.
pub(super) struct About {
    pub(super) source: Source,
    pub(super) group: Option<String>,
    pub(super) queue: String,
    pub(super) shared: Arc<Shared>,
    /// What came to this subscription and went back before anybody had it.
    pub(super) unread: Unread,
}

pub(super) struct Session {
    pub(super) about: Arc<About>,
    pub(super) link: Link,
    pub(super) channel: Channel,
    /// Handed out and not settled.
    held: AtomicUsize,
    /// Something was settled.
    pub(super) settled: Notify,
    /// What is done, until the server is told.
    acks: Mutex<Acks>,
    /// Something is done since the server was told last.
    pub(super) done: Notify,
    has_news: AtomicBool,
    /// So many done ones are told at once.
    batch: usize,
    /// With so many unsettled ones the server may soon have to wait for word of them.
    many: usize,
}

impl Session {
    pub(super) fn new(about: Arc<About>, link: Link, channel: Channel, prefetch: u16) -> Self {
        Self {
            about,
            link,
            channel,
            held: AtomicUsize::new(0),
            settled: Notify::new(),
            acks: Mutex::default(),
            done: Notify::new(),
            has_news: AtomicBool::new(false),
            batch: (usize::from(prefetch) / 4).clamp(1, LARGEST_BATCH),
            many: usize::from(prefetch) / 2,
        }
    }

    /// Notes that a delivery is done. The server is told of several at once: when there are enough of them, when it might
    /// send nothing more before it knows, or soon after by the task. AMQP does not answer an acknowledgement: that it lies
    /// here says as much as that it lies in a socket, and the message comes again when either is lost.
    fn note_done(&self, tag: u64) {
        let waiting = self.acks().done(tag);
        self.has_news.store(true, Ordering::Release);
        if waiting >= self.batch || self.about.shared.is_closed() {
            self.tell_done();
        } else if waiting == 1 {
            self.done.notify_one();
        }
    }

    /// Tells the server what is done if it might soon send nothing more before it knows. Where more can come, a word for
    /// each delivery would cost the server more than the delivery.
    pub(super) fn tell_done_if_awaited(&self) {
        if !self.has_news.load(Ordering::Acquire) {
            return;
        }
        let waiting = self.acks().waiting();
        if self.held().saturating_add(waiting) >= self.many {
            self.tell_done();
        }
    }

    /// Tells the server what is done, without waiting.
    pub(super) fn tell_done(&self) {
        if !self.has_news.swap(false, Ordering::AcqRel) {
            return;
        }
        // Held while it is sent: one word after the other, and none before what was given back ahead of it.
        let mut acks = self.acks();
        for tell in acks.take() {
            let options = BasicAckOptions {
                multiple: tell.multiple,
            };
            let outcome = self.channel.basic_ack(tell.tag, options).now_or_never();
            // When it failed the channel is gone, and the message comes again by itself.
            drop(outcome);
        }
    }

    fn acks(&self) -> MutexGuard<'_, Acks> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected() && self.link.is_connected()
    }

    /// Turns what arrived into a delivery; none if it can be nobody's any more.
    pub(super) fn hand_out(arrived: Arrived) -> Option<Delivery> {
        let Arrived { delivery, session } = arrived;
        if !session.is_open() {
            // It comes again on the next connection.
            session.note_unread(&delivery);
            return None;
        }
        let lapin::message::Delivery {
            delivery_tag,
            exchange,
            routing_key,
            redelivered,
            properties,
            data,
            ..
        } = delivery;
        let expires = wire::number(&properties, wire::EXPIRES_AT);
        if expires.is_some_and(|at| SystemClock.now().unix_millis() >= at) {
            session.note_done(delivery_tag);
            return None;
        }
        let topic =
            wire::text_header(&properties, wire::TOPIC).unwrap_or_else(|| routing_key.to_string());
        let destination = session.about.destination(exchange.as_str(), &topic);
        let before = deliveries_before(&properties, redelivered);
        let came = wire::Came {
            exchange: exchange.as_str(),
            key: routing_key.as_str(),
            recognise_equal: session.about.shared.config.recognise_equal,
        };
        let message = Arc::new(wire::message(&properties, data, came));
        let unread = match before {
            0 => 0,
            _ => session.about.unread.of(&message.id),
        };
        let attempt = before.saturating_sub(unread).saturating_add(1);
        let info = DeliveryInfo::new(destination)
            .with_group(session.about.group.clone())
            .with_attempt(attempt);
        session.held.fetch_add(1, Ordering::AcqRel);
        let handle = Held {
            session,
            tag: delivery_tag,
            message: Arc::clone(&message),
            topic,
            attempt,
            was_unread: unread > 0,
            expires_in: properties
                .expiration()
                .as_ref()
                .and_then(|text| text.as_str().parse().ok()),
        };
        Some(Delivery::new(message, info, handle))
    }

    /// Notes that a message goes back, or is lost with the connection, before anybody had it.
    pub(super) fn note_unread(&self, delivery: &lapin::message::Delivery) {
        // Without an id of its sender's it cannot be told from others, and counts as the server says.
        if let Some(id) = delivery.properties.message_id() {
            self.about.unread.add(id.to_string());
        }
    }

    /// Gives back without waiting: the driver takes it at the first poll.
    pub(super) fn give_back(&self, tag: u64) {
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        let outcome = self.channel.basic_nack(tag, options).now_or_never();
        // When it failed the channel is gone, and the message comes again by itself.
        drop(outcome);
        self.acks().told(tag);
    }

    /// The same with what nobody had.
    pub(super) fn give_back_unread(&self, delivery: &lapin::message::Delivery) {
        self.note_unread(delivery);
        self.give_back(delivery.delivery_tag);
    }

    fn release(&self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
        self.settled.notify_one();
    }
}

/// How often a message was delivered before, in this queue and in those where it was before it waited for a delay.
fn deliveries_before(properties: &AMQPProperties, redelivered: bool) -> u32 {
    let count = |name| {
        let number = wire::number(properties, name).unwrap_or(0);
        u32::try_from(number.max(0)).unwrap_or(u32::MAX)
    };
    // Queues that count say how often; others only that it was. Without that word the number is none of this queue's: it
    // came with the message, from somebody who read it elsewhere and published it again with all its headers.
    let here = match redelivered {
        true => {
            let counts = [wire::DELIVERY_COUNT, wire::ACQUIRED_COUNT].map(count);
            counts.into_iter().fold(1, u32::max)
        }
        false => 0,
    };
    count(wire::DELIVERIES).saturating_add(here)
}

/// What is told to the server of one delivery by itself.
#[derive(Clone, Copy)]
enum Told {
    Reject,
    Again,
}

impl About {
    fn destination(&self, exchange: &str, topic: &str) -> Destination {
        match &self.source {
            Source::Queue(queue) => Destination::Queue(queue.clone()),
            Source::Topics(pattern) => {
                let known = names::topic_of_key(topic);
                if known.is_none() {
                    tracing::debug!(target: "trunkline", exchange, key = topic, "a routing key that is no topic");
                }
                // The grammar takes any text but the empty one, which the function has made to `_`.
                let topic = known.or_else(|| pattern.as_topic());
                Destination::Topic(topic.unwrap_or_else(unnamed))
            }
        }
    }
}

fn unnamed() -> TopicName {
    TopicName::new("_").expect("an underscore is a name")
}

/// A delivery in somebody's hands.
struct Held {
    session: Arc<Session>,
    tag: u64,
    message: Arc<trunkline_messaging::Message>,
    topic: String,
    attempt: u32,
    /// It came before without being handed out.
    was_unread: bool,
    /// The milliseconds that the message may wait, as its sender said.
    expires_in: Option<i64>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.session.release();
    }
}

impl Held {
    /// A delivery belongs to its channel. When that is gone the message is with somebody else.
    fn check(&self) -> Result<()> {
        if self.session.about.shared.is_closed() {
            return Err(Error::cancelled("the broker was disconnected"));
        }
        if !self.session.is_open() {
            return Err(lost());
        }
        Ok(())
    }

    async fn settle_so(self, settlement: Settlement) -> Result<()> {
        self.check()?;
        match settlement {
            Settlement::Ack => {
                self.forget_unread();
                self.session.note_done(self.tag);
                Ok(())
            }
            Settlement::Reject => {
                self.forget_unread();
                self.tell(Told::Reject).await
            }
            Settlement::Requeue { delay: None } => self.tell(Told::Again).await,
            Settlement::Requeue { delay: Some(delay) } => self.put_off(delay).await,
            other => {
                self.session.give_back(self.tag);
                Err(Error::unsupported(format!(
                    "RabbitMQ cannot do this in one step: {}",
                    word(&other)
                )))
            }
        }
    }

    /// What comes under its id from now on is counted anew by the server.
    fn forget_unread(&self) {
        if self.was_unread {
            self.session.about.unread.forget(&self.message.id);
        }
    }

    async fn tell(&self, what: Told) -> Result<()> {
        let channel = &self.session.channel;
        let told = async {
            let told = match what {
                Told::Reject => {
                    let options = BasicRejectOptions { requeue: false };
                    channel.basic_reject(self.tag, options).await
                }
                Told::Again => {
                    let options = BasicNackOptions {
                        multiple: false,
                        requeue: true,
                    };
                    channel.basic_nack(self.tag, options).await
                }
            };
            told.map_err(|error| from_driver("settle", error))
        };
        let told = self.session.link.or_gone(told).await;
        told.map_err(|error| self.failed(error))?;
        self.session.acks().told(self.tag);
        Ok(())
    }

    /// A copy comes to the queue when the delay is over; when the server has it, the message is done. A crash in between
    /// leaves both, never none.
    async fn put_off(self, delay: Duration) -> Result<()> {
        let outcome = self.copy(delay).await;
        match outcome {
            Ok(Outcome::Routed) => {
                if !self.session.is_open() {
                    return Err(lost());
                }
                self.forget_unread();
                self.session.note_done(self.tag);
                Ok(())
            }
            Ok(Outcome::Unroutable) => {
                self.session.give_back(self.tag);
                Err(Error::unavailable("the queue for the delay is gone"))
            }
            Err(error) => {
                self.session.give_back(self.tag);
                Err(error)
            }
        }
    }

    async fn copy(&self, delay: Duration) -> Result<Outcome> {
        let about = &self.session.about;
        let mut properties = wire::properties(&self.message)?;
        let deliveries = AMQPValue::LongLongInt(i64::from(self.attempt));
        properties = wire::with_header(properties, wire::DELIVERIES, deliveries);
        if matches!(about.source, Source::Topics(_)) {
            let topic = AMQPValue::LongString(self.topic.as_str().into());
            properties = wire::with_header(properties, wire::TOPIC, topic);
        }
        if let (Some(span), Some(at)) = (self.expires_in, self.message.published_at) {
            let expires = AMQPValue::LongLongInt(at.unix_millis().saturating_add(span));
            properties = wire::with_header(properties, wire::EXPIRES_AT, expires);
        }
        let envelope = Envelope {
            exchange: "".into(),
            routing_key: wire::short("the queue's name", &about.queue)?,
            properties,
            payload: self.message.payload.clone(),
            delay: Some(names::rounded_delay(delay)),
        };
        about.shared.publisher.publish(envelope).await
    }

    fn failed(&self, error: Error) -> Error {
        if self.session.about.shared.is_closed() {
            return Error::cancelled("the broker was disconnected");
        }
        match error.kind() {
            // The server gives it to somebody else when it notices.
            ErrorKind::Unavailable => lost().with_source(error),
            _ => error,
        }
    }
}

impl Settle for Held {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        Box::pin(self.settle_so(settlement))
    }

    fn abandon(self: Box<Self>) {
        if self.session.is_open() {
            self.session.give_back(self.tag);
        }
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the connection that it came on is gone; the message comes again",
    )
}

fn word(settlement: &Settlement) -> &'static str {
    match settlement {
        Settlement::Forward(_) => "acknowledge and publish",
        _ => "this settlement",
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldTable;

    use super::*;

    fn with(headers: &[(&str, i64)]) -> AMQPProperties {
        let mut table = FieldTable::default();
        for (name, number) in headers {
            table.insert((*name).into(), AMQPValue::LongLongInt(*number));
        }
        AMQPProperties::default().with_headers(table)
    }

    #[test]
    fn deliveries_are_counted_as_well_as_the_queue_does() {
        let quorum = with(&[(wire::DELIVERY_COUNT, 4)]);
        assert_eq!(deliveries_before(&quorum, true), 4);
        // What somebody published again with the headers that it had elsewhere.
        assert_eq!(deliveries_before(&quorum, false), 0);
        assert_eq!(deliveries_before(&with(&[]), true), 1);
        let newer = with(&[(wire::DELIVERY_COUNT, 0), (wire::ACQUIRED_COUNT, 3)]);
        assert_eq!(deliveries_before(&newer, true), 3);
        let waited = with(&[(wire::DELIVERIES, 2), (wire::DELIVERY_COUNT, 3)]);
        assert_eq!(deliveries_before(&waited, true), 5);
        assert_eq!(deliveries_before(&waited, false), 2);
        let absurd = with(&[(wire::DELIVERIES, i64::MAX), (wire::DELIVERY_COUNT, -1)]);
        assert_eq!(deliveries_before(&absurd, true), u32::MAX);
    }
}
