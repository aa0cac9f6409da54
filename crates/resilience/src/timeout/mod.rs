//! Timeouts: of one attempt, of a whole call, and the deadline that came with the request.
//!
//! The earliest of them bounds everything. Use [`TimeoutLayer`] alone for one limit per request; a [`crate::Policy`]
//! works them all out. An attempt's timeout belongs inside the breaker (a call that hangs is a failure) and inside the
//! retry (a slow attempt may be repeated); a timeout outside the retry is the total.

mod deadline;
mod error;
mod limited;
mod service;

use std::time::Duration;

pub use deadline::Deadline;
pub(crate) use deadline::later;
pub use error::{DeadlineTooShort, Elapsed, Limit};
pub(crate) use limited::{Limited, Over, limited};
pub use service::{ResponseFuture, Timeout, TimeoutLayer};

/// The limits of a call, all of them settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeoutSettings {
    /// Opening a connection.
    pub connection: Duration,
    /// Longest silence: before an answer begins and between its parts.
    pub read: Duration,
    /// From the end of the request until the head of the answer is here.
    pub first_byte: Option<Duration>,
    /// The whole call, all attempts, waits and the fallback included.
    pub total: Duration,
    /// Waiting for a free connection.
    pub pool: Duration,
    /// With less than this left no attempt is started.
    pub floor: Duration,
    /// An attempt that the caller's deadline gave less time than this, and that ran out of it, does not speak against the
    /// other side: whoever calls could else open its circuit for everybody.
    pub fair: Duration,
    /// One attempt; `request_timeout` in configuration.
    pub attempt: Duration,
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self {
            connection: Duration::from_secs(10),
            read: Duration::from_secs(30),
            first_byte: None,
            total: Duration::from_secs(30),
            pool: Duration::from_secs(5),
            floor: Duration::from_millis(1),
            fair: Duration::from_millis(500),
            attempt: Duration::from_secs(30),
        }
    }
}
