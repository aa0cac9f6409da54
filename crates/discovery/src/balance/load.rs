//! What is going on at one instance, as seen from here.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::ejection::EjectionState;
use super::latency::LatencyEstimate;
use super::outlier::{Counts, Tally};
use crate::instance::{InstanceStatus, ServiceInstance};
use crate::instances::Pool;

/// Milliseconds between two failures that are told.
const TELL_EVERY: u64 = 10;

/// An instance and the load it has. A change of what is known of the instance makes a new member with the same load.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: Arc<ServiceInstance>,
    pub(crate) load: Arc<Load>,
    /// Where failures are reported to.
    pub(crate) pool: Weak<Pool>,
}

impl Member {
    /// Whether it takes requests at all, by its own word.
    pub(crate) fn is_usable(&self) -> bool {
        self.instance.is_usable()
    }

    /// Whether it finishes what it has and still answers, and nothing speaks against it from here: somebody to turn to when
    /// there is nobody else.
    pub(crate) fn is_leaving(&self) -> bool {
        self.instance.status == InstanceStatus::Draining
            && self.instance.weight > 0
            && self.load.passes_checks()
            && !self.load.is_ejected()
    }

    /// Whether nothing speaks against it from here either.
    pub(crate) fn is_sound(&self) -> bool {
        self.is_usable() && self.load.passes_checks() && !self.load.is_ejected()
    }
}

/// Requests under way, failures in a row, latency; and whether it was taken out. In the order of its use: what a pick looks at
/// stands together, so that one of very many instances costs a pick no more than one or two lines of memory.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Load {
    active: AtomicU32,
    ejected: AtomicBool,
    /// The registry does not list it any more, and it cannot be connected to.
    given_up: AtomicBool,
    latency: LatencyEstimate,
    failures: AtomicU32,
    /// Its own among all that this process has known.
    number: u32,
    /// Since when it gets its share bit by bit, if it came later than the others.
    newcomer_since: Option<Instant>,
    /// One bit for each check that keeps failing.
    failing_checks: AtomicU64,
    /// For the comparison with the others.
    tally: Tally,
    /// Where `due` is counted from.
    origin: Instant,
    /// Milliseconds since then at which it is compared with the others; `u64::MAX` for never.
    due: AtomicU64,
    /// Milliseconds since `origin`, and one, at which a request failed last; 0 for never.
    doubted: AtomicU64,
    ejection: Mutex<EjectionState>,
}

impl Load {
    /// `every` says how often it is compared with the others; `None` for never. A newcomer is one that came when others were
    /// there already.
    pub(crate) fn new(every: Option<Duration>, newcomer: bool) -> Self {
        let due = every.map_or(u64::MAX, millis);
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            active: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            latency: LatencyEstimate::new(Instant::now()),
            tally: Tally::default(),
            origin: Instant::now(),
            due: AtomicU64::new(due),
            doubted: AtomicU64::new(0),
            newcomer_since: newcomer.then(Instant::now),
            failing_checks: AtomicU64::new(0),
            ejected: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            ejection: Mutex::default(),
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Since when it gets its share bit by bit, if it came later than the others.
    pub(super) fn newcomer_since(&self) -> Option<Instant> {
        self.newcomer_since
    }

    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// What another request would wait for, roughly: latency times requests under way. An instance that has never
    /// answered gets one request at a time, so that a newcomer is measured before it is flooded.
    pub(super) fn cost(&self, now: Instant) -> f32 {
        const UNKNOWN: f32 = 1e12;
        let active = self.active() as f32;
        match self.latency.micros(now) {
            Some(micros) => micros * (active + 1.0),
            None if active == 0.0 => 0.0,
            None => UNKNOWN + active * 1e6,
        }
    }

    /// A request succeeded. Writes nothing but the latency when none had failed before.
    pub(super) fn succeeded(&self, latency: Duration, now: Instant) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        self.latency.observe(latency, now);
        self.tally.success(latency);
    }

    /// A request had no answer for so long.
    pub(super) fn overtaken(&self, after: Duration, now: Instant) {
        self.latency.observe_at_least(after, now);
        self.tally.took(after);
    }

    /// A request failed. Returns how many have in a row.
    pub(super) fn failed(&self, latency: Duration, now: Instant) -> u32 {
        self.latency.observe_failure(latency, now);
        self.tally.failure();
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A request failed: there is reason to ask whether it is well. Says whether that is worth telling: not at every one of
    /// very many failures.
    pub(crate) fn doubt(&self, now: Instant) -> bool {
        let at = millis(now.saturating_duration_since(self.origin)).saturating_add(1);
        let before = self.doubted.swap(at, Ordering::Relaxed);
        before == 0 || at.saturating_sub(before) >= TELL_EVERY
    }

    /// When a request failed last.
    pub(crate) fn doubted_at(&self) -> Option<Instant> {
        let at = self.doubted.load(Ordering::Relaxed).checked_sub(1)?;
        self.origin.checked_add(Duration::from_millis(at))
    }

    /// Whether it is time to compare the instances. Only one of those who ask at that time is told so.
    pub(super) fn is_time_to_compare(&self, now: Instant) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        let since = now.saturating_duration_since(self.origin);
        millis(since) >= due
            && self
                .due
                .compare_exchange(due, u64::MAX, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// It is compared with the others again after this time.
    pub(crate) fn compare_at(&self, at: Instant) {
        let since = at.saturating_duration_since(self.origin);
        self.due.store(millis(since), Ordering::Relaxed);
    }

    /// What was counted since this was asked last.
    pub(crate) fn take_counts(&self) -> Counts {
        self.tally.take()
    }

    pub(crate) fn passes_checks(&self) -> bool {
        self.failing_checks.load(Ordering::Relaxed) == 0
    }

    /// Whether one of the checks passes, of which there are 64 at most. Says whether that is a change of this check.
    pub(crate) fn set_passing(&self, check: u8, passes: bool) -> bool {
        let bit = 1_u64.checked_shl(check.into()).unwrap_or_default();
        let before = match passes {
            true => self.failing_checks.fetch_and(!bit, Ordering::Relaxed),
            false => self.failing_checks.fetch_or(bit, Ordering::Relaxed),
        };
        (before & bit == 0) != passes
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whether it is passed over although the tables may still lead to it.
    pub(super) fn is_passed_over(&self) -> bool {
        self.is_ejected() || self.is_given_up()
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// It is no longer listed, and gone for good.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// It is listed, so it is not gone, whatever was thought of it.
    pub(crate) fn is_listed(&self) {
        if self.is_given_up() {
            self.given_up.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn ejected_until(&self) -> Option<Instant> {
        self.ejection().until()
    }

    /// Changes whether it is out. Counting begins anew with every change.
    pub(crate) fn change_ejection<T>(&self, change: impl FnOnce(&mut EjectionState) -> T) -> T {
        let mut ejection = self.ejection();
        let before = ejection.is_out();
        let result = change(&mut ejection);
        if ejection.is_out() != before {
            self.ejected.store(ejection.is_out(), Ordering::Relaxed);
            self.failures.store(0, Ordering::Relaxed);
        }
        result
    }

    fn ejection(&self) -> MutexGuard<'_, EjectionState> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX - 1)
}
