//! Leave to make one call: whatever becomes of it, the place of a probe comes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::hot::Hot;
use super::state::Admission;
use super::{Breaker, NEVER, nanos};
use crate::failure::Outcome;
use crate::sync::Ordering;

/// How a call was let through: two words, so that the common case stays in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    /// The word that let it pass, or that was true when the lock did, with the number of a probe that has not reported.
    hot: Hot,
    /// When it began, by [`Breaker::stamp`], where slow calls are looked at; else zero.
    started: u64,
}

impl Ticket {
    #[inline]
    pub(super) fn new(hot: Hot, started: u64) -> Self {
        Self { hot, started }
    }

    fn admission(self) -> Admission {
        Admission {
            generation: self.hot.generation(),
            probe: self.hot.probe(),
        }
    }
}

impl Breaker {
    #[inline]
    fn report(&self, ticket: Ticket, outcome: Outcome) {
        if outcome == Outcome::Success && self.hot.word.load(Ordering::Acquire) == ticket.hot.0 {
            // Nothing has changed since the call was let through.
            if ticket.hot.is_quiet() {
                return;
            }
            if ticket.hot.is_counted() && self.count(ticket) {
                return;
            }
        }
        self.report_locked(ticket, outcome);
    }

    /// Counts a success without the lock, unless it was slow or the window moves on.
    #[inline(never)]
    fn count(&self, ticket: Ticket) -> bool {
        let until = self.hot.count_until.load(Ordering::Relaxed);
        if ticket.started != 0 || until != NEVER {
            let now = self.stamp_now();
            let slow = ticket.started != 0
                && now.saturating_sub(ticket.started) >= self.hot.slow_from.load(Ordering::Relaxed);
            if slow || now >= until {
                return false;
            }
        }
        self.successes.0.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn report_locked(&self, ticket: Ticket, outcome: Outcome) {
        if ticket.hot.is_off() || (outcome == Outcome::Ignored && ticket.hot.probe() == 0) {
            return;
        }
        let change = self.change(|machine, now| {
            let took = (ticket.started != 0)
                .then(|| Duration::from_nanos(self.stamp(now).saturating_sub(ticket.started)));
            machine.record(ticket.admission(), outcome, took, now, || self.clock.now())
        });
        self.tell(change);
    }

    /// A point in time in one word that is never zero: nanoseconds since the breaker was made, plus one.
    pub(super) fn stamp(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.origin)).saturating_add(1)
    }

    /// The stamp of now.
    #[inline(never)]
    pub(super) fn stamp_now(&self) -> u64 {
        self.stamp(Instant::now())
    }
}

macro_rules! permit {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)?, $breaker:ty) => {
        $(#[$doc])*
        ///
        /// Dropped without a report, also by a panic or because the call was cancelled, it counts neither as a success
        /// nor as a failure and frees its place.
        #[derive(Debug)]
        #[must_use = "dropped at once it guards nothing"]
        pub struct $name $(<$life>)? {
            breaker: $breaker,
            ticket: Ticket,
        }

        impl $(<$life>)? $name $(<$life>)? {
            #[inline]
            pub(super) fn new(breaker: $breaker, ticket: Ticket) -> Self {
                Self { breaker, ticket }
            }

            /// Reports how the call ended.
            #[inline]
            pub fn record(mut self, outcome: Outcome) {
                self.settle(outcome);
            }

            /// The same in place, for futures: a permit that is moved costs more than one that stays.
            #[inline]
            pub(super) fn settle(&mut self, outcome: Outcome) {
                self.breaker.report(self.ticket, outcome);
                self.ticket.hot = self.ticket.hot.without_probe();
            }

            /// Reports that the other side works.
            #[inline]
            pub fn success(self) {
                self.record(Outcome::Success);
            }

            /// Reports that the other side does not work.
            pub fn failure(self) {
                self.record(Outcome::Failure);
            }

            /// Whether the call is a probe of a circuit that is half-open.
            #[must_use]
            pub fn is_probe(&self) -> bool {
                self.ticket.hot.probe() != 0
            }

            /// The call begins only now, after a wait of our own: that wait does not make it slow.
            pub fn restart_clock(&mut self) {
                if self.ticket.started != 0 {
                    self.ticket.started = self.breaker.stamp_now();
                }
            }
        }

        impl $(<$life>)? Drop for $name $(<$life>)? {
            #[inline]
            fn drop(&mut self) {
                if self.ticket.hot.probe() != 0 {
                    self.breaker.report_locked(self.ticket, Outcome::Ignored);
                }
            }
        }
    };
}

impl Permit<'_> {
    /// Keeps it for longer than the borrow: the call goes on, its latency is known.
    pub(crate) fn into_late(mut self, breaker: &Arc<Breaker>, took: Duration) -> LateReport {
        let ticket = self.ticket;
        // The place of a probe goes along.
        self.ticket.hot = ticket.hot.without_probe();
        OwnedPermit::new(Arc::clone(breaker), ticket).into_late(took)
    }
}

impl OwnedPermit {
    /// The call has been answered after so long, and how it ends is still to come.
    pub fn into_late(self, took: Duration) -> LateReport {
        LateReport { permit: self, took }
    }
}

/// The report of a call whose answer is there and not complete, such as one of which the body is still on its way. The time
/// to the answer is what tells whether it was slow.
///
/// Dropped without a report it counts neither as a success nor as a failure and frees its place.
#[derive(Debug)]
#[must_use = "dropped at once it reports nothing"]
pub struct LateReport {
    permit: OwnedPermit,
    took: Duration,
}

impl LateReport {
    /// Reports how the call ended.
    pub fn record(mut self, outcome: Outcome) {
        let ticket = &mut self.permit.ticket;
        if ticket.started != 0 {
            let now = self.permit.breaker.stamp_now();
            ticket.started = now.saturating_sub(nanos(self.took)).max(1);
        }
        self.permit.settle(outcome);
    }
}

permit! {
    /// Leave to make one call, borrowed from a [`Breaker`].
    Permit<'a>, &'a Breaker
}

permit! {
    /// Leave to make one call, for a future that outlives the borrow.
    OwnedPermit, Arc<Breaker>
}
