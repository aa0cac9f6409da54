//! Waits for an answer, as long as there is time and bytes move.
//!
//! Written by hand and not as an `async fn`: such a future is moved several times on its way into the task, and this one
//! is at the bottom of all others.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};
use trunkline_core::Result;

use super::Driven;
use crate::error;
use crate::limits::{Limits, after};
use crate::origin::Origin;

pin_project! {
    /// An exchange under way.
    pub(crate) struct Exchange<'a, D, A> {
        connection: &'a mut D,
        #[pin]
        answer: A,
        #[pin]
        alarm: Option<Sleep>,
        // What had moved when the alarm was set.
        seen: u64,
        origin: &'a Origin,
        limits: &'a Limits,
    }
}

impl<'a, D, A> Exchange<'a, D, A> {
    /// `answer` is what the connection was given the request for.
    pub(crate) fn new(
        connection: &'a mut D,
        answer: A,
        origin: &'a Origin,
        limits: &'a Limits,
    ) -> Self {
        Self {
            connection,
            answer,
            alarm: None,
            seen: 0,
            origin,
            limits,
        }
    }
}

impl<D: Driven, A: Future> Future for Exchange<'_, D, A> {
    type Output = Result<A::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.connection.drive(cx)
            && let Poll::Ready(answer) = this.answer.poll(cx)
        {
            return Poll::Ready(Ok(answer));
        }
        let limits = this.limits;
        loop {
            let Some(alarm) = this.alarm.as_mut().as_pin_mut() else {
                let ring_from = |now| {
                    let quiet = after(now, limits.read);
                    let deadline = limits.deadline;
                    deadline.map_or(quiet, |deadline| deadline.min(quiet))
                };
                let too_late = |ring| limits.given_up.is_some_and(|given_up| given_up <= ring);
                // Seen from a moment that has passed it rings no later than it will: mostly that is enough to know.
                if limits.now.is_some_and(|before| too_late(ring_from(before))) {
                    return Poll::Pending;
                }
                let ring = ring_from(Instant::now());
                if too_late(ring) {
                    return Poll::Pending;
                }
                *this.seen = this.connection.meter().moved();
                this.alarm.set(Some(sleep_until(ring)));
                continue;
            };
            // A flood that uses up the task's budget at every turn must not keep the end from being seen.
            ready!(pin!(unconstrained(alarm)).poll(cx));
            let past = |deadline| deadline <= Instant::now();
            if limits.deadline.is_some_and(past) {
                return Poll::Ready(Err(error::late(this.origin)));
            }
            if this.connection.meter().moved() == *this.seen {
                return Poll::Ready(Err(error::silent_before_answer(this.origin, limits.read)));
            }
            this.alarm.set(None);
        }
    }
}
