//! One attempt of a call: choose an instance, write the context, send, and say how it went.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Response;
use tokio::time::Instant;
use trunkline_core::{Error, Result};
use trunkline_discovery::Picked;
use trunkline_resilience::{Attempt, Classify, Outcome, Standard};

use super::core::Core;
use super::destination::{Destination, Peer, Tried};
use super::judge::outcome_of_answer;
use super::outgoing::Outgoing;
use crate::body::Body;
use crate::coding;
use crate::connect::ConnectFailed;
use crate::error::NoAnswer;
use crate::limits::Limits;
use crate::middleware::About;
use crate::redirect::leads_on;

/// How often a request is sent again at once because the connection had been closed for being unused.
const STALE: usize = 2;

impl Core {
    /// Makes one attempt.
    pub(super) async fn attempt(
        &self,
        destination: &Destination,
        outgoing: &Outgoing<'_>,
        tried: &Tried,
        attempt: Attempt,
        limits: Limits,
    ) -> Result<Response<Body>> {
        match destination {
            Destination::Fixed(peer) => {
                let result = self.send(peer, outgoing, attempt, limits).await;
                let succeeded = outcome(&result) != Outcome::Failure;
                peer.attempts.observe(succeeded, attempt.began.elapsed());
                match (&self.redirects, result) {
                    (Some(settings), Ok(answer)) if leads_on(&answer) => {
                        let origin = &peer.origin;
                        self.follow(settings, origin, outgoing, attempt, limits, answer)
                            .await
                    }
                    (_, result) => result,
                }
            }
            Destination::Balanced(balanced) => {
                let (picked, peer) = balanced.pick(tried, attempt.deadline).await?;
                let picked = Overtaken {
                    picked: Some(picked),
                    began: tried.is_hedged().then_some(attempt.began),
                };
                let result = self.send(&peer, outgoing, attempt, limits).await;
                let picked = picked.ended()?;
                let (outcome, elapsed) = (outcome(&result), attempt.began.elapsed());
                peer.attempts.observe(outcome != Outcome::Failure, elapsed);
                if outcome != Outcome::Success {
                    tried.add(picked.instance());
                }
                match (&self.redirects, report(picked, outcome, elapsed, result)) {
                    (Some(settings), Ok(answer)) if leads_on(&answer) => {
                        let origin = &peer.origin;
                        self.follow(settings, origin, outgoing, attempt, limits, answer)
                            .await
                    }
                    (_, result) => result,
                }
            }
        }
    }

    async fn send(
        &self,
        peer: &Peer,
        outgoing: &Outgoing<'_>,
        attempt: Attempt,
        mut limits: Limits,
    ) -> Result<Response<Body>> {
        limits.given_up = Some(attempt.deadline);
        if let Some(sent) = &outgoing.options().sent {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        let mut stale = 0;
        loop {
            let request = outgoing.request(&self.injector, Some(attempt.deadline))?;
            let sent = match &outgoing.options().around {
                None => {
                    let sent = self
                        .transport
                        .send_boxed(&peer.origin, request, &limits)
                        .await;
                    if outgoing.decodes {
                        sent.and_then(coding::decode)
                    } else {
                        sent
                    }
                }
                Some(hooks) => {
                    let about = self.about(outgoing, attempt);
                    let sent = hooks.send(
                        about,
                        &self.transport,
                        &peer.origin,
                        (*request, outgoing.decodes),
                        limits,
                    );
                    // In a box of its own: without middleware no call is as large.
                    Box::pin(sent).await
                }
            };
            match sent {
                // Not a failure of the service, so not an attempt: it closed a connection that it saw unused. RFC 9110
                // (9.2.2) lets a client repeat at once what is idempotent.
                Err(error)
                    if stale < STALE && is_stale(&error) && outgoing.can_repeat_harmlessly() =>
                {
                    stale += 1;
                }
                result => return result,
            }
        }
    }
}

/// Tells discovery, when an attempt is dropped because its hedge was faster, that the instance took at least so long: else
/// the slow one would never look slow, for only its quick answers would be known.
struct Overtaken {
    picked: Option<Picked>,
    /// Where the call is hedged: when the attempt began.
    began: Option<Instant>,
}

impl Overtaken {
    /// The attempt has a result of its own.
    fn ended(mut self) -> Result<Picked> {
        let picked = self.picked.take();
        picked.ok_or_else(|| Error::internal("an attempt ended twice"))
    }
}

impl Drop for Overtaken {
    fn drop(&mut self) {
        if let (Some(mut picked), Some(began)) = (self.picked.take(), self.began) {
            picked.overtaken(began.elapsed());
        }
    }
}

impl Core {
    /// What a middleware around an attempt is told.
    pub(super) fn about(&self, outgoing: &Outgoing<'_>, attempt: Attempt) -> About {
        let options = outgoing.options();
        About {
            service: Arc::clone(&self.service),
            endpoint: options
                .endpoint
                .clone()
                .unwrap_or_else(|| self.endpoint_name(outgoing.method(), outgoing.written_path())),
            operation: options.operation,
            attempt: Some(attempt.number),
            version: outgoing.version().cloned(),
            context: outgoing.context.clone(),
            limit: self.max_response_size,
        }
    }
}

fn is_stale(error: &Error) -> bool {
    error
        .find::<NoAnswer>()
        .is_some_and(|lost| lost.reused && !lost.received)
}

/// Tells discovery how the instance did; as long as the body is read, the request counts as under way there.
pub(super) fn report(
    mut picked: Picked,
    outcome: Outcome,
    elapsed: Duration,
    result: Result<Response<Body>>,
) -> Result<Response<Body>> {
    let unreachable = result
        .as_ref()
        .is_err_and(|error| error.find::<ConnectFailed>().is_some());
    if unreachable {
        picked.unreachable();
        return result;
    }
    picked.record(outcome, elapsed);
    result.map(|mut response| {
        response.body_mut().hold(picked);
        response
    })
}

pub(super) fn outcome(result: &Result<Response<Body>>) -> Outcome {
    match result {
        Ok(response) => outcome_of_answer(response),
        Err(_) => Standard.outcome(result),
    }
}
