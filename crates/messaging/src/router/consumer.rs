//! One handler at work: takes deliveries, runs attempts, settles.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use trunkline_core::names::{message_header as header, span};
use trunkline_core::{Context, Error, Result};
use trunkline_resilience::breaker::Breaker;
use trunkline_telemetry::metrics::{ConsumeMetrics, Processed};

use super::attempt::Attempted;
use super::decide::{Reason, Verdict, Way, decide, held};
use super::error::HandlerError;
use super::handler::AnyHandler;
use super::incoming::{About, Incoming};
use super::intake::{Intake, Next};
use super::middleware::AnyMiddleware;
use crate::capabilities::OrderingGuarantee;
use crate::dead_letters::names::owner;
use crate::delivery::Delivery;
use crate::inbox::AnyInbox;
use crate::message::{Message, Publish};
use crate::policies::ConsumeSettings;
use crate::publisher::Publisher;
use crate::surroundings::Surroundings;
use crate::topic::{Destination, Source, TopicName};
use crate::wire::Wire;

/// Everything that the workers of one handler share.
pub(super) struct Consumer {
    pub(super) around: Surroundings,
    pub(super) publisher: Publisher,
    pub(super) settings: ConsumeSettings,
    pub(super) source: Source,
    pub(super) group: Option<String>,
    pub(super) name: Arc<str>,
    pub(super) handler: AnyHandler,
    pub(super) middleware: Vec<AnyMiddleware>,
    pub(super) inbox: Option<AnyInbox>,
    /// Where dead letters go, if they are kept.
    pub(super) dead_letters: Option<Destination>,
    /// Where copies of a message go that are for this handler alone.
    pub(super) retry_queue: Option<TopicName>,
    pub(super) metrics: ConsumeMetrics,
    pub(super) breaker: Option<Breaker>,
    pub(super) stop: CancellationToken,
}

impl Consumer {
    /// Works until told to stop, or until the broker is disconnected.
    pub(super) async fn work(self: Arc<Self>, intake: Arc<Intake>) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                next = intake.next() => next,
            };
            match next {
                Some(next) => self.take(next).await,
                None => return,
            }
        }
    }

    async fn take(&self, next: Next) {
        let Next { delivery, turn } = next;
        let _turn = match turn {
            None => None,
            Some(turn) => tokio::select! {
                turn = turn => Some(turn),
                () = self.stop.cancelled() => return,
                _ = self.keep_lease(&delivery) => return,
            },
        };
        let incoming = self.incoming(&delivery);
        let span = tracing::debug_span!(
            target: "trunkline",
            span::PROCESS,
            destination = %incoming.destination(),
            group = self.group.as_deref(),
            handler = &*self.name,
            message_id = %delivery.message().id,
            correlation_id = %incoming.context().correlation_id(),
        );
        // The sender's deadline bounds the handler. What becomes of the message afterwards has all the time it needs: else one
        // that overran could neither come again nor become a dead letter.
        let context = incoming.context().clone().without_deadline();
        let process = self.process(delivery, incoming).instrument(span);
        context.scope(process).await;
    }

    /// What a delivery is to the handler: the copy in a retry queue is the message that it is a copy of.
    fn incoming(&self, delivery: &Delivery) -> Incoming {
        let (message, info) = (Wire::unfold(&delivery.shared_message()), delivery.info());
        let mut destination = info.destination.clone();
        let mut attempt = info.attempt;
        // Who counts the failures: the broker with all deliveries, or the copies and what was given back by a settlement. Then
        // what comes again without being either was in the hands of somebody who ended with it.
        let mut failures = match self.around.capabilities.attempts {
            true => attempt.saturating_sub(1),
            false => info.returns.unwrap_or(0),
        };
        let is_copy = self.is_copy(&destination);
        // A dead letter says how often somebody else tried: who handles dead letters begins anew.
        let is_letter = owner(destination.name()).is_some();
        if is_copy && (!is_letter || message.headers.contains(header::COPY)) {
            let made = message.headers.get(header::ATTEMPTS);
            let made: u32 = made.and_then(|made| made.parse().ok()).unwrap_or(0);
            attempt = attempt.saturating_add(made);
            failures = failures.saturating_add(made);
        }
        let origin = message.headers.get(header::ORIGIN);
        let origin = origin.and_then(read_destination);
        // A copy that says that it is of somewhere this handler does not listen to is not believed.
        let believed = origin
            .as_ref()
            .filter(|origin| is_letter || (is_copy && self.listens_to(origin)));
        let meant_for = believed.unwrap_or(&destination).clone();
        if is_copy {
            destination = origin.unwrap_or(destination);
        }
        let context = self.around.propagation.extract(&message.headers);
        let bounded = self.settings.honour_deadline || message.headers.contains(header::REPLY_TO);
        let context = if bounded {
            context
        } else {
            context.without_deadline()
        };
        Incoming {
            message,
            about: Arc::new(About {
                destination,
                meant_for,
                group: self.group.clone(),
                handler: Arc::clone(&self.name),
            }),
            attempt,
            failures,
            context,
        }
    }

    /// Whether a copy may go to the group's own queue. Not where the broker keeps the order of keys: the next message of the
    /// key would be handled before it, or beside it.
    fn place_of_copies(&self, incoming: &Incoming) -> bool {
        let ordering = self.around.capabilities.ordering;
        let keeps_order = ordering != OrderingGuarantee::None && incoming.message.key.is_some();
        self.retry_queue.is_some() && !keeps_order
    }

    /// Whether messages to a destination are for this handler.
    pub(super) fn listens_to(&self, destination: &Destination) -> bool {
        match (&self.source, destination) {
            (Source::Topics(pattern), Destination::Topic(name)) => pattern.matches(name),
            (Source::Queue(queue), Destination::Queue(name)) => queue == name,
            (Source::Topics(_), Destination::Queue(_))
            | (Source::Queue(_), Destination::Topic(_)) => false,
        }
    }

    fn is_copy(&self, destination: &Destination) -> bool {
        let retry_queue = self.retry_queue.as_ref();
        retry_queue.is_some_and(|queue| *destination == Destination::Queue(queue.clone()))
    }

    async fn process(&self, delivery: Delivery, mut incoming: Incoming) {
        let began = Instant::now();
        let _in_flight = self.metrics.in_flight();
        self.metrics.payload(incoming.message.payload.len());
        if incoming.attempt > 1 {
            self.metrics.redelivered();
        }
        // A handler that fails in its last attempt makes a dead letter of the message there and then. What comes again after
        // that was in the hands of somebody who died with it, or could not tell the broker.
        let most = self
            .settings
            .max_attempts
            .saturating_add(self.settings.max_crashes);
        loop {
            if incoming.attempt > most {
                let error = HandlerError::retry(format!(
                    "delivery {} of at most {most}: consumers before this one ended without settling it",
                    incoming.attempt
                ));
                self.metrics
                    .processed(Processed::DeadLettered, began.elapsed());
                return self
                    .give_up(delivery, &incoming, Reason::Crashes, &error)
                    .await;
            }
            let error = match self.attempt(&delivery, &incoming).await {
                Attempted::Done => {
                    self.metrics.processed(Processed::Handled, began.elapsed());
                    return self.acknowledge(delivery).await;
                }
                Attempted::Expired => {
                    self.metrics.processed(Processed::Expired, began.elapsed());
                    return self.acknowledge(delivery).await;
                }
                Attempted::GivenBack => {
                    self.metrics.processed(Processed::Retried, began.elapsed());
                    return;
                }
                Attempted::Failed(error) => error,
            };
            self.log_failure(&incoming, &error, began);
            let verdict = decide(
                &error,
                incoming.failures.saturating_add(1),
                &self.settings,
                &self.around.capabilities,
                self.place_of_copies(&incoming),
                delivery.info().returns.is_some(),
            );
            self.metrics.processed(outcome(verdict), began.elapsed());
            match verdict {
                Verdict::DeadLetter(reason) => {
                    return self.give_up(delivery, &incoming, reason, &error).await;
                }
                Verdict::Reject => return self.settled(delivery.reject().await, "reject"),
                Verdict::Again { hold, way } => {
                    if self.hold(&delivery, hold).await.is_err() {
                        return;
                    }
                    match way {
                        Way::Requeue(delay) => {
                            return self.settled(delivery.nack(delay).await, "nack");
                        }
                        Way::Copy(delay) => match self.copy(delivery.message(), &incoming) {
                            Some(copy) => return self.send_copy(delivery, copy, delay).await,
                            // It leaves no room for the count, which is kept here then.
                            None => {
                                let span = held(delay, &self.settings, &self.around.capabilities);
                                if self.hold(&delivery, span).await.is_err() {
                                    return;
                                }
                                incoming.fail();
                            }
                        },
                        Way::Here => incoming.fail(),
                    }
                }
            }
        }
    }

    async fn acknowledge(&self, delivery: Delivery) {
        self.settled(delivery.ack().await, "acknowledgement");
    }

    /// Tells of a settlement that did not reach the broker: the message will come again.
    pub(super) fn settled(&self, outcome: Result<()>, what: &str) {
        if let Err(error) = outcome {
            tracing::warn!(
                target: "trunkline",
                handler = &*self.name,
                group = self.group.as_deref(),
                error = %error.report(),
                "the {what} of a message did not reach the broker; the message may come again"
            );
        }
    }

    fn log_failure(&self, incoming: &Incoming, error: &HandlerError, began: Instant) {
        tracing::warn!(
            target: "trunkline",
            handler = &*self.name,
            group = self.group.as_deref(),
            destination = %incoming.destination(),
            message_id = %incoming.message.id,
            attempt = incoming.attempt,
            max_attempts = self.settings.max_attempts,
            duration_ms = began.elapsed().as_secs_f64() * 1e3,
            error = %error.report(),
            "a handler did not succeed"
        );
    }

    /// Waits with the message in hand. Fails when there is nothing in hand any more, or when it is time to stop: then
    /// the message is given back.
    pub(super) async fn hold(&self, delivery: &Delivery, span: Duration) -> Result<(), GiveBack> {
        self.wait(span, pin!(self.keep_lease(delivery))).await
    }

    /// Waits, unless it is time to stop or the message is lost first. What keeps the message goes on from one wait to
    /// the next: begun anew for each of several short ones, it would never get as far as to renew anything.
    pub(super) async fn wait(
        &self,
        span: Duration,
        lost: Pin<&mut impl Future<Output = Error>>,
    ) -> Result<(), GiveBack> {
        if span.is_zero() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(GiveBack),
            () = tokio::time::sleep(span) => Ok(()),
            error = lost => {
                self.log_lost(&error);
                Err(GiveBack)
            }
        }
    }

    /// Does what is left to do for a message, and keeps its lease meanwhile. What is begun is finished when that is lost.
    pub(super) async fn meanwhile<T>(
        &self,
        delivery: &Delivery,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = work.as_mut() => return done,
            error = self.keep_lease(delivery) => self.log_lost(&error),
        }
        work.await
    }

    pub(super) fn log_lost(&self, error: &Error) {
        tracing::warn!(
            target: "trunkline",
            handler = &*self.name,
            group = self.group.as_deref(),
            error = %error.report(),
            "a message was lost to another consumer while it was being handled"
        );
    }

    /// Renews the lease of a delivery until it is lost; says why.
    pub(super) async fn keep_lease(&self, delivery: &Delivery) -> Error {
        if !self.around.capabilities.lease_extension {
            return std::future::pending().await;
        }
        let lease = self.settings.lease;
        // Counted from when the lease began, not from now: what waits here and there for a while each time would else
        // never get as far as to renew it.
        let mut due = delivery.held_since() + lease / 3;
        loop {
            tokio::time::sleep_until(due).await;
            match tokio::time::timeout(lease / 3, delivery.extend(lease)).await {
                Ok(Ok(())) => due = delivery.held_since() + lease / 3,
                Ok(Err(error)) if is_final(&error) => return error,
                // The broker may be back before the lease is over.
                Ok(Err(_)) | Err(_) => due = Instant::now() + lease / 10,
            }
        }
    }

    /// A copy of the message for the own retry queue that carries its attempts; none where the broker would not take it.
    fn copy(&self, message: &Message, incoming: &Incoming) -> Option<Publish> {
        let queue = self.retry_queue.clone()?;
        let mut message = message.clone();
        let headers = &mut message.headers;
        let failures = incoming.failures.saturating_add(1);
        headers.insert(header::ATTEMPTS, failures.to_string());
        headers.insert(header::ORIGIN, incoming.destination().to_string());
        if owner(&queue).is_some() {
            headers.insert(header::COPY, "1");
        }
        let fits = self.fits(&message);
        fits.then(|| Publish::new(Destination::Queue(queue), message))
    }

    /// Sends a copy in place of the message.
    async fn send_copy(&self, delivery: Delivery, mut copy: Publish, delay: Option<Duration>) {
        copy.delay = delay;
        if let Err(error) = self.replace(delivery, copy).await {
            self.settled(Err(error), "repetition");
        }
    }

    /// Whether the broker takes a message of this size.
    pub(super) fn fits(&self, message: &Message) -> bool {
        let largest = self.around.capabilities.max_message_size;
        largest.is_none_or(|largest| message.size() <= largest)
    }

    /// The context in which what is published for a message is published: not bounded by its deadline.
    pub(super) fn aftermath(context: &Context) -> Context {
        context.clone().without_deadline()
    }
}

/// The message in hand is to be given back.
#[derive(Debug)]
pub(super) struct GiveBack;

/// Whether it is certain that a lease is lost.
fn is_final(error: &Error) -> bool {
    use trunkline_core::ErrorKind::{Cancelled, Conflict, NotFound, Unsupported};
    matches!(error.kind(), Cancelled | Conflict | NotFound | Unsupported)
}

fn outcome(verdict: Verdict) -> Processed {
    match verdict {
        Verdict::DeadLetter(_) => Processed::DeadLettered,
        Verdict::Reject => Processed::Rejected,
        Verdict::Again { .. } => Processed::Retried,
    }
}

/// Reads a destination as headers write it: `topic order.created`, `queue work`.
pub(crate) fn read_destination(text: &str) -> Option<Destination> {
    let (kind, name) = text.split_once(' ')?;
    let name = TopicName::new(name).ok()?;
    match kind {
        "topic" => Some(Destination::Topic(name)),
        "queue" => Some(Destination::Queue(name)),
        _ => None,
    }
}
