//! Doing a thing once although it is asked for twice: reserve, do, complete.
//!
//! The same store serves consumers that may get a message again and HTTP endpoints with idempotency keys. A claim that
//! is neither completed nor released — its owner died — can be claimed again when its lease has run out, or sooner where
//! the store notices.

mod erased;
mod memory;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use trunkline_core::Result;

pub use erased::AnyInbox;
pub use memory::MemoryInbox;

/// Asks for the right to do something once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimRequest {
    /// Who does it: a consumer group, an endpoint. Keys of different scopes are different keys.
    pub scope: String,
    /// What is done: a message id, an idempotency key.
    pub key: String,
    /// A digest of the input. The same key with another digest is a mismatch.
    pub fingerprint: Option<Bytes>,
    /// How long the owner may take before somebody else may begin. Default 60 s.
    pub lease: Duration,
}

impl ClaimRequest {
    /// A request with a lease of 60 s.
    #[must_use]
    pub fn new(scope: impl Into<String>, key: impl Into<String>) -> Self {
        let lease = Duration::from_secs(60);
        Self {
            scope: scope.into(),
            key: key.into(),
            fingerprint: None,
            lease,
        }
    }

    /// Adds a digest of the input.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: impl Into<Bytes>) -> Self {
        self.fingerprint = Some(fingerprint.into());
        self
    }

    /// Sets how long the owner may take.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }
}

/// Proof of a claim; a later claim of the same key makes it worthless.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimToken {
    /// The scope claimed in.
    pub scope: String,
    /// The key claimed.
    pub key: String,
    /// Grows with every claim of this key.
    pub generation: u64,
}

impl ClaimToken {
    /// Puts one together; for backends.
    #[must_use]
    pub fn new(scope: impl Into<String>, key: impl Into<String>, generation: u64) -> Self {
        Self {
            scope: scope.into(),
            key: key.into(),
            generation,
        }
    }
}

/// What the store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Do it, then complete or release.
    Granted(ClaimToken),
    /// Somebody is doing it.
    InProgress {
        /// When the claim runs out at the latest.
        retry_after: Duration,
    },
    /// It was done, with this result.
    Done(Bytes),
    /// The key was used with another input.
    Mismatch,
}

/// Remembers what was done. Bounded: completed keys are forgotten after their time, oldest first when the store is full.
pub trait InboxStore: Send + Sync + Sized + 'static {
    /// Claims a key, atomically among all processes that share the store.
    ///
    /// Errors: `Unavailable`, `Exhausted`, `Cancelled` after shutdown. When dropped the claim may stand until its lease
    /// runs out.
    fn claim(&self, request: ClaimRequest) -> impl Future<Output = Result<Claim>> + Send;

    /// Records that it was done, with a result to be kept that long.
    ///
    /// Errors: `Conflict` when the claim was lost to another; else as `claim`. May be called again after a failure.
    fn complete(
        &self,
        token: ClaimToken,
        result: Bytes,
        keep: Duration,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Keeps a claim for longer, counted from now, while its owner is still at work.
    ///
    /// Errors: `Conflict` when the claim was lost to another or is done; else as `claim`. Cancel safe.
    fn extend(
        &self,
        token: &ClaimToken,
        lease: Duration,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Gives a claim back: it was not done. Does nothing when the claim was lost.
    ///
    /// Errors: as `claim`.
    fn release(&self, token: ClaimToken) -> impl Future<Output = Result<()>> + Send;

    /// Erases the type. Erasing twice gives the same handle.
    fn erase(self) -> AnyInbox {
        AnyInbox::of(self)
    }
}
