//! Which answers are kept, as configuration writes it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline_core::duration;

/// Which answers are kept, and for how long. Without `ttl` those that the answer itself gives a time (RFC 9111,
/// `Cache-Control: max-age`); with `ttl` every successful answer, for that long.
///
/// ```
/// use std::time::Duration;
/// use trunkline_resilience::PolicyConfig;
///
/// let mut policy = PolicyConfig::default();
/// policy.cache.ttl = Some(Duration::from_secs(300));
/// policy.cache.key = Some("product:{product_id}".to_owned());
/// assert!(policy.problems().is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CacheConfig {
    /// Whether answers are kept at all. Default true.
    #[doc(alias = "caching_enabled")]
    #[doc(alias = "cache_enabled")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// `private`: a cache of this process for its callers; `shared`: what RFC 9111 demands of a cache between users,
    /// so `private` answers are not kept and `s-maxage` counts. Default `private`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<CacheMode>,
    /// How long every successful answer is kept, whatever it says itself (but see `respect_no_store`). Default: none,
    /// the answer says so.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub ttl: Option<Duration>,
    /// Whether answers with an error status are kept, too, where there is a `ttl`; never 401, 403 and 429, and never the
    /// lack of an answer. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_on_error: Option<bool>,
    /// How long those are kept. Default: the `ttl`, but at most `10s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub error_ttl: Option<Duration>,
    /// The key of an answer that has a `ttl`, with parameters of path and query by name: `product:{product_id}`.
    /// Default: method, path and query.
    #[doc(alias = "key_func")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The only parameters of the query, by name, and headers, as `header:accept-language`, that make a difference
    /// where there is a `ttl`. Default: the whole query, and the headers that the answer names in `Vary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vary_on: Option<Vec<String>>,
    /// Words by which answers are cleared together, with parameters as in `key`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Whether answers are the same whoever asks: else each identity (`Authorization`, `Cookie`, the caller of the
    /// context) has its own, unless the answer says `public`. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Whether an answer that says `no-store` is not kept although there is a `ttl`. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respect_no_store: Option<bool>,
    /// How long an answer may be used past its time while a new one is fetched. Default: as the answer says.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub stale_while_revalidate: Option<Duration>,
    /// How long an answer may be used past its time when the call fails. Default: as the answer says.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub stale_if_error: Option<Duration>,
}

/// Whose cache it is, in the words of RFC 9111.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheMode {
    /// Of one user agent, which here is the process, with each identity apart.
    #[default]
    Private,
    /// Between users.
    Shared,
}

impl CacheMode {
    /// The word that configuration uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
        }
    }
}
