//! Typed publishing.
//!
//! A publisher adds to a value what every message should carry: content type, the running context, the sending service,
//! the time, and the attributes of CloudEvents in binary mode. A header that the caller set stays as it is.

mod outgoing;
mod route;

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;
use tracing::Instrument;
use trunkline_core::Carrier;
use trunkline_core::names::{message_header as header, span, target};
use trunkline_core::{Context, Error, Metadata, Result, Retry};
use trunkline_resilience::Call;

pub use outgoing::Outgoing;
use route::{Route, Routes};

use crate::broker::MessageBroker;
use crate::codec::Codec;
use crate::erased::AnyBroker;
use crate::message::{Message, Publish, Receipt, Routed};
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

    /// Publishes several values, pipelined: one outcome for each, in order. Those that failed and may be tried again
    /// are tried again alone.
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
            let completed = |publish: Result<Publish>| Ok(self.completed(publish?, &context));
            let batch = batch.into_iter().map(completed).collect();
            self.send_batch(batch, context).await
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
        let publish = self.completed(publish, &context);
        self.carry(publish, context).await
    }

    pub(crate) fn around(&self) -> &Surroundings {
        &self.0.around
    }

    /// Adds what every message should carry and this one does not.
    fn completed(&self, mut publish: Publish, context: &Context) -> Publish {
        let around = &self.0.around;
        let message = &mut publish.message;
        around
            .propagation
            .inject(context, &mut IfAbsent(&mut message.headers));
        let at = *message.published_at.get_or_insert(around.clock.now());
        let (at, id) = (at.to_string(), message.id.clone());
        let topic = publish.destination.name().to_string();
        let headers = &mut message.headers;
        headers.insert_if_absent(header::SERVICE, around.sender());
        headers.insert_if_absent(header::TIMESTAMP, at.as_str());
        headers.insert_if_absent(header::CE_SPECVERSION, "1.0");
        headers.insert_if_absent(header::CE_ID, id);
        headers.insert_if_absent(header::CE_SOURCE, around.sender());
        headers.insert_if_absent(header::CE_TYPE, topic);
        headers.insert_if_absent(header::CE_TIME, at);
        publish
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
        let broker = &self.0.around.broker;
        let good: Vec<Publish> = batch.iter().flatten().cloned().collect();
        let Some(first) = good.first() else {
            return batch.into_iter().filter_map(Result::err).map(Err).collect();
        };
        let route = self.0.routes.get(&first.destination, &self.0.around);
        let began = Instant::now();
        let deadline = began + route.policy.settings().timeout.total;
        let scope = context.clone().with_deadline(deadline);
        let mut good: Vec<Publish> = good;
        for publish in &mut good {
            publish.mandatory |= route.mandatory;
        }
        let mut outcomes = scope.scope(broker.publish_batch(good)).await.into_iter();
        let mut results = Vec::with_capacity(batch.len());
        for publish in batch {
            let publish = match publish {
                Ok(publish) => publish,
                Err(error) => {
                    results.push(Err(error));
                    continue;
                }
            };
            let missing = || Err(Error::internal("the broker gave too few outcomes"));
            let outcome = outcomes.next().unwrap_or_else(missing);
            let again = outcome
                .as_ref()
                .is_err_and(|error| error.retry() != Retry::Never);
            if again {
                results.push(self.carry(publish, context.clone()).await);
            } else {
                report(&route, &publish, &outcome, began);
                results.push(outcome.map_err(|error| explained(error, &publish)));
            }
        }
        results
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

/// An error for each of several that failed for the same reason.
fn duplicate(error: &Error) -> Error {
    Error::new(error.kind(), error.message().to_owned()).with_retry(error.retry())
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
