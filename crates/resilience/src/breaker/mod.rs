//! Circuit breaker: stops calling what keeps failing, and finds out by a few probes when it works again.
//!
//! Use it alone ([`Breaker::call`], [`Breaker::try_acquire`]), as a tower layer ([`BreakerLayer`]), or through a
//! [`crate::Policy`]. It belongs inside the retry, so that every attempt counts, and outside the bulkhead and the
//! attempt's timeout, so that a call that hangs counts and a call that is refused takes no place. The other way round,
//! with the retry inside, one call that fails three times would count once and the circuit would open three times later.
//!
//! What was refused here (by this breaker, a bulkhead, a limiter, for lack of time) and what the caller cancelled is
//! neither a success nor a failure.

mod calling;
mod error;
mod hot;
mod instances;
mod permit;
mod service;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod window;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{SharedClock, SystemClock, Timestamp};

use crate::failure::{Classify, Standard};
use crate::observe::{CircuitChange, Observer, Observers};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::target::Target;

pub use calling::Calling;
pub use error::{CallError, CircuitOpen};
pub use instances::InstanceCircuits;
pub use permit::{LateReport, OwnedPermit, Permit};
pub use service::{BreakerLayer, BreakerService, ResponseFuture};
pub use settings::{BreakerSettings, CircuitPer, SlowCallSettings, WindowKind, WindowSettings};
pub use state::{Control, State};

use hot::Hot;
use permit::Ticket;
pub(crate) use state::Change;
use state::Machine;

/// A circuit breaker. Share it behind an `Arc`, or by reference.
///
/// On a closed circuit that counts failures in a row (the default) a call that succeeds reads one word before and one
/// after, takes no lock, reads no clock and writes nothing that other threads see.
///
/// ```
/// use trunkline_resilience::breaker::{Breaker, BreakerSettings, CallError};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut settings = BreakerSettings::default();
/// settings.failure_threshold = 1;
/// let breaker = Breaker::new("payments", settings);
///
/// let charged = breaker.call(async { Err::<(), _>("declined by a crash") }).await;
/// assert_eq!(charged, Err(CallError::Failed("declined by a crash")));
/// let refused = breaker.call(async { Ok::<_, &str>(()) }).await;
/// assert!(matches!(refused, Err(CallError::Open(open)) if &*open.service == "payments"));
/// # }
/// ```
#[doc(alias = "CircuitBreaker")]
pub struct Breaker {
    hot: Mirror,
    successes: Counter,
    /// What permits count their time from.
    origin: Instant,
    machine: Mutex<Machine>,
    target: Target,
    observers: Observers,
    clock: SharedClock,
}

/// What of the machine calls have to know, written under the lock, read without it. Alone in its cache lines: calls
/// that write elsewhere must not disturb those that only look.
#[repr(align(128))]
struct Mirror {
    /// A [`Hot`].
    word: AtomicU64,
    /// The stamp until which successes may be counted without the lock; [`NEVER`] ends where time does not matter.
    count_until: AtomicU64,
    /// Nanoseconds from which on a call is slow.
    slow_from: AtomicU64,
}

/// Successes counted without the lock, for whoever takes it next.
#[repr(align(128))]
struct Counter(AtomicU64);

/// Later than any stamp.
const NEVER: u64 = u64::MAX;

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.snapshot();
        f.debug_struct("Breaker")
            .field("target", &self.target)
            .field("state", &view.state)
            .field("failures", &view.failure_count)
            .finish_non_exhaustive()
    }
}

/// What can be seen of a circuit at one moment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Whether calls pass.
    pub state: State,
    /// Who decides about that.
    pub control: Control,
    /// Failures in a row, or in the window; while not closed, those that opened it and those of probes since.
    pub failure_count: u32,
    /// Calls in the window, where one is kept.
    pub calls: u64,
    /// When a call failed last.
    pub last_failure_time: Option<Timestamp>,
    /// How long the present state has lasted.
    #[serde(with = "trunkline_core::duration")]
    pub since: Duration,
    /// Time until an open circuit lets a probe through; zero in the other states.
    #[serde(with = "trunkline_core::duration")]
    pub retry_after: Duration,
}

impl Breaker {
    /// Makes a closed circuit. Numbers that make no sense (a threshold of zero) are moved to the nearest that do.
    #[must_use]
    pub fn new(target: impl Into<Target>, settings: BreakerSettings) -> Self {
        let (observers, clock) = (Observers::default(), SystemClock::shared());
        // Nobody is there to be told.
        Self::build(target.into(), settings, observers, clock).0
    }

    /// The same, with somebody who is told of every change.
    #[must_use]
    pub fn observed(
        target: impl Into<Target>,
        settings: BreakerSettings,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let mut observers = Observers::default();
        observers.add(observer);
        let clock = SystemClock::shared();
        let (breaker, change) = Self::build(target.into(), settings, observers, clock);
        breaker.tell(change);
        breaker
    }

    /// What comes with it is still to be told: whoever holds a lock does that when it is free again.
    pub(crate) fn build(
        target: Target,
        settings: BreakerSettings,
        observers: Observers,
        clock: SharedClock,
    ) -> (Self, Option<Change>) {
        Self::build_after(0, target, settings, observers, clock)
    }

    /// The same; its changes are counted on from a number.
    fn build_after(
        generation: u32,
        target: Target,
        settings: BreakerSettings,
        observers: Observers,
        clock: SharedClock,
    ) -> (Self, Option<Change>) {
        let origin = Instant::now();
        let machine = Machine::new(settings, origin).counting_from(generation);
        let breaker = Self {
            hot: Mirror {
                word: AtomicU64::new(machine.hot().0),
                count_until: AtomicU64::new(NEVER),
                slow_from: AtomicU64::new(NEVER),
            },
            successes: Counter(AtomicU64::new(0)),
            origin,
            machine: Mutex::new(machine),
            target,
            observers,
            clock,
        };
        let change = breaker.change(|machine, now| match settings.control {
            Control::Automatic => None,
            control => machine.force(control, now),
        });
        (breaker, change)
    }

    /// Whose circuit it is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Runs a future if the circuit lets it, and judges its result by the [`Standard`] rule. The future is not polled
    /// when the circuit is open.
    ///
    /// # Errors
    /// [`CallError::Open`] when it was refused, [`CallError::Failed`] with the future's own error.
    ///
    /// # Cancel safety
    /// Dropping it drops the future within; that counts neither as a success nor as a failure, and frees the place of
    /// a probe.
    #[inline]
    pub fn call<T, E, F>(&self, future: F) -> Calling<'_, F>
    where
        F: Future<Output = Result<T, E>>,
        E: 'static,
    {
        Calling::new(self, Standard, future)
    }

    /// Like [`Breaker::call`], with one's own judge (or a reference to it).
    ///
    /// # Errors
    /// [`CallError::Open`] when it was refused, [`CallError::Failed`] with the future's own error.
    ///
    /// # Cancel safety
    /// As for [`Breaker::call`].
    #[inline]
    pub fn call_with<T, E, F, C>(&self, judge: C, future: F) -> Calling<'_, F, C>
    where
        F: Future<Output = Result<T, E>>,
        C: Classify<Result<T, E>>,
    {
        Calling::new(self, judge, future)
    }

    /// Asks for leave to make a call. Report what came of it to the permit; a permit that is dropped without a word
    /// counts neither way.
    ///
    /// # Errors
    /// [`CircuitOpen`] when the circuit is open, or half-open with enough probes under way.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, CircuitOpen> {
        let ticket = self.admit()?;
        Ok(Permit::new(self, ticket))
    }

    /// Like [`Breaker::try_acquire`], for a call that outlives the borrow.
    ///
    /// # Errors
    /// As [`Breaker::try_acquire`].
    #[inline]
    pub fn try_acquire_owned(self: &Arc<Self>) -> Result<OwnedPermit, CircuitOpen> {
        let ticket = self.admit()?;
        Ok(OwnedPermit::new(Arc::clone(self), ticket))
    }

    /// Whether calls pass. An open circuit whose time is over shows as open until a call probes it.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().state()
    }

    /// How often it has changed.
    fn generation(&self) -> u32 {
        self.lock().generation()
    }

    /// What can be seen of the circuit now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let machine = self.lock();
        Snapshot {
            state: machine.state(),
            control: machine.control(),
            failure_count: machine.failures(now),
            calls: machine.calls(now),
            last_failure_time: machine.last_failure(),
            since: now.saturating_duration_since(machine.changed()),
            retry_after: machine.retry_after(now),
        }
    }

    /// The numbers in force.
    #[must_use]
    pub fn settings(&self) -> BreakerSettings {
        *self.lock().settings()
    }

    /// Hands the decision to an operator, or back to the results of the calls. Handing it back closes the circuit and
    /// forgets what was counted.
    pub fn force(&self, control: Control) {
        self.tell(self.force_untold(control));
    }

    /// The same, for whoever holds a lock: the change is still to be told.
    #[must_use]
    pub(crate) fn force_untold(&self, control: Control) -> Option<Change> {
        self.change(|machine, now| machine.force(control, now))
    }

    /// Closes the circuit and forgets what was counted.
    pub fn reset(&self) {
        self.force(Control::Automatic);
    }

    /// Takes new numbers and keeps the state, as a reload of the configuration does. What was counted is kept unless
    /// the window changes its shape; who decides changes where the settings change it.
    pub fn reconfigure(&self, settings: BreakerSettings) {
        self.tell(self.reconfigure_untold(settings));
    }

    /// The same, for whoever holds a lock: the change is still to be told.
    #[must_use]
    pub(crate) fn reconfigure_untold(&self, settings: BreakerSettings) -> Option<Change> {
        self.change(|machine, now| {
            let before = machine.settings().control;
            machine.reconfigure(settings, now);
            let control = settings.control;
            let held = control != Control::Automatic && machine.control() != control;
            if before == control && !held {
                return None;
            }
            machine.force(control, now)
        })
    }

    #[inline]
    fn admit(&self) -> Result<Ticket, CircuitOpen> {
        let hot = Hot(self.hot.word.load(Ordering::Acquire));
        if hot.is_locked() {
            return self.admit_locked();
        }
        let started = if hot.is_timed() { self.stamp_now() } else { 0 };
        Ok(Ticket::new(hot, started))
    }

    #[cold]
    fn admit_locked(&self) -> Result<Ticket, CircuitOpen> {
        let now = Instant::now();
        let mut machine = self.lock();
        let (admitted, change) = machine.admit(now);
        let hot = self.publish(&mut machine, now);
        drop(machine);
        self.tell(change);
        match admitted {
            Ok(admission) => {
                let started = if hot.is_timed() { self.stamp(now) } else { 0 };
                Ok(Ticket::new(hot.with_probe(admission.probe), started))
            }
            Err(wait) => Err(CircuitOpen::new(&self.target, wait)),
        }
    }

    /// Changes the machine under the lock. The observers are still to be told, outside it.
    #[must_use]
    fn change(
        &self,
        change: impl FnOnce(&mut Machine, Instant) -> Option<Change>,
    ) -> Option<Change> {
        let now = Instant::now();
        let mut machine = self.lock();
        let change = change(&mut machine, now);
        self.publish(&mut machine, now);
        change
    }

    fn publish(&self, machine: &mut Machine, now: Instant) -> Hot {
        let until = machine.count_until(now);
        let until = until.map_or(NEVER, |until| self.stamp(until));
        let slow = machine.slow_from().map_or(NEVER, nanos);
        let hot = machine.hot();
        // The word comes last: whoever sees it sees what belongs to it.
        for (known, new, order) in [
            (&self.hot.count_until, until, Ordering::Relaxed),
            (&self.hot.slow_from, slow, Ordering::Relaxed),
            (&self.hot.word, hot.0, Ordering::Release),
        ] {
            // Not written when nothing changed: other threads keep their copy of the line.
            if known.load(Ordering::Relaxed) != new {
                known.store(new, order);
            }
        }
        hot
    }

    /// A panic cannot happen under this lock but in a comparison of ours; the machine is whole either way.
    fn lock(&self) -> MutexGuard<'_, Machine> {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if self.successes.0.load(Ordering::Relaxed) > 0 {
            machine.absorb(self.successes.0.swap(0, Ordering::Relaxed));
        }
        machine
    }

    pub(crate) fn tell(&self, change: Option<Change>) {
        let Some(change) = change else { return };
        let told = CircuitChange {
            target: self.target.clone(),
            from: change.from,
            to: change.to,
            sequence: change.generation,
            failures: change.failures,
        };
        match told.to {
            State::Open => {
                tracing::warn!(target: "trunkline", circuit = %told.target, failures = told.failures, "circuit opened");
            }
            State::HalfOpen | State::Closed => {
                tracing::info!(target: "trunkline", circuit = %told.target, state = %told.to, "circuit changed");
            }
        }
        self.observers
            .tell(|observer| observer.circuit_changed(&told));
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
