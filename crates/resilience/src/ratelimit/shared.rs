//! Rates by key, counted in this process or in a store that several processes share.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{BoxFuture, Error};

use super::{Gcra, RateLimitSettings, nanos};

/// What a limiter says to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on, and so many more could at once.
    Granted {
        /// Calls that would pass now.
        remaining: u64,
    },
    /// It may not.
    Refused {
        /// Time until a call would pass.
        retry_after: Duration,
    },
}

/// Counts calls by key, wherever the count is kept: in one process ([`KeyedRateLimiter`]) or in a store for all of them.
///
/// Implementations judge by the store's clock, count a call that is granted and no other, and count each key by itself.
pub trait SharedRateLimiter: fmt::Debug + Send + Sync + 'static {
    /// Judges one call of a key by these numbers, without a wait: `max_wait` and `scope` mean nothing here. A key whose
    /// numbers change keeps what was counted.
    ///
    /// # Errors
    /// Of the store. Whether calls then pass is for the caller to decide.
    ///
    /// # Cancel safety
    /// A call that is dropped may have been counted.
    fn check<'a>(
        &'a self,
        key: &'a str,
        settings: RateLimitSettings,
    ) -> BoxFuture<'a, Result<Verdict, Error>>;
}

/// Rates by key in this process, such as one for each client. Bounded in keys: those of which nothing is used up are
/// forgotten first, which changes nothing for them; while all of `max_keys` are in use, new ones share one count.
///
/// ```
/// use std::time::Duration;
/// use trunkline_resilience::ratelimit::{KeyedRateLimiter, RateLimitSettings, Verdict};
///
/// let limiter = KeyedRateLimiter::new(10_000);
/// let settings = RateLimitSettings::new(1, Duration::from_secs(60));
/// assert!(matches!(limiter.judge("ada", settings), Verdict::Granted { remaining: 0 }));
/// assert!(matches!(limiter.judge("ada", settings), Verdict::Refused { .. }));
/// assert!(matches!(limiter.judge("bob", settings), Verdict::Granted { .. }));
/// ```
#[derive(Debug)]
pub struct KeyedRateLimiter {
    origin: Instant,
    max_keys: usize,
    keys: RwLock<Keys>,
    rest: Arc<Counted>,
}

#[derive(Debug, Default)]
struct Keys {
    known: HashMap<Box<str>, Arc<Counted>>,
    /// When idle ones were last looked for, in nanoseconds.
    swept: u64,
}

/// A look at all keys is not worth it more often than this, in nanoseconds: whoever sends ever new keys must not make
/// everybody wait for it.
const BETWEEN_SWEEPS: u64 = 100_000_000;

#[derive(Debug)]
struct Counted {
    gcra: Gcra,
    settings: RwLock<RateLimitSettings>,
}

impl Counted {
    fn new(settings: RateLimitSettings) -> Arc<Self> {
        Arc::new(Self {
            gcra: Gcra::new(settings.interval(), settings.burst),
            settings: RwLock::new(settings),
        })
    }

    fn follow(&self, settings: RateLimitSettings) {
        if *self.settings.read().unwrap_or_else(PoisonError::into_inner) == settings {
            return;
        }
        let mut known = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Keys with numbers of their own may take turns here: what was counted weighs the same for all.
        self.gcra.set(settings.interval(), settings.burst);
        *known = settings;
    }
}

impl KeyedRateLimiter {
    /// Makes a limiter that knows so many keys at once.
    #[must_use]
    pub fn new(max_keys: usize) -> Self {
        Self {
            origin: Instant::now(),
            max_keys: max_keys.max(1),
            keys: RwLock::default(),
            rest: Counted::new(RateLimitSettings::default()),
        }
    }

    /// Judges one call of a key.
    #[must_use]
    pub fn judge(&self, key: &str, settings: RateLimitSettings) -> Verdict {
        let now = nanos(Instant::now().saturating_duration_since(self.origin));
        let counted = self.counted(key, settings, now);
        counted.follow(settings);
        match counted.gcra.take(now, 0) {
            Ok(_) => Verdict::Granted {
                remaining: counted.gcra.free(now),
            },
            Err(wait) => Verdict::Refused {
                retry_after: Duration::from_nanos(wait),
            },
        }
    }

    /// Keys that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .known
            .len()
    }

    /// Whether no key is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn counted(&self, key: &str, settings: RateLimitSettings, now: u64) -> Arc<Counted> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counted) = keys.known.get(key) {
            return Arc::clone(counted);
        }
        drop(keys);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(counted) = keys.known.get(key) {
            return Arc::clone(counted);
        }
        if keys.known.len() >= self.max_keys && now >= keys.swept.saturating_add(BETWEEN_SWEEPS) {
            keys.known.retain(|_, counted| !counted.gcra.is_idle(now));
            keys.swept = now;
        }
        if keys.known.len() >= self.max_keys {
            return Arc::clone(&self.rest);
        }
        let counted = Counted::new(settings);
        keys.known.insert(key.into(), Arc::clone(&counted));
        counted
    }
}

impl SharedRateLimiter for KeyedRateLimiter {
    fn check<'a>(
        &'a self,
        key: &'a str,
        settings: RateLimitSettings,
    ) -> BoxFuture<'a, Result<Verdict, Error>> {
        Box::pin(std::future::ready(Ok(self.judge(key, settings))))
    }
}
