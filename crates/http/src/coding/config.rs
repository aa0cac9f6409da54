//! Settings of compression.

use serde::{Deserialize, Serialize};
use trunkline_core::size::ByteSize;

/// How a body is compressed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ContentCoding {
    /// Understood by everybody.
    Gzip,
    /// Brotli: smaller than gzip, and slower to make.
    #[doc(alias = "brotli")]
    Br,
    /// Zstandard: as small as gzip or smaller, and the fastest.
    Zstd,
}

/// Which bodies are compressed on their way. Takes the feature `compression`.
///
/// ```
/// use trunkline_http::{CompressionConfig, ContentCoding};
///
/// let config = CompressionConfig::default()
///     .with_accept([ContentCoding::Zstd, ContentCoding::Gzip])
///     .with_request(ContentCoding::Gzip);
/// assert_eq!(config.min_size.bytes(), 1024);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CompressionConfig {
    /// Codings that answers may come in, best first: `gzip`, `br`, `zstd`. A request that has an `Accept-Encoding` or a
    /// `Range` of its own is answered as it asks, and its answer is not touched. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<ContentCoding>,
    /// Coding of the bodies of requests; the service has to understand it. Bodies that have a `Content-Encoding`, or whose
    /// type says that they are compressed already, are sent as they are. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<ContentCoding>,
    /// Bodies of requests that are smaller than this, in bytes, are sent as they are. Default `1KiB`.
    pub min_size: ByteSize,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self {
            accept: Vec::new(),
            request: None,
            min_size: ByteSize::kib(1),
        }
    }
}

impl CompressionConfig {
    /// Sets the codings that answers may come in, best first.
    #[must_use]
    pub fn with_accept(mut self, codings: impl IntoIterator<Item = ContentCoding>) -> Self {
        self.accept = codings.into_iter().collect();
        self
    }

    /// Sets the coding of the bodies of requests.
    #[must_use]
    pub const fn with_request(mut self, coding: ContentCoding) -> Self {
        self.request = Some(coding);
        self
    }

    /// The codings that are asked for and that this build does not have.
    pub fn missing(&self) -> impl Iterator<Item = ContentCoding> + '_ {
        let asked = self.accept.iter().copied().chain(self.request);
        asked.filter(|coding| !coding.is_built())
    }
}
