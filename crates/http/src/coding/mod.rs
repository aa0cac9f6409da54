//! Bodies that are compressed on their way (content codings, RFC 9110, 8.4).

mod config;
mod limited;
mod settings;

#[cfg(feature = "compression")]
mod codec;
#[cfg(feature = "compression")]
mod decoding;
#[cfg(feature = "compression")]
mod encoding;

#[cfg(not(feature = "compression"))]
mod absent;
#[cfg(not(feature = "compression"))]
use absent as codec;

use std::fmt;

pub use config::{CompressionConfig, ContentCoding};
pub(crate) use limited::Limited;
pub(crate) use settings::{Codings, decode};

impl ContentCoding {
    /// Its name in headers and in configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }

    /// Whether this build has it, which takes the feature `compression`.
    #[must_use]
    pub const fn is_built(self) -> bool {
        codec::BUILT
    }

    fn parse(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("br") => Some(Self::Br),
            () if is("zstd") => Some(Self::Zstd),
            () => None,
        }
    }
}

impl fmt::Display for ContentCoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
