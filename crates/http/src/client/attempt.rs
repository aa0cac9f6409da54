//! One attempt of a call: choose an instance, write the context, send, and say how it went.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Response;
use tokio::time::Instant;
use trunkline_core::{Error, Result};
use trunkline_discovery::{Picked, ServiceInstance};
use trunkline_resilience::{Attempt, Classify, Outcome, Policy, Standard};

use super::core::Core;
use super::destination::{Balanced, Destination, Peer, Tried};
use super::judge::{busy_for, outcome_of_answer, ran_out_of_time};
use super::outgoing::Outgoing;
use crate::body::Body;
use crate::coding;
use crate::connect::ConnectFailed;
use crate::error::NoAnswer;
use crate::limits::Limits;
use crate::middleware::About;
use crate::redirect::leads_on;

/// How many instances that cannot be connected to one attempt passes over at most: it goes on as long as there is one that
/// was not tried, and time.
const MOST_UNREACHED: usize = 15;

/// The same, where the fault lies in this process: the others are no better then.
const MOST_UNREACHED_FROM_HERE: usize = 2;

/// What a request that is sent once more within an attempt is paid from.
#[derive(Clone, Copy)]
pub(super) struct Allowance<'a> {
    pub(super) policy: &'a Policy,
    /// Attempts that the call may make.
    pub(super) attempts: u32,
    /// There may be another place to send it to, which whoever sends it looks for.
    pub(super) elsewhere: bool,
}

impl Allowance<'_> {
    /// Once for each call, as one of its attempts.
    fn resends(&self, tried: &Tried, attempt: Attempt) -> bool {
        attempt.number < self.attempts
            && !tried.has_resent()
            && self.policy.takes_from_budget()
            && tried.resends()
    }
}

impl Core {
    /// Makes one attempt.
    pub(super) async fn attempt(
        &self,
        destination: &Destination,
        outgoing: &Outgoing<'_>,
        tried: &Tried,
        attempt: Attempt,
        (limits, allowance): (Limits, Allowance<'_>),
    ) -> Result<Response<Body>> {
        let (balanced, peer, result);
        match destination {
            Destination::Fixed(fixed) => {
                let asked = Asked::begin(fixed, None, tried, attempt);
                let sent = self.send(fixed, outgoing, tried, attempt, (limits, allowance));
                result = asked.ended(self.read_if_asked(outgoing, sent.await).await);
                peer = fixed;
            }
            Destination::Balanced(instances) => {
                (balanced, result) = self
                    .send_to_one(instances, outgoing, tried, attempt, (limits, allowance))
                    .await?;
                peer = &balanced;
            }
        }
        match (&self.redirects, result) {
            (Some(settings), Ok(answer)) if leads_on(&answer) => {
                let origin = &peer.origin;
                self.follow(settings, origin, outgoing, attempt, limits, answer)
                    .await
            }
            (_, result) => result,
        }
    }

    /// Sends it to an instance that can be connected to. One that cannot was sent nothing, so asking the next is not to
    /// repeat anything: it belongs to the same attempt, and is done where nothing is retried as well.
    async fn send_to_one(
        &self,
        balanced: &Balanced,
        outgoing: &Outgoing<'_>,
        tried: &Tried,
        mut attempt: Attempt,
        (mut limits, allowance): (Limits, Allowance<'_>),
    ) -> Result<(Arc<Peer>, Result<Response<Body>>)> {
        // A call with a key has its place, which has not failed by closing a connection.
        let allowance = Allowance {
            elsewhere: !tried.has_key(),
            ..allowance
        };
        let mut unreached: Vec<Arc<ServiceInstance>> = Vec::new();
        let mut last = None;
        loop {
            let found = balanced
                .pick(tried, attempt.deadline, &mut limits.now)
                .await;
            let (picked, peer) = match (found, last) {
                (Ok((picked, _)), Some(last)) if is_among(&unreached, picked.instance()) => {
                    return Ok(last);
                }
                (Ok(picked), _) => picked,
                (Err(_), Some(last)) => return Ok(last),
                (Err(none), None) => return Err(none),
            };
            let instance = Arc::clone(picked.instance());
            let asked = Asked::begin(&peer, Some(picked), tried, attempt);
            let sent = self.send(&peer, outgoing, tried, attempt, (limits, allowance));
            let sent = sent.await;
            if allowance.elsewhere && may_resend(&sent, outgoing, tried, attempt, allowance) {
                asked.passed_by();
                attempt.began = Instant::now();
                limits.now = Some(attempt.began);
                last = Some((peer, sent));
                continue;
            }
            let result = asked.ended(self.read_if_asked(outgoing, sent).await);
            let most = match is_fault_of_ours(&result) {
                true => MOST_UNREACHED_FROM_HERE,
                false => MOST_UNREACHED,
            };
            if !is_unreachable(&result) || unreached.len() >= most {
                return Ok((peer, result));
            }
            attempt.began = Instant::now();
            limits.now = Some(attempt.began);
            if attempt.began >= attempt.deadline {
                return Ok((peer, result));
            }
            unreached.push(instance);
            last = Some((peer, result));
        }
    }

    async fn send(
        &self,
        peer: &Peer,
        outgoing: &Outgoing<'_>,
        tried: &Tried,
        attempt: Attempt,
        (mut limits, allowance): (Limits, Allowance<'_>),
    ) -> Result<Response<Body>> {
        limits.given_up = Some(attempt.deadline);
        // Middleware may take its time before it sends: it is not told.
        let mut now = limits.now.take().unwrap_or_else(Instant::now);
        if let Some(sent) = &outgoing.options().sent {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        loop {
            let left = attempt.deadline.saturating_duration_since(now);
            let request = outgoing.request(&self.injector, Some(left))?;
            let sent = match &outgoing.options().around {
                None => {
                    limits.now = Some(now);
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
            if allowance.elsewhere || !may_resend(&sent, outgoing, tried, attempt, allowance) {
                return sent;
            }
            now = Instant::now();
        }
    }
}

impl Core {
    /// Reads the answer where its reader wants all of it or nothing: one that breaks off has failed like one that does not
    /// come, and nobody has seen any of it.
    async fn read_if_asked(
        &self,
        outgoing: &Outgoing<'_>,
        result: Result<Response<Body>>,
    ) -> Result<Response<Body>> {
        match result {
            // In a box of its own: else every call would be as large.
            Ok(response) if outgoing.options().whole && is_to_read(&response) => {
                Box::pin(self.read(response)).await
            }
            result => result,
        }
    }

    async fn read(&self, response: Response<Body>) -> Result<Response<Body>> {
        let (head, body) = response.into_parts();
        let bytes = body.bytes(self.max_response_size).await?;
        Ok(Response::from_parts(head, Body::from(bytes)))
    }
}

/// Whether there is something that its reader reads: of an error it may do without.
fn is_to_read(response: &Response<Body>) -> bool {
    response.status().is_success() && !response.body().is_here()
}

/// One place that was asked, of which discovery, the measures and the call's next attempt are told how it did.
pub(super) struct Asked<'a> {
    peer: &'a Peer,
    /// The choice of an instance, where there was one; taken when it is told.
    picked: Option<Picked>,
    tried: &'a Tried,
    attempt: Attempt,
    told: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn begin(
        peer: &'a Peer,
        picked: Option<Picked>,
        tried: &'a Tried,
        attempt: Attempt,
    ) -> Self {
        Self {
            peer,
            picked,
            tried,
            attempt,
            told: false,
        }
    }

    /// Another place is asked instead, rather than this one again: it closed a connection, which is no failure.
    fn passed_by(mut self) {
        self.told = true;
        if let Some(picked) = self.picked.take() {
            self.tried.add(picked.instance());
        }
    }

    /// There is a result. As long as the body is read, the request counts as under way at the instance.
    pub(super) fn ended(mut self, result: Result<Response<Body>>) -> Result<Response<Body>> {
        self.told = true;
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.attempt.began);
        let mut outcome = outcome(&result);
        self.peer
            .attempts
            .observe(outcome != Outcome::Failure, elapsed);
        let Some(mut picked) = self.picked.take() else {
            return result;
        };
        if outcome != Outcome::Success {
            self.tried.add(picked.instance());
        }
        // Else callers in a hurry would take an instance from everybody.
        if outcome == Outcome::Failure && !self.attempt.fair && ran_out_of_time(&result) {
            outcome = Outcome::Ignored;
        }
        if is_unreachable(&result) {
            if is_fault_of_ours(&result) {
                picked.record(Outcome::Ignored, elapsed);
            } else {
                picked.unreachable();
            }
            self.tried.dispense_with(&self.attempt, picked.is_out());
            return result;
        }
        if outcome == Outcome::Failure
            && let Some(span) = result.as_ref().ok().and_then(busy_for)
        {
            picked.busy(span);
        }
        picked.record_at(outcome, elapsed, now);
        if outcome == Outcome::Failure {
            // A process that dies takes with it all that it is asked at that moment: that is no sign of the service's health
            // as long as others answer.
            let died = result.as_ref().is_err_and(is_lost);
            let dispensed = if died {
                picked.is_dispensable()
            } else {
                picked.is_out()
            };
            self.tried.dispense_with(&self.attempt, dispensed);
        }
        result.map(|mut response| {
            response.body_mut().hold(picked);
            response
        })
    }
}

/// An attempt that is dropped before it has a result was cut off at its end, which is a failure like any other; or a hedge
/// was faster, and the instance took at least so long: else the slow one would never look slow, for only its quick answers
/// would be known; or the caller has gone, which says nothing.
impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.attempt.began);
        let cut_off = now >= self.attempt.deadline;
        if cut_off {
            self.peer.attempts.observe(false, elapsed);
        }
        let Some(mut picked) = self.picked.take() else {
            return;
        };
        if cut_off {
            self.tried.add(picked.instance());
            let outcome = match self.attempt.fair {
                true => Outcome::Failure,
                false => Outcome::Ignored,
            };
            picked.record(outcome, elapsed);
            self.tried.dispense_with(&self.attempt, picked.is_out());
        } else if self.tried.is_hedged() {
            picked.overtaken(elapsed);
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

/// Whether a request is sent once more within its attempt, which it is from then on. Not a failure of the service: it closed
/// a connection that it saw unused. RFC 9110 (9.2.2) lets a client repeat at once what is idempotent. It is one of the call's
/// attempts all the same, as the service may have seen both.
fn may_resend(
    sent: &Result<Response<Body>>,
    outgoing: &Outgoing<'_>,
    tried: &Tried,
    attempt: Attempt,
    allowance: Allowance<'_>,
) -> bool {
    sent.as_ref().is_err_and(is_stale)
        && outgoing.can_repeat_harmlessly()
        && allowance.resends(tried, attempt)
}

fn is_stale(error: &Error) -> bool {
    error
        .find::<NoAnswer>()
        .is_some_and(|lost| lost.reused && !lost.received)
}

/// Whether the reason that there is no connection lies in this process: it says nothing about the instance.
fn is_fault_of_ours(result: &Result<Response<Body>>) -> bool {
    let failed = result.as_ref().err();
    let failed = failed.and_then(|error| error.find::<ConnectFailed>());
    failed.is_some_and(|failed| failed.is_local)
}

/// Whether the connection broke before there was an answer.
fn is_lost(error: &Error) -> bool {
    error.find::<NoAnswer>().is_some()
}

/// Whether no connection could be made, so that nothing was sent.
fn is_unreachable(result: &Result<Response<Body>>) -> bool {
    let unreachable = |error: &Error| error.find::<ConnectFailed>().is_some();
    result.as_ref().is_err_and(unreachable)
}

fn is_among(instances: &[Arc<ServiceInstance>], one: &ServiceInstance) -> bool {
    instances.iter().any(|other| other.id == one.id)
}

fn outcome(result: &Result<Response<Body>>) -> Outcome {
    match result {
        Ok(response) => outcome_of_answer(response),
        Err(_) => Standard.outcome(result),
    }
}
