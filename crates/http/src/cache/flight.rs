//! Calls under way for the same key: one asks, the others wait for what it gets.
//!
//! Whoever waits stands in the queue of a lock. The one that holds it makes the call; if it is dropped before it has an
//! answer, the next in the queue finds nothing and makes the call itself. What the call got is left behind the lock, for
//! those who were waiting and nobody else.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Queue, OwnedMutexGuard};
use trunkline_core::Error;

use super::stored::Stored;

/// What a call got, for those who wait.
#[derive(Clone, Debug)]
pub(super) enum Landed {
    /// An answer, kept or not.
    Answer(Arc<Stored>),
    /// The other side failed.
    Failed(Arc<Error>),
    /// The answer is for one caller alone: each makes its own call.
    Pass,
}

type Flight = Arc<Queue<Option<Landed>>>;

/// The calls under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Arc<str>, Flight>>>);

/// How a call meets those under way.
#[derive(Debug)]
pub(super) enum Entered {
    /// It is the one that asks.
    Lead(Lead),
    /// Another has asked.
    Landed(Landed),
}

/// The right to make the call. Dropped without a word, it passes on to the next who waits.
#[derive(Debug)]
pub(super) struct Lead {
    guard: Option<OwnedMutexGuard<Option<Landed>>>,
    place: Place,
}

/// One who waits or asks: the last of them takes the flight away.
#[derive(Debug)]
struct Place {
    flights: Flights,
    key: Arc<str>,
    flight: Flight,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the call that is under way for a key, or becomes it.
    ///
    /// Cancel safe: dropping it gives up the place in the queue.
    pub(super) async fn enter(&self, key: &Arc<str>) -> Entered {
        let flight = Arc::clone(self.lock().entry(Arc::clone(key)).or_default());
        let place = Place {
            flights: self.clone(),
            key: Arc::clone(key),
            flight,
        };
        let guard = Arc::clone(&place.flight).lock_owned().await;
        if let Some(landed) = &*guard {
            return Entered::Landed(landed.clone());
        }
        Entered::Lead(Lead {
            guard: Some(guard),
            place,
        })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Lead {
    /// Whether somebody waits for what comes.
    pub(super) fn is_awaited(&self) -> bool {
        // The map, the place and the guard hold it as well.
        Arc::strong_count(&self.place.flight) > 3
    }

    /// Tells those who wait. Whoever comes from now on asks anew.
    pub(super) fn land(mut self, landed: Landed) {
        self.place.leave();
        if let Some(mut guard) = self.guard.take() {
            *guard = Some(landed);
        }
    }
}

impl Place {
    fn leave(&self) {
        let mut known = self.flights.lock();
        if known
            .get(&self.key)
            .is_some_and(|known| Arc::ptr_eq(known, &self.flight))
        {
            known.remove(&self.key);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut known = self.flights.lock();
        // The map's and this one: nobody else is here, and none can come while the map is locked.
        let alone = Arc::strong_count(&self.flight) <= 2;
        if alone
            && known
                .get(&self.key)
                .is_some_and(|known| Arc::ptr_eq(known, &self.flight))
        {
            known.remove(&self.key);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        // Before the place is left, so that it counts right.
        drop(self.guard.take());
    }
}

/// An error that several callers have.
pub(super) fn shared(error: &Arc<Error>) -> Error {
    Error::new(error.kind(), error.message().to_owned())
        .with_retry(error.retry())
        .with_origin(error.origin())
        .with_source(Together(Arc::clone(error)))
}

/// Leads to the causes of the error without repeating its words.
struct Together(Arc<Error>);

impl fmt::Debug for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call that others waited for failed")
    }
}

impl StdError for Together {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        StdError::source(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn key() -> Arc<str> {
        Arc::from("key")
    }

    fn leads(entered: Option<Entered>) -> Option<Lead> {
        match entered {
            Some(Entered::Lead(lead)) => Some(lead),
            _ => None,
        }
    }

    #[test]
    fn one_leads_and_the_others_hear_of_it() {
        let flights = Flights::default();
        let lead = leads(flights.enter(&key()).now_or_never()).unwrap();
        assert!(!lead.is_awaited());
        let (key, mut waiting) = (key(), Vec::new());
        for _ in 0..3 {
            let mut enter = Box::pin(flights.enter(&key));
            assert!(enter.as_mut().now_or_never().is_none());
            waiting.push(enter);
        }
        assert!(lead.is_awaited());
        let error = Arc::new(Error::unavailable("gone"));
        lead.land(Landed::Failed(error));
        assert_eq!(flights.len(), 0, "whoever comes now asks anew");
        for enter in waiting {
            let Some(Entered::Landed(Landed::Failed(error))) = enter.now_or_never() else {
                panic!("it has landed");
            };
            assert_eq!(shared(&error).to_string(), "gone");
        }
    }

    #[test]
    fn who_is_dropped_hands_over_to_the_next() {
        let flights = Flights::default();
        let key = key();
        let lead = leads(flights.enter(&key).now_or_never()).unwrap();
        let mut second = Box::pin(flights.enter(&key));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(flights.enter(&key));
        assert!(third.as_mut().now_or_never().is_none());
        drop(lead);
        let lead = leads(second.now_or_never()).unwrap();
        assert!(third.as_mut().now_or_never().is_none());
        drop(lead);
        drop(leads(third.now_or_never()).unwrap());
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn nothing_is_left_of_who_gave_up_waiting() {
        let flights = Flights::default();
        let key = key();
        let lead = leads(flights.enter(&key).now_or_never()).unwrap();
        let mut second = Box::pin(flights.enter(&key));
        assert!(second.as_mut().now_or_never().is_none());
        drop(second);
        assert!(!lead.is_awaited());
        drop(lead);
        assert_eq!(flights.len(), 0);
    }
}
