//! Rate limit: bounds how many calls begin in a span of time.
//!
//! For a destination that allows only so many calls, or that is to be treated gently. Who comes too early waits for a turn,
//! for a bounded time and never past the deadline; who would wait longer is refused at once and told when to come back.
//! Turns are given in the order of asking, so that waiting takes no lock and wakes nobody up for nothing.
//!
//! It belongs inside the retry, so that every attempt counts, as it does at the other side; inside the breaker, so that
//! what an open circuit refuses uses nothing up; and outside the bulkhead, so that whoever waits for a turn takes no place.
//! A turn is given back where the call is then refused further in.
//!
//! The burst and the rate come on top of each other: in the first span up to `burst + limit` calls begin. Where the other
//! side counts strictly, set a small `burst`.

mod error;
mod gcra;
mod service;
mod shared;

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::policy::Scope;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::timeout::later;

pub use error::RateLimited;
pub(crate) use gcra::Gcra;
use gcra::Turn;
pub use service::{RateLimitLayer, RateLimitService};
pub use shared::{KeyedRateLimiter, SharedRateLimiter, Verdict};

/// How many calls may begin in a span of time, all of it settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitSettings {
    /// Calls allowed.
    pub limit: u32,
    /// In this time.
    pub per: Duration,
    /// Calls that may begin at once after a pause.
    pub burst: u32,
    /// How long a call waits for its turn at most; zero refuses at once.
    pub max_wait: Duration,
    /// Whose calls are counted together.
    pub scope: Scope,
}

impl Default for RateLimitSettings {
    fn default() -> Self {
        Self::per_second(100)
    }
}

impl RateLimitSettings {
    /// So many calls a second, as many of them at once, with waits of up to a second.
    #[must_use]
    pub const fn per_second(limit: u32) -> Self {
        Self::new(limit, Duration::from_secs(1))
    }

    /// So many calls in a span of time, as many of them at once, with waits of up to a second.
    #[must_use]
    pub const fn new(limit: u32, per: Duration) -> Self {
        Self {
            limit,
            per,
            burst: limit,
            max_wait: Duration::from_secs(1),
            scope: Scope::Service,
        }
    }

    /// Nanoseconds between two calls, rounded up: never more than the limit.
    fn interval(self) -> u64 {
        let interval = self.per.as_nanos().div_ceil(self.limit.max(1).into());
        u64::try_from(interval).unwrap_or(u64::MAX).max(1)
    }
}

/// A rate and what was used of it. Share it behind an `Arc`, or by reference.
///
/// ```
/// use std::time::Duration;
/// use trunkline_resilience::ratelimit::{RateLimitSettings, RateLimiter};
///
/// let limiter = RateLimiter::new(RateLimitSettings::new(2, Duration::from_secs(60)));
/// assert!(limiter.try_acquire().is_ok());
/// assert!(limiter.try_acquire().is_ok());
/// let refused = limiter.try_acquire().unwrap_err();
/// assert!(refused.retry_after <= Duration::from_secs(30));
/// ```
#[derive(Debug)]
pub struct RateLimiter {
    gcra: Gcra,
    origin: Instant,
    /// Nanoseconds.
    max_wait: AtomicU64,
    settings: Mutex<RateLimitSettings>,
}

impl RateLimiter {
    /// Makes a limiter of which nothing is used up.
    #[must_use]
    pub fn new(settings: RateLimitSettings) -> Self {
        Self {
            gcra: Gcra::new(settings.interval(), settings.burst),
            origin: Instant::now(),
            max_wait: AtomicU64::new(nanos(settings.max_wait)),
            settings: Mutex::new(settings),
        }
    }

    /// Takes a turn that is free now.
    ///
    /// # Errors
    /// [`RateLimited`] when it would have to wait.
    #[inline]
    pub fn try_acquire(&self) -> Result<(), RateLimited> {
        match self.gcra.take(self.stamp(Instant::now()), 0) {
            Ok(_) => Ok(()),
            Err(wait) => Err(self.refusal(wait)),
        }
    }

    /// Takes a turn, if need be after a wait of up to `max_wait` that ends before the deadline. Where it would not, it is
    /// refused at once, not after the wait.
    ///
    /// # Errors
    /// [`RateLimited`] when the wait would be too long.
    ///
    /// # Cancel safety
    /// Dropping it while it waits gives the turn back if it was the last in the queue; else the turn passes unused.
    pub async fn acquire(&self, deadline: Option<Instant>) -> Result<(), RateLimited> {
        self.enter(Instant::now(), deadline).await.map(Held::keep)
    }

    /// Calls that would pass now without a wait.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.gcra.free(self.stamp(Instant::now()))
    }

    /// The numbers in force.
    #[must_use]
    pub fn settings(&self) -> RateLimitSettings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes new numbers and keeps what was counted; a call that was made weighs no more than it does by the new numbers. Who
    /// waits already keeps the turn.
    pub fn reconfigure(&self, settings: RateLimitSettings) {
        let mut current = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.stamp(Instant::now());
        self.gcra
            .reconfigure(now, settings.interval(), settings.burst);
        self.max_wait
            .store(nanos(settings.max_wait), Ordering::Relaxed);
        *current = settings;
    }

    /// Takes a turn that is free now, and gives it back unless it is kept.
    #[inline]
    pub(crate) fn try_enter(&self, now: Instant) -> Option<Held<'_>> {
        let turn = self.gcra.take(self.stamp(now), 0).ok()?;
        Some(self.held(turn))
    }

    /// The same with a wait.
    pub(crate) async fn enter(
        &self,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Result<Held<'_>, RateLimited> {
        let max_wait = self.max_wait.load(Ordering::Relaxed);
        let left = deadline.map_or(u64::MAX, |deadline| {
            nanos(deadline.saturating_duration_since(now))
        });
        let taken = self.gcra.take(self.stamp(now), max_wait.min(left));
        let turn = taken.map_err(|wait| self.refusal(wait))?;
        let held = self.held(turn);
        if turn.wait > 0 {
            sleep_until(later(now, Duration::from_nanos(turn.wait))).await;
        }
        Ok(held)
    }

    fn held(&self, turn: Turn) -> Held<'_> {
        Held {
            gcra: &self.gcra,
            turn: Some(turn),
        }
    }

    #[cold]
    fn refusal(&self, wait: u64) -> RateLimited {
        RateLimited::new(self.settings(), Duration::from_nanos(wait))
    }

    fn stamp(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.origin))
    }
}

/// A turn that goes back unless the call is made.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    gcra: &'a Gcra,
    turn: Option<Turn>,
}

impl Held<'_> {
    /// The call is made.
    #[inline]
    pub(crate) fn keep(mut self) {
        self.turn = None;
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            self.gcra.give_back(turn);
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
