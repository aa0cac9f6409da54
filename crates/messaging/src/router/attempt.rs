//! One attempt: leave from the inbox and the breaker, then the handler, with the lease renewed while it runs.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::names::message_header as header;
use trunkline_core::task::catch_panic;
use trunkline_core::{Context, Error, Result, Retry};
use trunkline_resilience::Outcome;

use super::consumer::{Consumer, GiveBack, read_destination};
use super::error::HandlerError;
use super::handler::{Answer, Handled};
use super::incoming::Incoming;
use super::middleware::Next;
use super::once::Leave;
use crate::codec::Codec;
use crate::delivery::Delivery;
use crate::inbox::ClaimToken;
use crate::protection::{Demands, Untrusted};
use crate::topic::{Destination, TopicName};

/// How an attempt ended.
pub(super) enum Attempted {
    /// The message is done.
    Done,
    /// Nobody waits for it any more: it was not handled, and is done with.
    Expired,
    /// It did not succeed.
    Failed(HandlerError),
    /// The message is not in our hands any more, or is to be given back: settle nothing.
    GivenBack,
}

/// How what was guarded ended.
enum End<T> {
    Done(T),
    TimedOut,
    Lost(Error),
}

impl Consumer {
    pub(super) async fn attempt(&self, delivery: &Delivery, incoming: &Incoming) -> Attempted {
        if incoming.context.is_expired() {
            tracing::warn!(
                target: "trunkline",
                handler = &*self.name,
                group = self.group.as_deref(),
                destination = %incoming.destination(),
                message_id = %incoming.message.id,
                attempt = incoming.attempt,
                "the deadline of a message has passed; it is dropped"
            );
            return Attempted::Expired;
        }
        let claim = match self.claim(delivery, incoming).await {
            Ok(Leave::Go(claim)) => claim,
            Ok(Leave::DoneBefore(answer)) => {
                self.metrics.duplicate();
                self.meanwhile(delivery, self.answer(incoming, answer))
                    .await;
                return Attempted::Done;
            }
            Err(GiveBack) => return Attempted::GivenBack,
        };
        let attempted = self.run_claimed(delivery, incoming, claim.as_ref()).await;
        if let Some(claim) = claim
            && !matches!(attempted, Attempted::Done)
        {
            self.meanwhile(delivery, self.release(claim)).await;
        }
        attempted
    }

    async fn run_claimed(
        &self,
        delivery: &Delivery,
        incoming: &Incoming,
        claim: Option<&ClaimToken>,
    ) -> Attempted {
        let permit = match self.permit(delivery, claim).await {
            Ok(permit) => permit,
            Err(GiveBack) => return Attempted::GivenBack,
        };
        let context = incoming.context.clone().with_timeout(self.settings.timeout);
        let deadline = context.deadline();
        let run = self.run(incoming, context);
        let end = self.guarded(delivery, claim, deadline, run).await;
        let result = match end {
            End::Done(Ok(result)) => result,
            End::Done(Err(panic)) => Err(HandlerError::retry(panic)),
            End::TimedOut => Err(HandlerError::retry(Error::timeout(format!(
                "the handler took longer than {:?}, or than the deadline of its message",
                self.settings.timeout
            )))),
            End::Lost(error) => {
                self.log_lost(&error);
                return Attempted::GivenBack;
            }
        };
        if let Some(permit) = permit {
            permit.record(judge(&result));
        }
        match result {
            Ok(Handled { answer }) => {
                let told = async {
                    self.complete(claim, answer.as_ref()).await;
                    self.answer(incoming, answer).await;
                };
                self.meanwhile(delivery, told).await;
                Attempted::Done
            }
            Err(error) => {
                self.meanwhile(delivery, self.refuse(incoming, &error))
                    .await;
                Attempted::Failed(error)
            }
        }
    }

    /// What the message must be. A copy that says that it is of somewhere this handler does not listen to is not believed.
    fn demands(&self, incoming: &Incoming) -> Demands {
        let destination = incoming.destination();
        let listens = self.listens_to(destination);
        self.around
            .wire
            .keys
            .demands(listens.then_some(destination))
    }

    /// Middleware and handler, in the context of the message, with a panic caught.
    async fn run(
        &self,
        incoming: &Incoming,
        context: Context,
    ) -> Result<Result<Handled, HandlerError>> {
        let incoming = incoming.clone().with_context(context.clone());
        let next = Next {
            rest: &self.middleware,
            handler: &self.handler,
        };
        let work = async move {
            let demands = self.demands(&incoming);
            let opened = self
                .around
                .wire
                .open(
                    incoming.shared_message(),
                    demands,
                    &incoming.about.meant_for,
                )
                .await;
            let incoming = incoming.with_message(opened.map_err(unopened)?);
            next.run(incoming).await
        };
        catch_panic(context.scope(work)).await
    }

    /// Runs work until its deadline, while lease and claim are renewed. A handler that is done at once costs no timer.
    async fn guarded<T>(
        &self,
        delivery: &Delivery,
        claim: Option<&ClaimToken>,
        deadline: Option<Instant>,
        work: impl Future<Output = T>,
    ) -> End<T> {
        let mut work = pin!(work);
        if let Poll::Ready(done) = futures_util::poll!(work.as_mut()) {
            return End::Done(done);
        }
        tokio::select! {
            biased;
            done = work => End::Done(done),
            () = until(deadline) => End::TimedOut,
            error = self.keep(delivery, claim) => End::Lost(error),
        }
    }

    /// Renews lease and claim until one of them is lost; says why.
    async fn keep(&self, delivery: &Delivery, claim: Option<&ClaimToken>) -> Error {
        tokio::select! {
            error = self.keep_lease(delivery) => error,
            error = self.keep_claim(claim) => error,
        }
    }

    /// Waits until the breaker lets an attempt pass. Messages are held meanwhile, so that waiting uses up no attempts.
    async fn permit(
        &self,
        delivery: &Delivery,
        claim: Option<&ClaimToken>,
    ) -> Result<Option<trunkline_resilience::breaker::Permit<'_>>, GiveBack> {
        let Some(breaker) = &self.breaker else {
            return Ok(None);
        };
        let mut lost = pin!(self.keep(delivery, claim));
        loop {
            match breaker.try_acquire() {
                Ok(permit) => return Ok(Some(permit)),
                Err(open) => {
                    let wait = open.retry_after.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                    self.wait(wait, lost.as_mut()).await?;
                }
            }
        }
    }

    /// Sends the answer of a responder to whoever asked.
    pub(super) async fn answer(&self, incoming: &Incoming, answer: Option<Answer>) {
        let Some(answer) = answer else {
            return;
        };
        let Some(to) = reply_to(incoming) else {
            tracing::debug!(
                target: "trunkline",
                message_id = %incoming.message.id,
                "a request came without an address; its answer is dropped"
            );
            return;
        };
        let outgoing = self.publisher.to::<(), _>(to);
        let outgoing = outgoing
            .header(header::IN_REPLY_TO, incoming.message.id.as_str())
            .protected(Demands::of(&incoming.message))
            .context(incoming.context.clone());
        let sent = outgoing
            .send_bytes(answer.payload, Some(answer.codec.content_type()))
            .await;
        if let Err(error) = sent {
            tracing::warn!(
                target: "trunkline",
                message_id = %incoming.message.id,
                error = %error.report(),
                "an answer could not be sent"
            );
        }
    }

    /// Tells whoever asked that there will be no answer, once that is certain.
    async fn refuse(&self, incoming: &Incoming, error: &HandlerError) {
        let is_retried = matches!(error, HandlerError::Retry { .. })
            && incoming.failures.saturating_add(1) < self.settings.max_attempts;
        let (Some(to), false) = (reply_to(incoming), is_retried) else {
            return;
        };
        let kind = match error {
            HandlerError::Retry { .. } => "unavailable",
            _ => "invalid",
        };
        let outgoing = self.publisher.to::<(), _>(to);
        let outgoing = outgoing
            .header(header::IN_REPLY_TO, incoming.message.id.as_str())
            .header(header::REPLY_ERROR, kind)
            .protected(Demands::of(&incoming.message))
            .context(incoming.context.clone());
        let text = bytes::Bytes::from(error.report());
        if let Err(error) = outgoing.send_bytes(text, Some("text/plain")).await {
            tracing::warn!(
                target: "trunkline",
                message_id = %incoming.message.id,
                error = %error.report(),
                "an answer could not be sent"
            );
        }
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Where the answer goes: to the topic of a requester, or to the queue of somebody else's.
fn reply_to(incoming: &Incoming) -> Option<Destination> {
    let address = incoming.headers().get(header::REPLY_TO)?;
    match TopicName::new(address) {
        Ok(topic) => Some(Destination::Topic(topic)),
        Err(_) => read_destination(address),
    }
}

/// What becomes of a message that could not be opened: it is tried again only where that may help.
fn unopened(error: Error) -> HandlerError {
    match error.retry() {
        _ if error.find::<Untrusted>().is_some() => HandlerError::Untrusted { error },
        Retry::Never => HandlerError::Undecodable { error },
        Retry::Safe | Retry::IfIdempotent => HandlerError::retry(error),
    }
}

/// What a result says about what the handler depends on: a bad message says nothing about it.
fn judge(result: &Result<Handled, HandlerError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Success,
        Err(HandlerError::Retry { .. }) => Outcome::Failure,
        Err(_) => Outcome::Ignored,
    }
}
