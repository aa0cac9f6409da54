//! The tier of a cache that processes share, such as Redis.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use trunkline_core::{BoxFuture, Result};

/// What is kept under one key: bytes that only the cache above the tier understands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierEntry {
    /// The bytes.
    pub value: Arc<[u8]>,
    /// How long they are kept at most.
    pub ttl: Duration,
    /// Words under which the entry is removed together with others.
    pub tags: Vec<String>,
}

impl TierEntry {
    /// An entry without tags.
    #[must_use]
    pub fn new(value: impl Into<Arc<[u8]>>, ttl: Duration) -> Self {
        Self {
            value: value.into(),
            ttl,
            tags: Vec::new(),
        }
    }

    /// Sets the words under which it is removed together with others.
    #[must_use]
    pub fn with_tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }
}

/// What is removed from a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// The entry of this key.
    Key(String),
    /// Every entry whose key begins so; an empty text is all of them.
    Prefix(String),
    /// Every entry that has this tag.
    Tag(String),
}

/// A tier of a cache that processes share. It stands behind the memory of each process: asked when that has nothing, and
/// told of what is kept and removed.
///
/// An entry is returned as it was put, or not at all: never a part of it, and never after its time. A tier may forget
/// what it likes. Keys and tags are any text, values any bytes. Once a removal has returned, nothing that was put before
/// it began is returned any more, to any process; of what is put meanwhile either may hold.
///
/// All methods may be called from many tasks at once.
pub trait CacheTier: Send + Sync + 'static {
    /// The entry of a key.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` when the tier cannot be asked.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Arc<[u8]>>>> + Send;

    /// Keeps an entry, in place of the one that is there, its tags included.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` when the tier cannot be reached; whether the entry is kept is not known then.
    ///
    /// # Cancel safety
    /// Dropping it leaves open whether the entry is kept.
    fn put(&self, key: &str, entry: TierEntry) -> impl Future<Output = Result<()>> + Send;

    /// Removes entries and says how many there were; what has run out may be counted or not.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` when the tier cannot be reached; what was removed is not known then.
    ///
    /// # Cancel safety
    /// Dropping it leaves open what was removed.
    fn remove(&self, selector: &Selector) -> impl Future<Output = Result<u64>> + Send;
}

trait DynTier: Send + Sync {
    fn get_dyn<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Arc<[u8]>>>>;
    fn put_dyn<'a>(&'a self, key: &'a str, entry: TierEntry) -> BoxFuture<'a, Result<()>>;
    fn remove_dyn<'a>(&'a self, selector: &'a Selector) -> BoxFuture<'a, Result<u64>>;
}

impl<T: CacheTier> DynTier for T {
    fn get_dyn<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Arc<[u8]>>>> {
        Box::pin(self.get(key))
    }

    fn put_dyn<'a>(&'a self, key: &'a str, entry: TierEntry) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.put(key, entry))
    }

    fn remove_dyn<'a>(&'a self, selector: &'a Selector) -> BoxFuture<'a, Result<u64>> {
        Box::pin(self.remove(selector))
    }
}

/// Any tier. Cloning copies a pointer.
#[derive(Clone)]
pub struct AnyCacheTier(Arc<dyn DynTier>);

impl AnyCacheTier {
    /// Erases the type of a tier.
    #[must_use]
    pub fn new(tier: impl CacheTier) -> Self {
        Self(Arc::new(tier))
    }
}

impl fmt::Debug for AnyCacheTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyCacheTier")
    }
}

impl CacheTier for AnyCacheTier {
    async fn get(&self, key: &str) -> Result<Option<Arc<[u8]>>> {
        self.0.get_dyn(key).await
    }

    async fn put(&self, key: &str, entry: TierEntry) -> Result<()> {
        self.0.put_dyn(key, entry).await
    }

    async fn remove(&self, selector: &Selector) -> Result<u64> {
        self.0.remove_dyn(selector).await
    }
}
