//! Large payloads beside the broker: what is above a size is put into an object store, and the message carries a claim on
//! it. Receivers get the payload as if it had been in the message.
//!
//! Objects are removed when their time is over, not when a message is handled: other groups, replays and dead letters need
//! them too. `keep_for` must be longer than the broker keeps messages.

mod config;
mod erased;
mod file;
mod reference;

use std::fmt;
use std::future::Future;

use bytes::Bytes;
use trunkline_core::size::ByteSize;
use trunkline_core::{Error, Id, Result};

pub use config::ClaimCheckConfig;
pub use erased::AnyObjectStore;
pub use file::FileStore;
pub(crate) use reference::{is_claim, redeem, store};

/// Where large payloads are kept. What it promises:
/// - **put** returns when the object is as durable as the store makes it; a reader sees all of it or nothing.
/// - **get** gives what was put, or nothing when it is not there; at most so many bytes are read.
pub trait ObjectStore: Send + Sync + Sized + 'static {
    /// Stores an object under a new key.
    ///
    /// Errors: `Unavailable`, `Exhausted` when there is no room. Cancel safe: it may be stored, and expires then.
    fn put(&self, key: &ObjectKey, object: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Reads an object.
    ///
    /// Errors: `Unavailable`; `Invalid` when it is larger than `largest` bytes. Cancel safe.
    fn get(
        &self,
        key: &ObjectKey,
        largest: u64,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// Removes an object and says whether it was there.
    ///
    /// Errors: `Unavailable`. Cancel safe.
    fn remove(&self, key: &ObjectKey) -> impl Future<Output = Result<bool>> + Send;

    /// Erases the type.
    fn erase(self) -> AnyObjectStore {
        AnyObjectStore::of(self)
    }
}

/// The name of an object: lower-case hexadecimal digits and hyphens, so that it is safe as a file's name anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// A key that nothing has yet.
    #[must_use]
    pub fn unique() -> Self {
        Self(Id::new().to_string())
    }

    /// Reads a key.
    ///
    /// # Errors
    /// `Invalid` when it is not of 8 to 64 lower-case hexadecimal digits and hyphens.
    ///
    /// ```
    /// use trunkline_messaging::claim::ObjectKey;
    ///
    /// assert!(ObjectKey::parse("0199aa00-0000-7000-8000-000000000000").is_ok());
    /// assert!(ObjectKey::parse("../../etc/passwd").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let is_part = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        if !(8..=64).contains(&text.len()) || !text.bytes().all(is_part) {
            return Err(Error::invalid(
                "a key is of 8 to 64 lower-case hexadecimal digits and hyphens",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A claim that cannot be redeemed: a cause of errors, and of dead letters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The object is not there: its time was over, or it is in another store.
    #[error("the object {key} is not in the store: it expired, or the sender uses another store")]
    Missing {
        /// The object's key.
        key: String,
    },
    /// The object is not what the message claims.
    #[error("the object {key} is not what was stored: its size or checksum is another one")]
    Changed {
        /// The object's key.
        key: String,
    },
    /// The object is larger than this service takes.
    #[error("the object {key} has {size} bytes, more than the {largest} that are taken")]
    TooLarge {
        /// The object's key.
        key: String,
        /// Its bytes, as the message says.
        size: u64,
        /// The limit.
        largest: ByteSize,
    },
    /// What the message carries is no claim.
    #[error("the claim cannot be read")]
    Malformed,
    /// This service has no store to look into.
    #[error("its payload is in an object store, and none is configured here (`claim_check`)")]
    NoStore,
}

impl From<ClaimError> for Error {
    fn from(cause: ClaimError) -> Self {
        Self::invalid("the payload of the message is not to be had").with_source(cause)
    }
}

/// A store and what is put there.
#[derive(Clone, Debug)]
pub(crate) struct ClaimCheck {
    pub(crate) store: AnyObjectStore,
    pub(crate) above: ByteSize,
    pub(crate) largest: ByteSize,
}
