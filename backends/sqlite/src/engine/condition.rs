//! Whether a database can be written, as health shows it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Error, Result};

use crate::error::Failure;

/// A writer that waits longer for its turn says so: another process stopped in the middle of a write.
const STUCK: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Condition(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failure: Option<Failure>,
    waiting_since: Option<Instant>,
}

impl Condition {
    /// A group was committed: whatever was wrong is over. On a disk that is full, small writes may find room in pages
    /// that are there already; that is not the end of it.
    pub(super) fn works(&self) {
        let mut state = self.lock();
        let over = match &state.failure {
            None => false,
            Some(failure) => !failure.still_has_no_space(),
        };
        if over {
            state.failure = None;
            tracing::info!(target: "trunkline", "the embedded directory can be written again");
        }
    }

    pub(super) fn failed(&self, failure: &Failure) {
        let mut state = self.lock();
        if state.failure.is_none() {
            let error = failure.to_error("write");
            tracing::error!(target: "trunkline", error = %error.report(), "the embedded directory cannot be written");
        }
        state.failure = Some(failure.clone());
    }

    pub(super) fn waits(&self) {
        self.lock().waiting_since = Some(Instant::now());
    }

    pub(super) fn has_turn(&self) {
        self.lock().waiting_since = None;
    }

    pub(super) fn is_failing(&self) -> bool {
        self.lock().failure.is_some()
    }

    pub(super) fn check(&self) -> Result<()> {
        let state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.to_error("health_check"));
        }
        match state.waiting_since {
            Some(since) if since.elapsed() > STUCK => Err(Error::unavailable(
                "another process has held the write lock for more than 5 s",
            )),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
