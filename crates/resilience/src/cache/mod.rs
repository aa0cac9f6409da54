//! Which answers are kept: the values of a policy, the pattern of a key, and the tier that processes share.
//!
//! Keeping answers is the business of whoever knows the protocol: `trunkline-http` does. The cache stands inside the
//! fallback and outside the retry, so that a call that is answered from it counts neither as an attempt nor for a
//! circuit.

mod memory;
mod pattern;
mod tier;

use std::sync::Arc;
use std::time::Duration;

pub use crate::config::CacheMode;
pub use memory::MemoryTier;
pub use pattern::Pattern;
pub use tier::{AnyCacheTier, CacheTier, Selector, TierEntry};

/// Which answers are kept, all of it settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheSettings {
    /// Whose cache it is.
    pub mode: CacheMode,
    /// How long every successful answer is kept; `None` where the answer says so itself.
    pub ttl: Option<Duration>,
    /// How long an answer with an error status is kept; `None` where it is not.
    pub error_ttl: Option<Duration>,
    /// The [`Pattern`] of the key.
    pub key: Option<Arc<str>>,
    /// The only parameters and headers that make a difference.
    pub vary_on: Option<Arc<[String]>>,
    /// [`Pattern`]s of words by which answers are cleared together.
    pub tags: Arc<[String]>,
    /// Whether answers are the same whoever asks.
    pub public: bool,
    /// Whether `no-store` in an answer wins over `ttl`.
    pub respect_no_store: bool,
    /// How long an answer may be used past its time while a new one is fetched.
    pub stale_while_revalidate: Option<Duration>,
    /// How long an answer may be used past its time when the call fails.
    pub stale_if_error: Option<Duration>,
    /// Whether somebody asked for a cache here; else it is the quiet one that is there by default.
    pub asked: bool,
}

impl CacheSettings {
    /// An answer with an error status is kept no longer than this unless something else is said.
    pub const ERROR_TTL: Duration = Duration::from_secs(10);
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            mode: CacheMode::Private,
            ttl: None,
            error_ttl: None,
            key: None,
            vary_on: None,
            tags: Arc::from([]),
            public: false,
            respect_no_store: true,
            stale_while_revalidate: None,
            stale_if_error: None,
            asked: false,
        }
    }
}
