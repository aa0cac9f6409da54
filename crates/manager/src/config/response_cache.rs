//! The memory for answers of HTTP, and what processes share behind it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_core::Secret;
use trunkline_core::size::ByteSize;

/// The memory for answers that all HTTP clients of a manager share. What is kept in it is the matter of the policies
/// (`cache`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ResponseCacheConfig {
    /// Bytes that all answers together take at most. Default `64MiB`.
    pub max_size: ByteSize,
    /// The largest body that is kept; a larger one passes. Default `1MiB`.
    pub max_entry_size: ByteSize,
    /// A tier that processes share behind their memories, by its URL: `redis://cache:6379/1`. Calls go on without it while it
    /// cannot be reached. Never shown, as it may hold a password. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Secret<String>>,
    /// How long the shared tier is waited for; then the call goes on without it. Default `100ms`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub tier_timeout: Duration,
}

impl Default for ResponseCacheConfig {
    fn default() -> Self {
        Self {
            max_size: ByteSize::mib(64),
            max_entry_size: ByteSize::mib(1),
            tier: None,
            tier_timeout: Duration::from_millis(100),
        }
    }
}

impl ResponseCacheConfig {
    /// Sets the tier that processes share, by its URL.
    #[must_use]
    pub fn with_tier(mut self, url: impl Into<String>) -> Self {
        self.tier = Some(Secret::new(url.into()));
        self
    }
}
