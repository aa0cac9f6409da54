//! Leave to make one call: whatever becomes of it, the place of a probe comes back.

use std::sync::Arc;

use tokio::time::Instant;

use super::Breaker;
use super::state::{Admission, Hot};
use crate::failure::Outcome;
use crate::sync::Ordering;

/// How a call was let through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    /// The word that let it pass, or that was true when the lock did.
    hot: Hot,
    /// Not zero for a probe that has not reported.
    probe: u32,
    /// Where slow calls are looked at.
    started: Option<Instant>,
}

impl Ticket {
    pub(super) fn passing(hot: Hot, started: Option<Instant>) -> Self {
        Self {
            hot,
            probe: 0,
            started,
        }
    }

    pub(super) fn admitted(hot: Hot, admission: Admission, now: Instant) -> Self {
        Self {
            hot,
            probe: admission.probe,
            started: hot.is_timed().then_some(now),
        }
    }

    fn admission(self) -> Admission {
        Admission {
            generation: self.hot.generation(),
            probe: self.probe,
        }
    }
}

impl Breaker {
    fn report(&self, ticket: Ticket, outcome: Outcome) {
        if outcome == Outcome::Success && ticket.hot.is_quiet() && self.has_not_changed(ticket) {
            return;
        }
        self.report_locked(ticket, outcome);
    }

    /// Nothing has failed since the call was let through, so its success resets nothing.
    fn has_not_changed(&self, ticket: Ticket) -> bool {
        self.hot.0.load(Ordering::Acquire) == ticket.hot.0
    }

    fn report_locked(&self, ticket: Ticket, outcome: Outcome) {
        if ticket.hot.is_off() || (outcome == Outcome::Ignored && ticket.probe == 0) {
            return;
        }
        self.change(|machine, now| {
            let took = ticket.started.map(|started| now - started);
            machine.record(ticket.admission(), outcome, took, now, || self.clock.now())
        });
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
            pub(super) fn new(breaker: $breaker, ticket: Ticket) -> Self {
                Self { breaker, ticket }
            }

            /// Reports how the call ended.
            #[inline]
            pub fn record(mut self, outcome: Outcome) {
                self.breaker.report(self.ticket, outcome);
                self.ticket.probe = 0;
            }

            /// Reports that the other side works.
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
                self.ticket.probe != 0
            }

            /// The call begins only now, after a wait of our own: that wait does not make it slow.
            pub fn restart_clock(&mut self) {
                if let Some(started) = &mut self.ticket.started {
                    *started = Instant::now();
                }
            }
        }

        impl $(<$life>)? Drop for $name $(<$life>)? {
            #[inline]
            fn drop(&mut self) {
                if self.ticket.probe != 0 {
                    self.breaker.report_locked(self.ticket, Outcome::Ignored);
                }
            }
        }
    };
}

permit! {
    /// Leave to make one call, borrowed from a [`Breaker`].
    Permit<'a>, &'a Breaker
}

permit! {
    /// Leave to make one call, for a future that outlives the borrow.
    OwnedPermit, Arc<Breaker>
}
