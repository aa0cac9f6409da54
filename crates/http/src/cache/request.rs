//! What one call asks of the cache.

use std::sync::Arc;
use std::time::Duration;

use crate::request::RequestBuilder;

/// What one call asks of the cache, over the settings of its endpoint: part of
/// [`CallOptions`](crate::CallOptions).
///
/// ```
/// use std::time::Duration;
/// use trunkline_http::{CallCache, CallOptions};
///
/// let cache = CallCache::default().with_ttl(Duration::from_secs(300)).with_key("product:123");
/// let options = CallOptions::default().with_cache(cache);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallCache {
    /// Asks the other side whatever is kept, and keeps the answer.
    pub force_refresh: bool,
    /// Neither looks nor keeps.
    pub bypass: bool,
    /// How long the answer is kept, as `cache.ttl`.
    pub ttl: Option<Duration>,
    /// Under which key, where the answer has a `ttl`.
    pub key: Option<Arc<str>>,
    /// Words by which it is cleared together with others, beside those of its endpoint.
    pub tags: Vec<String>,
    /// Asks whether what is kept still holds.
    pub(crate) renew: bool,
}

impl CallCache {
    /// Asks the other side whatever is kept, and keeps the answer.
    #[must_use]
    pub fn with_force_refresh(mut self, refresh: bool) -> Self {
        self.force_refresh = refresh;
        self
    }

    /// Neither looks nor keeps.
    #[must_use]
    pub fn with_bypass(mut self, bypass: bool) -> Self {
        self.bypass = bypass;
        self
    }

    /// Sets how long the answer is kept.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the key of the answer.
    #[doc(alias = "key_func")]
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a word by which it is cleared together with others.
    #[must_use]
    pub fn with_tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }
}

impl RequestBuilder<'_> {
    /// Asks the other side whatever the cache holds, and keeps the answer.
    pub fn force_refresh(self) -> Self {
        self.cache(|cache| cache.with_force_refresh(true))
    }

    /// Neither looks into the cache nor keeps the answer.
    pub fn no_cache(self) -> Self {
        self.cache(|cache| cache.with_bypass(true))
    }

    /// Keeps a successful answer for so long.
    #[doc(alias = "cached")]
    pub fn cache_ttl(self, ttl: Duration) -> Self {
        self.cache(|cache| cache.with_ttl(ttl))
    }

    /// Keeps the answer under this key, by which it can be cleared; only where it has a `ttl`. Each identity has its own
    /// answer under it.
    #[doc(alias = "key_func")]
    pub fn cache_key(self, key: impl Into<Arc<str>>) -> Self {
        self.cache(|cache| cache.with_key(key))
    }

    /// Clears the answer together with others of this tag.
    pub fn cache_tag(self, tag: impl Into<String>) -> Self {
        self.cache(|cache| cache.with_tag(tag))
    }

    fn cache(self, change: impl FnOnce(CallCache) -> CallCache) -> Self {
        self.option(|options| {
            let cache = options.cache.as_deref().cloned().unwrap_or_default();
            options.with_cache(change(cache))
        })
    }
}
