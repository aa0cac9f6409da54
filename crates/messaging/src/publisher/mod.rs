//! Typed publishing.
//!
//! A publisher adds to a value what every message should carry: content type, the running context, the sending service,
//! the time, and the attributes of CloudEvents. A header that the caller set stays as it is.

mod batch;
mod outgoing;
mod route;

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;
use tracing::Instrument;
use trunkline_core::Carrier;
use trunkline_core::names::{message_header as header, span, target};
use trunkline_core::{Context, Error, Metadata, Result};
use trunkline_resilience::Call;

use batch::Batch;
pub(crate) use batch::duplicate;
pub use outgoing::Outgoing;
use route::{Route, Routes};

use crate::broker::MessageBroker;
use crate::cloudevents::{self, CloudEventsMode};
use crate::codec::Codec;
use crate::erased::AnyBroker;
use crate::message::{Message, Publish, Receipt, Routed};
use crate::protection::Demands;
use crate::surroundings::Surroundings;
use crate::typed::To;

/// Publishes values. Clones share everything.
///
/// ```
/// use trunkline_messaging::memory::MemoryBroker;
/// use trunkline_messaging::{MessageBroker, Publisher, Topic};
///
/// #[derive(serde::Serialize)]
/// struct UserCreated { id: u64 }
/// const USER_CREATED: Topic<UserCreated> = Topic::new("user.created");
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let broker = MemoryBroker::default().erase();
/// broker.connect().await?;
/// let publisher = Publisher::new(broker);
/// publisher.publish(USER_CREATED, &UserCreated { id: 7 }).await?;
/// publisher.to(USER_CREATED).key("7").header("tenant", "a").send(&UserCreated { id: 7 }).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Publisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    around: Surroundings,
    routes: Routes,
}

impl Publisher {
    /// A publisher with default settings; [`Messaging::builder`](crate::Messaging::builder) makes others.
    #[must_use]
    pub fn new(broker: AnyBroker) -> Self {
        Self::in_surroundings(Surroundings::new(broker))
    }

    pub(crate) fn in_surroundings(around: Surroundings) -> Self {
        let routes = Routes::default();
        Self(Arc::new(Inner { around, routes }))
    }

    /// Publishes a value and waits for the confirm.
    ///
    /// # Errors
    /// `Invalid` when the value cannot be written or is too large; `NotFound` when it must find somebody and does not;
    /// `Unavailable`, `Timeout`, `Exhausted`, `Rejected` when the broker does not take it in time.
    ///
    /// # Cancel safety
    /// When dropped, the message may or may not have been published.
    pub fn publish<'a, T, D>(
        &'a self,
        to: D,
        value: &T,
    ) -> impl Future<Output = Result<Receipt>> + Send + use<'a, T, D>
    where
        T: Serialize + ?Sized,
        D: To<T>,
    {
        self.to(to).send(value)
    }

    /// Begins a message with options.
    #[must_use = "nothing is published before `send`"]
    pub fn to<T, D>(&self, to: D) -> Outgoing<'_, T>
    where
        T: ?Sized,
        D: To<T>,
    {
        Outgoing::new(self, to.destination())
    }

    /// Publishes several values, pipelined: one outcome for each, in order. To the policy they are one call; those that
    /// failed and may be tried again are tried again together.
    ///
    /// # Cancel safety
    /// When dropped, each message may or may not have been published.
    pub fn publish_batch<'a, T, D>(
        &'a self,
        to: D,
        values: &[T],
    ) -> impl Future<Output = Vec<Result<Receipt>>> + Send + use<'a, T, D>
    where
        T: Serialize,
        D: To<T>,
    {
        let codec = self.0.around.codec;
        let destination = to.destination();
        let batch: Vec<Result<Publish>> = values
            .iter()
            .map(|value| {
                let destination = destination.as_ref().map_err(duplicate)?;
                let message =
                    Message::new(codec.encode(value)?).with_content_type(codec.content_type());
                Ok(Publish::new(destination.clone(), message))
            })
            .collect();
        async move {
            let context = self.0.around.propagation.current_or_new().child();
            let mut packed = Vec::with_capacity(batch.len());
            for publish in batch {
                packed.push(match publish {
                    Ok(publish) => {
                        self.packed(publish, &context, None, Demands::default())
                            .await
                    }
                    Err(error) => Err(error),
                });
            }
            self.send_batch(packed, context).await
        }
    }

    /// Publishes a message as it is, with the headers that are missing.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// As [`Publisher::publish`].
    pub async fn send(&self, publish: Publish) -> Result<Receipt> {
        let context = self.0.around.propagation.current_or_new().child();
        let publish = self
            .packed(publish, &context, None, Demands::default())
            .await?;
        self.carry(publish, context).await
    }

    /// Publishes a message of somebody else's as it is, without any header of ours.
    pub(crate) async fn forward(&self, publish: Publish, context: Context) -> Result<Receipt> {
        self.carry(publish, context).await
    }

    pub(crate) fn around(&self) -> &Surroundings {
        &self.0.around
    }

    /// Adds what every message should carry and this one does not.
    fn completed(&self, mut publish: Publish, context: &Context) -> Publish {
        let around = &self.0.around;
        let message = &mut publish.message;
        let sorted = is_sorted(&message.headers);
        around
            .propagation
            .inject(context, &mut IfAbsent(&mut message.headers));
        let at = *message.published_at.get_or_insert(around.clock.now());
        let at = at.to_string();
        let topic = publish.destination.name().to_string();
        let headers = &mut message.headers;
        headers.insert_if_absent(header::SERVICE, around.sender());
        headers.insert_if_absent(header::TIMESTAMP, at.as_str());
        cloudevents::complete(message, around.sender(), topic, at);
        // Where headers come back by name, brokers need no word on their order: it would be sent with every message.
        if sorted {
            sort(&mut message.headers);
        }
        publish
    }

    /// Completes a message and makes it ready for the wire.
    async fn packed(
        &self,
        publish: Publish,
        context: &Context,
        mode: Option<CloudEventsMode>,
        demands: Demands,
    ) -> Result<Publish> {
        self.0.around.check(&publish)?;
        let publish = self.completed(publish, context);
        let wire = &self.0.around.wire;
        let mode = mode.unwrap_or(wire.cloudevents);
        wire.pack(publish, mode, demands).await
    }

    /// Carries a message to the broker by the policy of its destination.
    async fn carry(&self, mut publish: Publish, context: Context) -> Result<Receipt> {
        let route = self.0.routes.get(&publish.destination, &self.0.around);
        publish.mandatory |= route.mandatory;
        let began = Instant::now();
        let broker = &self.0.around.broker;
        let span = tracing::debug_span!(
            target: "trunkline",
            span::PUBLISH,
            destination = %publish.destination,
            message_id = %publish.message.id,
            correlation_id = %context.correlation_id(),
        );
        let call = Call::new(&context).repeatable(true);
        let outcome = route
            .policy
            .run(call, |attempt| {
                let scope = context.clone().with_deadline(attempt.deadline);
                scope.scope(broker.publish(publish.clone()))
            })
            .instrument(span)
            .await;
        report(&route, &publish, &outcome, began);
        outcome.map_err(|error| explained(error, &publish))
    }

    async fn send_batch(
        &self,
        batch: Vec<Result<Publish>>,
        context: Context,
    ) -> Vec<Result<Receipt>> {
        let good: Vec<Publish> = batch.iter().flatten().cloned().collect();
        let Some(first) = good.first() else {
            return batch.into_iter().filter_map(Result::err).map(Err).collect();
        };
        let route = self.0.routes.get(&first.destination, &self.0.around);
        let mut sent = self.carry_batch(&route, good, &context).await.into_iter();
        let missing = || Err(Error::internal("a message of a batch has no outcome"));
        let outcome =
            |publish: Result<Publish>| publish.and_then(|_| sent.next().unwrap_or_else(missing));
        batch.into_iter().map(outcome).collect()
    }

    /// Carries messages to one destination by its policy, as one call: what may be tried again is tried again together.
    async fn carry_batch(
        &self,
        route: &Route,
        mut messages: Vec<Publish>,
        context: &Context,
    ) -> Vec<Result<Receipt>> {
        let began = Instant::now();
        let broker = &self.0.around.broker;
        for publish in &mut messages {
            publish.mandatory |= route.mandatory;
        }
        let span = tracing::debug_span!(
            target: "trunkline",
            span::PUBLISH,
            destination = messages.first().map(|publish| tracing::field::display(&publish.destination)),
            messages = messages.len(),
            correlation_id = %context.correlation_id(),
        );
        let batch = Batch::new(messages);
        let call = Call::new(context).repeatable(true);
        let outcome = route
            .policy
            .run(call, |attempt| {
                let scope = context.clone().with_deadline(attempt.deadline);
                let (asked, messages) = batch.left();
                let sending = scope.scope(broker.publish_batch(messages));
                let batch = &batch;
                async move { batch.answered(&asked, sending.await) }
            })
            .instrument(span)
            .await;
        let told = batch.close(outcome).into_iter().map(|(publish, outcome)| {
            report(route, &publish, &outcome, began);
            outcome.map_err(|error| explained(error, &publish))
        });
        told.collect()
    }
}

fn report(route: &Route, publish: &Publish, outcome: &Result<Receipt>, began: Instant) {
    let took = began.elapsed();
    match outcome {
        Ok(receipt) => {
            route.metrics.published(1, took);
            route.metrics.payload(publish.message.payload.len());
            if receipt.routed == Routed::No {
                route.metrics.unroutable();
            }
            tracing::debug!(
                target: target::CALL,
                destination = %publish.destination,
                message_id = %publish.message.id,
                duration_ms = took.as_secs_f64() * 1e3,
                routed = ?receipt.routed,
                "published"
            );
        }
        Err(error) => {
            route.metrics.failed(1, error.kind());
            tracing::warn!(
                target: target::CALL,
                destination = %publish.destination,
                message_id = %publish.message.id,
                duration_ms = took.as_secs_f64() * 1e3,
                error = %error.report(),
                "publish failed"
            );
        }
    }
}

fn explained(error: Error, publish: &Publish) -> Error {
    error
        .with_operation("publish")
        .with_context("destination", &publish.destination)
        .with_context("message_id", &publish.message.id)
}

fn is_sorted(headers: &Metadata) -> bool {
    headers.iter().map(|(name, _)| name).is_sorted()
}

/// By name; values of one name keep their order.
fn sort(headers: &mut Metadata) {
    let mut pairs: Vec<_> = std::mem::take(headers).into_iter().collect();
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    headers.extend(pairs);
}

/// Adds headers, never replaces one.
struct IfAbsent<'a>(&'a mut Metadata);

impl Carrier for IfAbsent<'_> {
    fn read(&self, name: &str) -> Option<&str> {
        self.0.get(name)
    }

    fn write(&mut self, name: &str, value: &str) {
        self.0.insert_if_absent(name, value);
    }
}
