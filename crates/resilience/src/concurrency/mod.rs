//! Adaptive concurrency: finds out how many calls the other side can take at once, and sheds the rest, the least important
//! first.
//!
//! Where a [bulkhead](crate::bulkhead) needs a number, this one measures: it watches how latency answers to load, so that
//! it follows a destination that grows, shrinks or has a bad day. It does not queue: a queue in front of something that is
//! overloaded only makes every answer late. Put a bulkhead around it where short bursts are to wait.
//!
//! It belongs inside the bulkhead and right around the attempt, so that it measures the other side and not our queue; and
//! inside the breaker, so that what an open circuit refuses takes no place.
//!
//! Successes say how long calls take; calls that run out of time, or that the other side refuses as too many, say that
//! there were too many. Other failures say nothing: an error that comes back at once is not a fast answer.

mod error;
mod priority;
mod service;
mod settings;
mod state;
#[cfg(all(test, not(loom)))]
mod tests;

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Outcome;
use crate::observe::{Observer, Observers};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::target::Target;

pub use error::Overloaded;
pub use priority::{ParsePriorityError, Priority};
pub(crate) use service::outcome_of;
pub use service::{AllNormal, ConcurrencyLayer, ConcurrencyService, Prioritize, ResponseFuture};
pub use settings::{ConcurrencyAlgorithm, ConcurrencySettings};
use state::{Machine, SHORTEST, Window};

/// A limit that finds itself. Share it behind an `Arc`, or by reference.
///
/// ```
/// use trunkline_resilience::Priority;
/// use trunkline_resilience::concurrency::{ConcurrencyLimiter, ConcurrencySettings};
///
/// let mut settings = ConcurrencySettings::default();
/// settings.initial = 10;
/// let limiter = ConcurrencyLimiter::new("search", settings);
/// let running: Vec<_> = (0..9).map(|_| limiter.try_acquire(Priority::Normal)).collect();
/// assert!(running.iter().all(Result::is_ok));
/// assert!(limiter.try_acquire(Priority::Normal).is_err(), "the last tenth is kept for what matters more");
/// limiter.try_acquire(Priority::Critical).expect("it does").success();
/// ```
pub struct ConcurrencyLimiter {
    in_flight: AtomicU64,
    /// What calls have to know of the machine: epoch (32 bits) and limit (32 bits).
    cap: AtomicU64,
    /// Percent for each priority, 16 bits each.
    shares: AtomicU64,
    /// Results of this window: time taken (44 bits, units of 64 ns) and number (20 bits), so that they never part.
    samples: AtomicU64,
    overloads: AtomicU64,
    peak: AtomicU64,
    /// Not zero where a call was refused.
    refused: AtomicU64,
    /// When the window may be judged, in nanoseconds.
    judged_at: AtomicU64,
    /// What a call takes, in nanoseconds; zero until it is known.
    typical: AtomicU64,
    machine: Mutex<Machine>,
    origin: Instant,
    target: Target,
    observers: Observers,
}

/// What can be seen of a limit at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Measured {
    /// Calls that may run at once.
    pub limit: u32,
    /// Calls under way.
    pub in_flight: u64,
    /// The latency without load, where it is known.
    #[serde(with = "trunkline_core::duration::option")]
    pub baseline: Option<Duration>,
}

impl fmt::Debug for ConcurrencyLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimiter")
            .field("target", &self.target)
            .field("measured", &self.measured())
            .finish_non_exhaustive()
    }
}

const COUNT_BITS: u32 = 20;
const UNIT_BITS: u32 = 6;
/// A single call is not taken for longer than this, in units: some minutes.
const LONGEST: u64 = 1 << 32;

impl ConcurrencyLimiter {
    /// Makes a limit that begins with `initial`. Numbers that make no sense are moved to the nearest that do.
    #[must_use]
    pub fn new(target: impl Into<Target>, settings: ConcurrencySettings) -> Self {
        Self::build(target.into(), settings, Observers::default())
    }

    /// The same, with somebody who is told when the limit moves.
    #[must_use]
    pub fn observed(
        target: impl Into<Target>,
        settings: ConcurrencySettings,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let mut observers = Observers::default();
        observers.add(observer);
        Self::build(target.into(), settings, observers)
    }

    pub(crate) fn build(
        target: Target,
        settings: ConcurrencySettings,
        observers: Observers,
    ) -> Self {
        let origin = Instant::now();
        let machine = Machine::new(settings, origin);
        Self {
            in_flight: AtomicU64::new(0),
            cap: AtomicU64::new(cap(&machine)),
            shares: AtomicU64::new(packed(machine.settings().shares)),
            samples: AtomicU64::new(0),
            overloads: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            judged_at: AtomicU64::new(nanos(SHORTEST)),
            typical: AtomicU64::new(0),
            machine: Mutex::new(machine),
            origin,
            target,
            observers,
        }
    }

    /// Whose limit it is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Takes a place, if there is one for calls that matter so much.
    ///
    /// # Errors
    /// [`Overloaded`] when there is none.
    pub fn try_acquire(&self, priority: Priority) -> Result<Permit<'_>, Overloaded> {
        self.enter(priority, Instant::now())
    }

    /// Like [`ConcurrencyLimiter::try_acquire`], for a call that outlives the borrow.
    ///
    /// # Errors
    /// As [`ConcurrencyLimiter::try_acquire`].
    pub fn try_acquire_owned(
        self: &Arc<Self>,
        priority: Priority,
    ) -> Result<OwnedPermit, Overloaded> {
        let ticket = self.admit(priority, Instant::now())?;
        Ok(OwnedPermit {
            limiter: Arc::clone(self),
            ticket,
        })
    }

    /// What can be seen now.
    #[must_use]
    pub fn measured(&self) -> Measured {
        let machine = self.lock();
        Measured {
            limit: machine.limit(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            baseline: machine.baseline(),
        }
    }

    /// The numbers in force.
    #[must_use]
    pub fn settings(&self) -> ConcurrencySettings {
        *self.lock().settings()
    }

    /// Takes new numbers and keeps what was measured. A smaller limit cuts nothing off.
    pub fn reconfigure(&self, settings: ConcurrencySettings) {
        let mut machine = self.lock();
        machine.reconfigure(settings);
        let shares = packed(machine.settings().shares);
        self.shares.store(shares, Ordering::Relaxed);
        self.cap.store(cap(&machine), Ordering::Release);
    }

    #[inline]
    pub(crate) fn enter(&self, priority: Priority, now: Instant) -> Result<Permit<'_>, Overloaded> {
        let ticket = self.admit(priority, now)?;
        Ok(Permit {
            limiter: self,
            ticket,
        })
    }

    #[inline]
    fn admit(&self, priority: Priority, now: Instant) -> Result<Ticket, Overloaded> {
        let cap = self.cap.load(Ordering::Acquire);
        let allowed = self.allowed(cap, priority);
        let entered =
            self.in_flight
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| {
                    (running < allowed).then_some(running + 1)
                });
        if entered.is_err() {
            return Err(self.refusal(cap, priority));
        }
        Ok(Ticket {
            began: self.stamp(now),
            epoch: (cap >> 32) as u32,
            open: true,
        })
    }

    fn allowed(&self, cap: u64, priority: Priority) -> u64 {
        let limit = cap & u64::from(u32::MAX);
        let share = (self.shares.load(Ordering::Relaxed) >> (16 * priority as u32)) & 0xFFFF;
        // Somebody always gets through: else nothing would ever be measured again.
        (limit * share / 100).max(1)
    }

    #[cold]
    fn refusal(&self, cap: u64, priority: Priority) -> Overloaded {
        if self.refused.load(Ordering::Relaxed) == 0 {
            self.refused.store(1, Ordering::Relaxed);
        }
        let typical = self.typical.load(Ordering::Relaxed);
        Overloaded {
            limit: cap as u32,
            priority,
            retry_after: (typical > 0).then(|| Duration::from_nanos(typical)),
        }
    }

    fn leave(&self) {
        let running = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if running > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(running, Ordering::Relaxed);
        }
    }

    fn report(&self, ticket: Ticket, outcome: Outcome, now: Instant) {
        let stamp = self.stamp(now);
        // What began before a look says nothing about it, and nothing is lost by leaving it out.
        let counts = ticket.epoch == (self.cap.load(Ordering::Relaxed) >> 32) as u32;
        match outcome {
            Outcome::Success if counts => {
                let took = stamp.saturating_sub(ticket.began) >> UNIT_BITS;
                let took = took.clamp(1, LONGEST) << COUNT_BITS;
                self.samples.fetch_add(took | 1, Ordering::Relaxed);
            }
            Outcome::Failure if counts => {
                self.overloads.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Success | Outcome::Failure | Outcome::Ignored => {}
        }
        self.leave();
        if stamp >= self.judged_at.load(Ordering::Relaxed) {
            self.judge(now);
        }
    }

    /// Judges the window, unless it says too little yet or somebody is at it.
    fn judge(&self, now: Instant) {
        let Ok(mut machine) = self.machine.try_lock() else {
            return;
        };
        let count = |samples: u64| samples & ((1 << COUNT_BITS) - 1);
        let results =
            count(self.samples.load(Ordering::Relaxed)) + self.overloads.load(Ordering::Relaxed);
        if !machine.is_enough(results, now) {
            return;
        }
        let samples = self.samples.swap(0, Ordering::Relaxed);
        let total = (samples >> COUNT_BITS) << UNIT_BITS;
        let running = self.in_flight.load(Ordering::Relaxed);
        let peak = self.peak.swap(running, Ordering::Relaxed).max(running);
        let before = machine.limit();
        let window = Window {
            calls: count(samples),
            mean: total as f64 / count(samples).max(1) as f64,
            overloads: self.overloads.swap(0, Ordering::Relaxed),
            peak: u32::try_from(peak).unwrap_or(u32::MAX),
            refused: self.refused.swap(0, Ordering::Relaxed) > 0,
        };
        machine.window_ended(window, now, fastrand::f64());
        let limit = machine.limit();
        self.typical
            .store(machine.typical() as u64, Ordering::Relaxed);
        self.cap.store(cap(&machine), Ordering::Release);
        // What the new limit does shows in the calls that begin under it, and those take as long as a call takes.
        let pause = nanos(SHORTEST).max(machine.typical() as u64);
        let next = self.stamp(now).saturating_add(pause);
        self.judged_at.store(next, Ordering::Relaxed);
        drop(machine);
        if limit != before {
            self.observers
                .tell(|to| to.concurrency_changed(&self.target, limit));
        }
    }

    /// The machine is whole also where a comparison of ours panicked.
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stamp(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.origin))
    }
}

fn cap(machine: &Machine) -> u64 {
    u64::from(machine.epoch()) << 32 | u64::from(machine.limit())
}

fn packed(shares: [u32; 3]) -> u64 {
    let [low, normal, high] = shares.map(u64::from);
    100 << 48 | high << 32 | normal << 16 | low
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Clone, Copy, Debug)]
struct Ticket {
    began: u64,
    epoch: u32,
    open: bool,
}

macro_rules! permit {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)?, $limiter:ty) => {
        $(#[$doc])*
        ///
        /// Dropped without a report, also by a panic or because the call was cancelled, it frees its place and says nothing.
        #[derive(Debug)]
        #[must_use = "dropped at once it guards nothing"]
        pub struct $name $(<$life>)? {
            limiter: $limiter,
            ticket: Ticket,
        }

        impl $(<$life>)? $name $(<$life>)? {
            /// Reports how the call ended: [`Outcome::Success`] says how long a call takes, [`Outcome::Failure`] that there
            /// were too many at once.
            pub fn record(self, outcome: Outcome) {
                self.record_at(outcome, Instant::now());
            }

            /// Reports an answer.
            pub fn success(self) {
                self.record(Outcome::Success);
            }

            /// Reports that there were too many: it ran out of time, or the other side said so.
            pub fn overload(self) {
                self.record(Outcome::Failure);
            }

            pub(crate) fn record_at(mut self, outcome: Outcome, now: Instant) {
                if std::mem::take(&mut self.ticket.open) {
                    self.limiter.report(self.ticket, outcome, now);
                }
            }
        }

        impl $(<$life>)? Drop for $name $(<$life>)? {
            fn drop(&mut self) {
                if self.ticket.open {
                    self.limiter.leave();
                }
            }
        }
    };
}

permit! {
    /// A place for one call, borrowed from a [`ConcurrencyLimiter`].
    Permit<'a>, &'a ConcurrencyLimiter
}

permit! {
    /// A place for one call that outlives the borrow.
    OwnedPermit, Arc<ConcurrencyLimiter>
}
