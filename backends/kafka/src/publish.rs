//! Publishing: one idempotent producer, its delivery reports are the confirms.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use rdkafka::util::IntoOpaque;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use trunkline_core::{Clock as _, Error, Result, Retry, SystemClock};
use trunkline_messaging::{Destination, Message, Publish, Receipt, Routed};

use crate::catalog::Catalog;
use crate::delays;
use crate::error::{closed, of_publish};
use crate::link::{self, Link, Reports, of_client};
use crate::names::{Names, is_delayed, position};
use crate::wire::{self, Delayed};

/// The outcome of a publish: partition and offset.
type Outcome = std::result::Result<(i32, i64), KafkaError>;

/// Travels with a message through the driver; what it holds is free when the message is done.
pub(crate) struct Waiting {
    tell: oneshot::Sender<Outcome>,
    _place: OwnedSemaphorePermit,
}

/// Hands delivery reports to who waits for them.
pub(crate) struct Confirms(Reports);

impl ClientContext for Confirms {
    fn log(&self, level: RDKafkaLogLevel, part: &str, text: &str) {
        link::log(level, part, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Confirms {
    type DeliveryOpaque = Box<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Box<Waiting>) {
        let outcome = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        // Who waited may have gone; nobody else wants to know.
        drop(waiting.tell.send(outcome));
    }
}

type Producer = ThreadedProducer<Confirms>;

/// What publishes.
pub(crate) struct Publisher {
    link: Arc<Link>,
    catalog: Arc<Catalog>,
    names: Names,
    places: Arc<Semaphore>,
    producer: Mutex<Option<Arc<Producer>>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// A message that the driver has.
pub(crate) struct Sent {
    id: String,
    topic: String,
    outcome: oneshot::Receiver<Outcome>,
}

/// A message that may go, and how.
pub(crate) struct Admitted {
    /// Kafka's.
    pub(crate) topic: String,
    /// The partition, where it is not chosen by the key.
    tier: Option<i32>,
    message: Message,
    /// Milliseconds since 1970.
    expires: Option<i64>,
    delayed: Option<Delayed>,
    /// Milliseconds since 1970.
    now: i64,
}

impl Admitted {
    /// As the driver takes it.
    pub(crate) fn record<O: IntoOpaque>(&self, opaque: O) -> BaseRecord<'_, [u8], [u8], O> {
        let message = &self.message;
        let mut record = BaseRecord::with_opaque_to(&self.topic, opaque)
            .payload(&message.payload[..])
            .headers(wire::encode(message, self.expires, self.delayed.as_ref()))
            .timestamp(self.now);
        if let Some(key) = &message.key {
            record = record.key(&key[..]);
        }
        match self.tier {
            Some(tier) => record.partition(tier),
            None => record,
        }
    }
}

impl Publisher {
    pub(crate) fn new(link: Arc<Link>, catalog: Arc<Catalog>, names: Names) -> Self {
        let places = usize::try_from(link.config().max_in_flight).unwrap_or(usize::MAX);
        Self {
            link,
            catalog,
            names,
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            producer: Mutex::default(),
        }
    }

    /// The producer; one that is beyond repair is replaced.
    fn producer(&self) -> Result<Arc<Producer>> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: nothing is made after the end.
        if self.link.is_closed() {
            return Err(closed());
        }
        if let Some(known) = &*producer {
            match known.client().fatal_error() {
                None => return Ok(Arc::clone(known)),
                Some((code, reason)) => {
                    tracing::error!(target: "trunkline", broker = "kafka", ?code, reason, "the producer is replaced");
                    if let Some(old) = producer.take() {
                        // It may wait for a while, and must not do so here.
                        let ended = std::thread::Builder::new()
                            .name("kafka retire".to_owned())
                            .spawn(move || drop(old));
                        drop(ended);
                    }
                }
            }
        }
        let config = self.link.config().producer();
        let context = Confirms(self.link.reports());
        let made: Producer = ThreadedProducer::from_config_and_context(&config, context)
            .map_err(|error| of_client(&error))?;
        let made = Arc::new(made);
        *producer = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Whether this may be published, and how; its topic is there.
    pub(crate) async fn admit(&self, publish: Publish, deadline: Instant) -> Result<Admitted> {
        if self.link.is_closed() {
            return Err(closed());
        }
        let unsupported =
            |what: &str| Error::unsupported(format!("the kafka broker cannot do this: {what}"));
        let is_queue = matches!(publish.destination, Destination::Queue(_));
        if publish.mandatory && !is_queue {
            return Err(unsupported("mandatory messages"));
        }
        let largest = self.link.config().max_message_size.as_usize();
        let size = publish.message.size();
        if size > largest {
            let text = format!("the message has {size} bytes, more than {largest}");
            return Err(Error::invalid(text));
        }
        if let Destination::Queue(queue) = &publish.destination
            && is_delayed(queue)
        {
            return Err(Error::invalid(format!(
                "the queue `{queue}` is the broker's own"
            )));
        }
        if publish.message.id.contains('\0') {
            return Err(Error::invalid("a message's id must be without NUL"));
        }
        let topic = self.names.topic(&publish.destination)?;
        if is_queue {
            if !self.catalog.exists(&topic, deadline).await? {
                let text = format!("there is no queue for `{}`", publish.destination);
                return Err(Error::not_found(text));
            }
        } else {
            self.catalog.ensure(&topic, deadline).await?;
        }
        let delay = publish.delay.filter(|delay| !delay.is_zero());
        if delay.is_some() {
            let (topic, plan) = (&self.names.delays, delays::plan());
            let made = self.catalog.ensure_as(topic, &plan, deadline);
            made.await?;
        }
        self.link.ready(deadline).await?;
        let tier = delay.map(delays::tier).transpose()?;
        let now = SystemClock.now();
        let expires = publish.expires_in.map(|span| now.after(span).unix_millis());
        // Where it waits, and then its own topic.
        let delayed = delay.map(|delay| Delayed {
            // Rounded up: never too early.
            due: now.after(delay).unix_millis().saturating_add(1),
            to: publish.destination,
        });
        Ok(Admitted {
            topic: match tier {
                Some(_) => self.names.delays.clone(),
                None => topic,
            },
            tier,
            message: publish.message,
            expires,
            delayed,
            now: now.unix_millis(),
        })
    }

    /// Its topic is not there any more, as far as somebody has heard.
    pub(crate) fn forget(&self, topic: &str) {
        self.catalog.forget(topic);
    }

    /// Gives a message to the driver. Messages to one topic are stored in the order in which this was called.
    pub(crate) async fn send(&self, publish: Publish, deadline: Instant) -> Result<Sent> {
        let admitted = self.admit(publish, deadline).await?;
        let place = tokio::time::timeout_at(deadline, Arc::clone(&self.places).acquire_owned());
        let place = match place.await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(closed()),
            Err(_) => {
                let text = "too many publishes wait for their confirms";
                return Err(Error::exhausted(text).with_retry(Retry::Safe));
            }
        };
        let (tell, outcome) = oneshot::channel();
        let waiting = Box::new(Waiting {
            tell,
            _place: place,
        });
        self.producer()?
            .send(admitted.record(waiting))
            .map_err(|(error, _)| of_publish(&error))?;
        Ok(Sent {
            id: admitted.message.id,
            topic: admitted.topic,
            outcome,
        })
    }

    /// Waits for the confirm.
    pub(crate) async fn confirmed(&self, sent: Sent, deadline: Instant) -> Result<Receipt> {
        let Sent { id, topic, outcome } = sent;
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(Ok((partition, offset)))) => {
                let receipt = Receipt::new(id, Routed::Unknown);
                // Where a message waits is not its place.
                let place = (topic != self.names.delays).then(|| position(partition, offset));
                Ok(match place.flatten() {
                    Some(position) => receipt.at(position),
                    None => receipt,
                })
            }
            Ok(Ok(Err(error))) => {
                if matches!(
                    error.rdkafka_error_code(),
                    Some(
                        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition
                    )
                ) {
                    self.catalog.forget(&topic);
                }
                self.link.doubt();
                if self.link.is_closed() {
                    return Err(closed().with_retry(Retry::IfIdempotent));
                }
                Err(of_publish(&error))
            }
            Ok(Err(_)) => Err(Error::unavailable(
                "the producer ended before the confirm: it may have been processed",
            )
            .with_retry(Retry::IfIdempotent)),
            Err(_) => {
                self.link.doubt();
                Err(
                    Error::timeout("no confirm in time: it may have been processed")
                        .with_retry(Retry::IfIdempotent),
                )
            }
        }
    }

    /// Waits until everything that was accepted is stored, and ends.
    pub(crate) async fn close(&self, deadline: Instant) -> Result<()> {
        self.places.close();
        let producer = {
            let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
            producer.take()
        };
        let Some(producer) = producer else {
            return Ok(());
        };
        let span = deadline.saturating_duration_since(Instant::now());
        // Dropping it takes half a second at most, of the time that there is.
        let span = span.saturating_sub(Duration::from_millis(500));
        let flushed = tokio::task::spawn_blocking(move || {
            let flushed = producer.flush(span);
            drop(producer);
            flushed
        });
        match flushed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::timeout("not every message was confirmed in time")
                .with_retry(Retry::IfIdempotent)),
            Err(join) => Err(Error::internal("flushing panicked").with_source(join)),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let producer = self
            .producer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(producer) = producer {
            // Perhaps in the midst of a runtime.
            let ended = std::thread::Builder::new()
                .name("kafka retire".to_owned())
                .spawn(move || drop(producer));
            drop(ended);
        }
    }
}
