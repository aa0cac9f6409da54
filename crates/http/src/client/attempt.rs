//! One attempt of a call: choose an instance, write the context, send, and say how it went.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Response;
use tokio::time::Instant;
use trunkline_core::{BoxFuture, Error, ErrorKind, Result};
use trunkline_discovery::{Picked, ServiceInstance};
use trunkline_resilience::breaker::{InstanceCircuits, OwnedPermit};
use trunkline_resilience::{Attempt, CircuitOpen, Classify, Outcome, Policy, Refusal, Standard};

use super::core::Core;
use super::destination::{Balanced, Destination, Peer, Tried, is_among};
use super::judge::{busy_for, goes_on, outcome_of_answer, ran_out_of_time};
use super::outgoing::Outgoing;
use crate::body::{Body, End};
use crate::coding;
use crate::connect::ConnectFailed;
use crate::error::NoAnswer;
use crate::limits::Limits;
use crate::middleware::About;
use crate::redirect::leads_on;
use crate::transport::Reply;

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

type Answered = Result<Reply>;

/// A place, and what it said.
type Reached = (Arc<Peer>, Answered);

type Following<'a> = BoxFuture<'a, Answered>;

/// One attempt on its way: what is sent, what its call knows, and within which limits. Handed on by reference: whatever a
/// future takes as a value it keeps twice, and each layer would once more.
pub(super) struct Way<'a> {
    pub(super) outgoing: &'a Outgoing<'a>,
    pub(super) tried: &'a Tried,
    pub(super) attempt: Attempt,
    pub(super) limits: Limits,
    pub(super) allowance: Allowance<'a>,
    /// Where each instance has a circuit of its own.
    pub(super) circuits: Option<&'a InstanceCircuits>,
}

impl Core {
    /// Makes one attempt.
    pub(super) async fn attempt(
        &self,
        destination: &Destination,
        way: &mut Way<'_>,
    ) -> Result<Reply> {
        match destination {
            Destination::Fixed(fixed) => self.send_to(fixed, way).await,
            Destination::Balanced(instances) => self.send_to_one(instances, way).await,
        }
    }

    /// Sends it to the one place there is.
    async fn send_to(&self, peer: &Peer, way: &mut Way<'_>) -> Result<Reply> {
        let permit = match way.leave_of(peer) {
            Ok(permit) => permit,
            Err(open) => {
                let error = Error::from(open);
                way.note(&error);
                return Err(error);
            }
        };
        let asked = Asked::begin(peer, (None, permit), way.tried, way.attempt);
        let sent = self.send(peer, way).await;
        match self.followed(peer, way, asked.ended(sent)) {
            Ok(result) => result,
            Err(following) => following.await,
        }
    }

    /// The result of an attempt; in place of an answer that leads on, the way there. No `async fn`: what such a one has
    /// looked at it keeps for as long as it waits.
    fn followed<'a>(
        &'a self,
        peer: &'a Peer,
        way: &'a Way<'_>,
        result: Result<Reply>,
    ) -> Result<Answered, Following<'a>> {
        match (&self.redirects, result) {
            (Some(settings), Ok(answer)) if leads_on(&answer) => {
                Err(self.follow(settings, &peer.origin, way, answer))
            }
            (_, result) => Ok(result),
        }
    }

    /// Sends it to an instance that can be connected to. One that cannot was sent nothing, so asking the next is not to
    /// repeat anything: it belongs to the same attempt, and is done where nothing is retried as well.
    async fn send_to_one(&self, balanced: &Balanced, way: &mut Way<'_>) -> Result<Reply> {
        // A call with a key has its place, which has not failed by closing a connection.
        way.allowance.elsewhere = !way.tried.has_key();
        let mut unreached: Vec<Arc<ServiceInstance>> = Vec::new();
        // In a box: few attempts have one, and all would be as large.
        let mut last: Option<Box<Reached>> = None;
        let (peer, result) = loop {
            let found = balanced
                .pick(
                    way.tried,
                    way.circuits,
                    way.attempt.deadline,
                    &mut way.limits.now,
                )
                .await;
            let nobody_else = match &found {
                Ok((picked, ..)) => is_among(&unreached, picked.instance()),
                Err(_) => true,
            };
            if nobody_else && let Some(last) = last.take() {
                break *last;
            }
            let (picked, peer, permit) = found.inspect_err(|error| way.note(error))?;
            let asked = Asked::begin(&peer, (Some(picked), permit), way.tried, way.attempt);
            let sent = self.send(&peer, way).await;
            if way.allowance.elsewhere && way.may_resend(&sent) {
                asked.passed_by();
                way.begin_again();
                last = Some(Box::new((peer, sent)));
                continue;
            }
            if !is_unreachable(&sent) {
                let result = asked.ended(sent);
                break (peer, result);
            }
            let instance = asked.instance();
            let result = asked.ended(sent);
            let most = match is_fault_of_ours(&result) {
                true => MOST_UNREACHED_FROM_HERE,
                false => MOST_UNREACHED,
            };
            if unreached.len() >= most {
                break (peer, result);
            }
            way.begin_again();
            if way.attempt.began >= way.attempt.deadline {
                break (peer, result);
            }
            unreached.extend(instance);
            last = Some(Box::new((peer, result)));
        };
        match self.followed(&peer, way, result) {
            Ok(result) => result,
            Err(following) => following.await,
        }
    }

    /// Sends it to one place, and reads the answer where its reader wants all of it or nothing: one that breaks off has failed
    /// like one that does not come, and nobody has seen any of it.
    async fn send(&self, peer: &Peer, way: &mut Way<'_>) -> Result<Reply> {
        let outgoing = way.outgoing;
        way.limits.given_up = Some(way.attempt.deadline);
        // Middleware may take its time before it sends: it is not told.
        let mut now = way.limits.now.take().unwrap_or_else(Instant::now);
        if let Some(sent) = &outgoing.options().sent {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        loop {
            let left = way.attempt.deadline.saturating_duration_since(now);
            let sent = match &outgoing.options().around {
                None => {
                    let request = outgoing.request_to(&self.injector, left, &peer.origin)?;
                    way.limits.now = Some(now);
                    let sent = self
                        .transport
                        .send_boxed(&peer.origin, request, &way.limits)
                        .await;
                    if outgoing.decodes {
                        sent.and_then(coding::decode)
                    } else {
                        sent
                    }
                }
                Some(hooks) => {
                    let request = outgoing.request(&self.injector, Some(left))?;
                    let about = self.about(outgoing, way.attempt);
                    let sent = hooks.send(
                        about,
                        &self.transport,
                        &peer.origin,
                        (*request, outgoing.decodes),
                        way.limits,
                    );
                    // In a box of its own: without middleware no call is as large.
                    Box::pin(sent).await.map(Box::new)
                }
            };
            if is_to_read(outgoing, &sent) {
                // In a box of its own: else every call would be as large.
                return Box::pin(self.read(sent)).await;
            }
            if way.allowance.elsewhere || !way.may_resend(&sent) {
                return sent;
            }
            now = Instant::now();
            // Middleware is not told, as before.
            way.limits.now = None;
        }
    }
}

impl Core {
    async fn read(&self, response: Result<Reply>) -> Result<Reply> {
        let (head, body) = response?.into_parts();
        let bytes = body.bytes(self.max_response_size).await?;
        Ok(Box::new(Response::from_parts(head, Body::from(bytes))))
    }
}

/// Whether the answer is read within the attempt: of an error its reader may do without.
fn is_to_read(outgoing: &Outgoing<'_>, result: &Result<Reply>) -> bool {
    let awaited = |answer: &Reply| answer.status().is_success() && !answer.body().is_here();
    outgoing.options().whole && result.as_ref().is_ok_and(awaited)
}

/// One place that was asked, of which discovery, the measures and the call's next attempt are told how it did.
pub(super) struct Asked<'a> {
    peer: &'a Peer,
    /// The choice of an instance, where there was one; taken when it is told.
    picked: Option<Picked>,
    /// Leave of the place's own circuit, where it has one; taken when it is told.
    permit: Option<OwnedPermit>,
    tried: &'a Tried,
    attempt: Attempt,
    told: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn begin(
        peer: &'a Peer,
        (picked, permit): (Option<Picked>, Option<OwnedPermit>),
        tried: &'a Tried,
        attempt: Attempt,
    ) -> Self {
        Self {
            peer,
            picked,
            permit,
            tried,
            attempt,
            told: false,
        }
    }

    /// Which instance it is, where one was chosen.
    fn instance(&self) -> Option<Arc<ServiceInstance>> {
        let picked = self.picked.as_ref();
        picked.map(|picked| Arc::clone(picked.instance()))
    }

    /// Another place is asked instead, rather than this one again: it closed a connection, which is no failure.
    fn passed_by(mut self) {
        self.told = true;
        if let Some(picked) = self.picked.take() {
            self.tried.add(picked.instance());
        }
    }

    /// There is a result. As long as the body is read, the request counts as under way at the instance.
    pub(super) fn ended(mut self, mut result: Result<Reply>) -> Result<Reply> {
        self.told = true;
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.attempt.began);
        let mut outcome = outcome(&result);
        if outcome == Outcome::Success
            && let Ok(response) = &mut result
            && goes_on(response)
        {
            self.ends_with(response.body_mut(), elapsed);
            return result;
        }
        self.peer
            .attempts
            .observe(outcome != Outcome::Failure, elapsed);
        let succeeded = outcome == Outcome::Success;
        // Else callers in a hurry would take an instance from everybody.
        if outcome == Outcome::Failure && !self.attempt.fair && ran_out_of_time(&result) {
            outcome = Outcome::Ignored;
        }
        if let Some(permit) = self.permit.take() {
            let of_ours = is_fault_of_ours(&result);
            permit.record(if of_ours { Outcome::Ignored } else { outcome });
        }
        let Some(mut picked) = self.picked.take() else {
            return result;
        };
        if !succeeded {
            self.tried.add(picked.instance());
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
            && let Some(span) = result.as_ref().ok().and_then(|answer| busy_for(answer))
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

impl Asked<'_> {
    /// A body is on its way, and may break off: how the place did is told when it ends. The latency is that of the head.
    fn ends_with(&mut self, body: &mut Body, elapsed: Duration) {
        let (picked, mut permit) = (self.picked.take(), self.permit.take());
        // A probe is judged by how it begins: what is long or has no end would keep the circuit half-open.
        if let Some(probe) = permit.take_if(|permit| permit.is_probe()) {
            probe.success();
        }
        let (attempts, fair) = (self.peer.attempts.clone(), self.attempt.fair);
        body.when_ended(move |ended| {
            let outcome = ended.end.outcome(fair);
            attempts.observe(outcome != Outcome::Failure, elapsed);
            if let Some(permit) = permit {
                permit.into_late(elapsed).record(outcome);
            }
            let Some(mut picked) = picked else { return };
            picked.record(outcome, elapsed);
            if outcome == Outcome::Failure {
                // As with those that get no answer: who dies takes all its bodies along.
                ended.of_one_place = match ended.end {
                    End::Broken(ErrorKind::Unavailable) => picked.is_dispensable(),
                    _ => picked.is_out(),
                };
            }
        });
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
        let outcome = match self.attempt.fair {
            true => Outcome::Failure,
            false => Outcome::Ignored,
        };
        if let Some(permit) = self.permit.take()
            && cut_off
        {
            permit.record(outcome);
        }
        let Some(mut picked) = self.picked.take() else {
            return;
        };
        if cut_off {
            self.tried.add(picked.instance());
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

impl Way<'_> {
    /// Leave of the place's own circuit, where each has one.
    fn leave_of(&self, peer: &Peer) -> Result<Option<OwnedPermit>, CircuitOpen> {
        let Some(circuits) = self.circuits else {
            return Ok(None);
        };
        let circuit = circuits.of(peer.name());
        circuit.try_acquire_owned().map(Some)
    }

    /// Tells of an attempt that is not made because the circuits of all places are open.
    fn note(&self, error: &Error) {
        if error.find::<CircuitOpen>().is_some() {
            self.allowance.policy.refuses(Refusal::CircuitOpen);
        }
    }

    /// Whether a request is sent once more within its attempt, which it is from then on. Not a failure of the service: it
    /// closed a connection that it saw unused. RFC 9110 (9.2.2) lets a client repeat at once what is idempotent. It is one of
    /// the call's attempts all the same, as the service may have seen both.
    fn may_resend(&self, sent: &Result<Reply>) -> bool {
        sent.as_ref().is_err_and(is_stale)
            && self.outgoing.can_repeat_harmlessly()
            && self.allowance.resends(self.tried, self.attempt)
    }

    /// The next place is asked from now on.
    fn begin_again(&mut self) {
        self.attempt.began = Instant::now();
        self.limits.now = Some(self.attempt.began);
    }
}

fn is_stale(error: &Error) -> bool {
    error
        .find::<NoAnswer>()
        .is_some_and(|lost| lost.reused && !lost.received)
}

/// Whether the reason that there is no connection lies in this process: it says nothing about the instance.
fn is_fault_of_ours(result: &Result<Reply>) -> bool {
    let failed = result.as_ref().err();
    let failed = failed.and_then(|error| error.find::<ConnectFailed>());
    failed.is_some_and(|failed| failed.is_local)
}

/// Whether the connection broke before there was an answer.
fn is_lost(error: &Error) -> bool {
    error.find::<NoAnswer>().is_some()
}

/// Whether no connection could be made, so that nothing was sent.
fn is_unreachable(result: &Result<Reply>) -> bool {
    let unreachable = |error: &Error| error.find::<ConnectFailed>().is_some();
    result.as_ref().is_err_and(unreachable)
}

fn outcome(result: &Result<Reply>) -> Outcome {
    match result {
        Ok(response) => outcome_of_answer(response),
        Err(_) => Standard.outcome(result),
    }
}
