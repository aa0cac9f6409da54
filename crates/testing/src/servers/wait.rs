//! Bounded waiting for real processes.
//!
//! This is blocking code about processes of the operating system: a paused clock means nothing to
//! them, so wall time is used, here and nowhere else.
#![expect(
    clippy::disallowed_methods,
    reason = "polls real processes from blocking code; a paused clock does not stop them"
)]

use std::thread::sleep;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(10);

/// A moment after which waiting ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(Instant);

impl Limit {
    pub(super) fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    pub(super) fn passed(self) -> bool {
        Instant::now() >= self.0
    }

    /// Sleeps one polling step; `false` when the limit has passed.
    pub(super) fn pause(self) -> bool {
        if self.passed() {
            return false;
        }
        sleep(STEP);
        true
    }

    /// Polls `done` until it says yes; `false` when the limit passed first.
    pub(super) fn poll(self, mut done: impl FnMut() -> bool) -> bool {
        loop {
            if done() {
                return true;
            }
            if !self.pause() {
                return false;
            }
        }
    }
}
