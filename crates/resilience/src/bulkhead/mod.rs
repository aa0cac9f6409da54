//! Bulkhead: bounds how many calls run at once, so that one slow destination cannot take everything.
//!
//! Who finds no place waits in a queue that is bounded in length and time, and never past its deadline. It belongs
//! inside the breaker (a call that an open circuit refuses takes no place) and inside the retry (a wait between two
//! attempts holds none).

mod error;
mod service;
mod tally;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::policy::Scope;
use crate::timeout::later;

pub use error::{BulkheadFull, Full};
pub use service::{BulkheadLayer, BulkheadService};
pub(crate) use tally::Tally;

/// How many calls may run and wait, all of it settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkheadSettings {
    /// Calls under way at once.
    pub max_concurrent: u32,
    /// Calls that may wait for a place; further ones are refused at once.
    pub max_queue: u32,
    /// How long a call waits at most.
    pub max_wait: Duration,
    /// Whose calls are counted together.
    pub scope: Scope,
}

impl Default for BulkheadSettings {
    fn default() -> Self {
        Self {
            max_concurrent: 100,
            max_queue: 100,
            max_wait: Duration::from_secs(1),
            scope: Scope::Service,
        }
    }
}

/// Places for calls. Share it behind an `Arc`, or by reference.
///
/// ```
/// use trunkline_resilience::bulkhead::{Bulkhead, BulkheadSettings};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut settings = BulkheadSettings::default();
/// settings.max_concurrent = 1;
/// settings.max_queue = 0;
/// let bulkhead = Bulkhead::new(settings);
///
/// let place = bulkhead.acquire(None).await?;
/// assert!(bulkhead.acquire(None).await.is_err());
/// drop(place);
/// assert!(bulkhead.acquire(None).await.is_ok());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Bulkhead {
    places: Semaphore,
    tally: Tally,
    settings: Mutex<BulkheadSettings>,
}

/// What can be seen of a bulkhead at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Occupancy {
    /// Calls under way.
    pub running: usize,
    /// Calls that wait for a place.
    pub waiting: usize,
    /// The limit.
    pub max_concurrent: u32,
}

impl Bulkhead {
    /// Makes an empty bulkhead. A limit of no calls at all is taken as one.
    #[must_use]
    pub fn new(settings: BulkheadSettings) -> Self {
        Self {
            places: Semaphore::new(places(settings)),
            tally: Tally::new(),
            settings: Mutex::new(settings),
        }
    }

    /// Takes a place, if need be after a wait that ends at the deadline or after `max_wait`. Places are given in the
    /// order of asking.
    ///
    /// # Errors
    /// [`BulkheadFull`] when the queue is full or the wait too long.
    ///
    /// # Cancel safety
    /// Dropping it leaves the queue, and gives the place back if it had just been won.
    pub async fn acquire(&self, deadline: Option<Instant>) -> Result<Place<'_>, BulkheadFull> {
        self.enter(deadline).await?;
        Ok(Place { bulkhead: self })
    }

    /// Like [`Bulkhead::acquire`], for a call that outlives the borrow.
    ///
    /// # Errors
    /// As [`Bulkhead::acquire`].
    ///
    /// # Cancel safety
    /// As [`Bulkhead::acquire`].
    pub async fn acquire_owned(
        self: Arc<Self>,
        deadline: Option<Instant>,
    ) -> Result<OwnedPlace, BulkheadFull> {
        self.enter(deadline).await?;
        Ok(OwnedPlace { bulkhead: self })
    }

    /// Takes a place that is free now.
    #[must_use]
    pub fn try_acquire(&self) -> Option<Place<'_>> {
        // Made only where a place was won: dropping it gives one back.
        self.try_enter().then(|| Place { bulkhead: self })
    }

    /// What can be seen now.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let settings = self.settings();
        let free = self.places.available_permits();
        let owed = self.tally.owed();
        Occupancy {
            running: (places(settings) + owed).saturating_sub(free),
            waiting: self.tally.waiting(),
            max_concurrent: settings.max_concurrent.max(1),
        }
    }

    /// Takes new numbers. A smaller limit cuts nothing off: it holds once enough running calls have ended.
    pub fn reconfigure(&self, settings: BulkheadSettings) {
        let mut current = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, new) = (places(*current), places(settings));
        if new > old {
            let paid = self.tally.pay(new - old);
            self.places.add_permits(new - old - paid);
        } else if new < old {
            let taken = self.places.forget_permits(old - new);
            self.tally.owe(old - new - taken);
        }
        *current = settings;
    }

    fn settings(&self) -> BulkheadSettings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_enter(&self) -> bool {
        match self.places.try_acquire() {
            Ok(permit) => {
                permit.forget();
                true
            }
            Err(_) => false,
        }
    }

    async fn enter(&self, deadline: Option<Instant>) -> Result<(), BulkheadFull> {
        if self.try_enter() {
            return Ok(());
        }
        let settings = self.settings();
        let began = Instant::now();
        let queued = self
            .tally
            .join(settings.max_queue as usize)
            .ok_or_else(|| BulkheadFull::new(Full::Queue, settings, Duration::ZERO))?;
        let longest = later(began, settings.max_wait);
        let until = deadline.map_or(longest, |deadline| deadline.min(longest));
        let won = timeout_at(until, self.places.acquire()).await;
        drop(queued);
        match won {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(())
            }
            // The semaphore is never closed: both are the end of the wait.
            Ok(Err(_)) | Err(_) => Err(BulkheadFull::new(Full::Wait, settings, began.elapsed())),
        }
    }

    fn leave(&self) {
        if self.tally.pay(1) == 0 {
            self.places.add_permits(1);
        }
    }
}

fn places(settings: BulkheadSettings) -> usize {
    usize::try_from(settings.max_concurrent.max(1))
        .unwrap_or(usize::MAX)
        .min(Semaphore::MAX_PERMITS)
}

/// A place taken; free again when dropped.
#[derive(Debug)]
#[must_use = "dropped at once it holds nothing"]
pub struct Place<'a> {
    bulkhead: &'a Bulkhead,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.bulkhead.leave();
    }
}

/// A place taken by a call that outlives the borrow; free again when dropped.
#[derive(Debug)]
#[must_use = "dropped at once it holds nothing"]
pub struct OwnedPlace {
    bulkhead: Arc<Bulkhead>,
}

impl Drop for OwnedPlace {
    fn drop(&mut self) {
        self.bulkhead.leave();
    }
}
