//! Keeps answers: by the rules of HTTP (RFC 9111, RFC 5861), and for a time that the caller gives.
//!
//! The cache stands inside the fallback and outside the retry: a call that it answers is no attempt, and neither speaks
//! for nor against a circuit. Whoever put it inside the retry would ask the same memory three times; outside the
//! fallback it would keep values that stand in for an answer.

mod client;
mod directives;
mod encode;
mod flight;
mod key;
mod request;
mod serve;
mod store;
mod stored;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use trunkline_core::size::ByteSize;
use trunkline_core::task::Scope;
use trunkline_core::{Result, SharedClock, SystemClock};
use trunkline_resilience::cache::{AnyCacheTier, CacheTier, Selector};
use trunkline_telemetry::Metrics;

pub(crate) use client::{ClientCache, EndpointCache};
pub use request::CallCache;
use store::{Cleared, Store};

/// How a call met the cache: in the extensions of an answer, see [`Response::cache_status`](crate::Response::cache_status).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheStatus {
    /// Answered from the cache.
    Hit,
    /// Answered from the cache past its time.
    Stale,
    /// It was kept, and the other side said that it still holds.
    Revalidated,
    /// The other side answered.
    Miss,
    /// Answered by what a call that was under way got.
    Shared,
}

/// What is cleared from a cache.
///
/// ```
/// use trunkline_http::Clear;
///
/// assert_eq!(Clear::from("product:123"), Clear::Key("product:123".to_owned()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clear {
    /// The answers under one key, whoever they are for: `product:123`, or `GET /products/123` where no key is
    /// configured.
    Key(String),
    /// The answers whose keys begin so.
    Prefix(String),
    /// The answers that have this tag.
    Tag(String),
    /// All answers of the service.
    All,
}

impl From<&str> for Clear {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<String> for Clear {
    fn from(key: String) -> Self {
        Self::Key(key)
    }
}

/// What a cache holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Keys under which something is kept.
    pub entries: usize,
    /// Bytes that they take, about.
    pub bytes: u64,
    /// Keys that made room for others.
    pub evictions: u64,
}

/// A memory for answers, bounded in bytes; several clients may share one. Each service has its own keys in it, and each
/// identity its own answers. Cloning copies a pointer.
///
/// ```
/// use trunkline_core::size::ByteSize;
/// use trunkline_http::{EnhancedHttpClient, ResponseCache};
///
/// let cache = ResponseCache::builder().max_size(ByteSize::mib(16)).build();
/// let client = EnhancedHttpClient::builder()
///     .base_url("https://api.example.com")
///     .cache(cache.clone())
///     .build()?;
/// assert_eq!(cache.stats().entries, 0);
/// # let _ = client;
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ResponseCache(Arc<Memory>);

pub(crate) struct Memory {
    store: Store,
    flights: flight::Flights,
    tier: Option<AnyCacheTier>,
    tier_timeout: Duration,
    max_entry: usize,
    clock: SharedClock,
    /// Keys that are being asked for in the background.
    renewing: Mutex<HashSet<Arc<str>>>,
    tasks: Scope,
}

impl fmt::Debug for ResponseCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseCache")
            .field("stats", &self.stats())
            .field("tier", &self.0.tier)
            .finish_non_exhaustive()
    }
}

impl Default for ResponseCache {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl ResponseCache {
    /// Starts setting one up.
    pub fn builder() -> ResponseCacheBuilder {
        ResponseCacheBuilder {
            max_size: ByteSize::mib(64),
            max_entry_size: ByteSize::mib(1),
            tier: None,
            tier_timeout: Duration::from_millis(100),
            clock: SystemClock::shared(),
            metrics: Metrics::disabled(),
        }
    }

    /// What it holds and has done.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            entries: self.0.store.len(),
            bytes: self.0.store.bytes(),
            evictions: self.0.store.evictions(),
        }
    }

    /// Clears answers of a service and says how many keys there were in this process. What is under way meanwhile is
    /// not kept.
    ///
    /// # Errors
    /// When the shared tier cannot be reached; this process has cleared its memory all the same.
    ///
    /// # Cancel safety
    /// Dropping it leaves open what the shared tier has cleared.
    pub async fn clear(&self, service: &str, what: impl Into<Clear>) -> Result<u64> {
        let service: Arc<str> = service.into();
        self.cleared(&service, Cleared::By(what.into())).await
    }

    async fn cleared(&self, service: &Arc<str>, what: Cleared) -> Result<u64> {
        let selector = selector(service, &what);
        let cleared = self.0.store.clear(service, what.clone());
        if let Some(tier) = &self.0.tier {
            tier.remove(&selector).await?;
            // What came back from there meanwhile.
            self.0.store.clear(service, what);
        }
        Ok(cleared)
    }

    fn now(&self) -> SystemTime {
        self.0.clock.now().into()
    }

    /// The right to ask for a key in the background; `None` while another does.
    fn renewing(&self, key: &Arc<str>) -> Option<Renewing> {
        let mut renewing = self
            .0
            .renewing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        renewing.insert(Arc::clone(key)).then(|| Renewing {
            memory: Arc::clone(&self.0),
            key: Arc::clone(key),
        })
    }
}

struct Renewing {
    memory: Arc<Memory>,
    key: Arc<str>,
}

impl Drop for Renewing {
    fn drop(&mut self) {
        let mut renewing = self
            .memory
            .renewing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        renewing.remove(&self.key);
    }
}

/// The words under which the shared tier clears an entry together with others.
fn shared_tags(about: &stored::About) -> Vec<String> {
    let stored::About {
        service,
        path,
        key,
        tags,
    } = about;
    let tags = tags.iter().map(|tag| format!("{service}\ntag\n{tag}"));
    let own = [
        format!("{service}\npath\n{path}"),
        format!("{service}\nkey\n{key}"),
    ];
    own.into_iter().chain(tags).collect()
}

fn selector(service: &str, what: &Cleared) -> Selector {
    match what {
        Cleared::Path(path) => Selector::Tag(format!("{service}\npath\n{path}")),
        Cleared::By(Clear::Key(key)) => Selector::Tag(format!("{service}\nkey\n{key}")),
        Cleared::By(Clear::Tag(tag)) => Selector::Tag(format!("{service}\ntag\n{tag}")),
        Cleared::By(Clear::Prefix(prefix)) => Selector::Prefix(format!("{service}\n{prefix}")),
        Cleared::By(Clear::All) => Selector::Prefix(format!("{service}\n")),
    }
}

/// Sets up a [`ResponseCache`].
#[derive(Debug)]
#[must_use = "call build()"]
pub struct ResponseCacheBuilder {
    max_size: ByteSize,
    max_entry_size: ByteSize,
    tier: Option<AnyCacheTier>,
    tier_timeout: Duration,
    clock: SharedClock,
    metrics: Metrics,
}

impl ResponseCacheBuilder {
    /// Bytes that all answers together take at most. Default 64 MiB.
    pub const fn max_size(mut self, size: ByteSize) -> Self {
        self.max_size = size;
        self
    }

    /// The largest body that is kept; a larger one passes. Default 1 MiB.
    pub const fn max_entry_size(mut self, size: ByteSize) -> Self {
        self.max_entry_size = size;
        self
    }

    /// A tier that other processes share. Default: none.
    pub fn tier(mut self, tier: impl CacheTier) -> Self {
        self.tier = Some(AnyCacheTier::new(tier));
        self
    }

    /// How long the shared tier is waited for; then the call goes on without it. Default 100 ms.
    pub const fn tier_timeout(mut self, timeout: Duration) -> Self {
        self.tier_timeout = timeout;
        self
    }

    /// Where the time comes from. Default: the machine's clock.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Where evictions and the size are measured; calls are measured by their clients. Default: nowhere.
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// Makes the cache, empty.
    #[must_use]
    pub fn build(self) -> ResponseCache {
        ResponseCache(Arc::new(Memory {
            store: Store::new(self.max_size.bytes(), self.metrics.cache_store()),
            flights: flight::Flights::default(),
            tier: self.tier,
            tier_timeout: self.tier_timeout,
            max_entry: self.max_entry_size.as_usize(),
            clock: self.clock,
            renewing: Mutex::default(),
            tasks: Scope::new(),
        }))
    }
}
