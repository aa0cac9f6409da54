//! Payloads compressed above a size, and read with a bound on what they become.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline_core::names::message_header as header;
use trunkline_core::size::ByteSize;
use trunkline_core::{Error, Result};

use crate::message::Message;

/// Whether this build can compress: the feature `compression`.
pub const AVAILABLE: bool = cfg!(feature = "compression");

/// Compression of payloads. Needs the feature `compression`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CompressionConfig {
    /// What new messages are compressed by. Default `zstd`.
    pub algorithm: CompressionAlgorithm,
    /// Payloads of more bytes are compressed, where that makes them smaller. Default `4KiB`.
    pub above: ByteSize,
    /// Largest payload that comes of what is read; more is refused before it is there. Default `64MiB`.
    pub largest: ByteSize,
}

/// How payloads are compressed, as the header `content-encoding` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionAlgorithm {
    /// Zstandard: smaller and faster.
    #[default]
    Zstd,
    /// gzip: readable everywhere.
    Gzip,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self {
            algorithm: CompressionAlgorithm::default(),
            above: ByteSize::kib(4),
            largest: LARGEST,
        }
    }
}

/// What comes of what is read at most, where nothing is configured.
const LARGEST: ByteSize = ByteSize::mib(64);

impl CompressionConfig {
    /// Compresses new messages by this.
    #[must_use]
    pub fn with_algorithm(mut self, algorithm: CompressionAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Compresses payloads of more bytes.
    #[must_use]
    pub fn with_above(mut self, above: ByteSize) -> Self {
        self.above = above;
        self
    }

    /// Reads nothing that becomes larger.
    #[must_use]
    pub fn with_largest(mut self, largest: ByteSize) -> Self {
        self.largest = largest;
        self
    }
}

impl CompressionAlgorithm {
    /// As the header writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// That of a header; none for what is no compression of ours, such as the `utf-8` that some clients write there.
    fn read(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "zstd" => Some(Self::Zstd),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            _ => None,
        }
    }
}

/// A payload that cannot be decompressed: a cause of errors, and of dead letters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecompressionError {
    /// It becomes larger than is taken.
    #[error("it becomes larger than the {largest} that are taken")]
    TooLarge {
        /// The limit.
        largest: ByteSize,
    },
    /// It is not what its header says.
    #[error("it is no {encoding}: {why}")]
    Corrupt {
        /// What it should be.
        encoding: &'static str,
        /// What the decoder says.
        why: String,
    },
    /// This build cannot decompress.
    #[error("this build was made without the feature `compression`")]
    LeftOut,
}

impl From<DecompressionError> for Error {
    fn from(cause: DecompressionError) -> Self {
        Self::invalid("the payload cannot be decompressed").with_source(cause)
    }
}

/// How a message is compressed, if it is.
pub(crate) fn encoding(message: &Message) -> Option<CompressionAlgorithm> {
    let said = message.headers.get(header::CONTENT_ENCODING)?;
    CompressionAlgorithm::read(said)
}

/// Compresses a payload that is large enough, unless it is encoded somehow already or would not be smaller.
pub(crate) fn compress(config: &CompressionConfig, message: &mut Message) -> Result<()> {
    let is_small = message.payload.len() as u64 <= config.above.bytes();
    if is_small || message.headers.contains(header::CONTENT_ENCODING) {
        return Ok(());
    }
    let compressed = coded::compress(config.algorithm, &message.payload).map_err(|error| {
        Error::internal("the payload could not be compressed").with_source(error)
    })?;
    if compressed.len() < message.payload.len() {
        message.payload = compressed.into();
        let name = config.algorithm.as_str();
        message.headers.insert(header::CONTENT_ENCODING, name);
    }
    Ok(())
}

/// Gives a message the payload that it had before it was compressed.
pub(crate) fn decompress(config: Option<&CompressionConfig>, message: &mut Message) -> Result<()> {
    let Some(algorithm) = encoding(message) else {
        return Ok(());
    };
    let largest = config.map_or(LARGEST, |config| config.largest);
    message.payload = coded::decompress(algorithm, &message.payload, largest)?;
    message.headers.remove(header::CONTENT_ENCODING);
    Ok(())
}

#[cfg(feature = "compression")]
mod coded {
    use std::io::{self, Read, Write};

    use super::{ByteSize, Bytes, CompressionAlgorithm, DecompressionError};

    pub(super) fn compress(algorithm: CompressionAlgorithm, payload: &[u8]) -> io::Result<Vec<u8>> {
        match algorithm {
            CompressionAlgorithm::Zstd => zstd::stream::encode_all(payload, 0),
            CompressionAlgorithm::Gzip => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(payload)?;
                encoder.finish()
            }
        }
    }

    pub(super) fn decompress(
        algorithm: CompressionAlgorithm,
        payload: &[u8],
        largest: ByteSize,
    ) -> Result<Bytes, DecompressionError> {
        let corrupt = |error: io::Error| DecompressionError::Corrupt {
            encoding: algorithm.as_str(),
            why: error.to_string(),
        };
        let mut plain = Vec::new();
        // One byte more tells what is too large from what just fits.
        let bound = largest.bytes().saturating_add(1);
        match algorithm {
            CompressionAlgorithm::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(payload).map_err(corrupt)?;
                // What the decoder may hold: 128 MiB, whatever the payload asks for.
                decoder.window_log_max(27).map_err(corrupt)?;
                decoder.take(bound).read_to_end(&mut plain)
            }
            CompressionAlgorithm::Gzip => flate2::read::MultiGzDecoder::new(payload)
                .take(bound)
                .read_to_end(&mut plain),
        }
        .map_err(corrupt)?;
        if plain.len() as u64 > largest.bytes() {
            return Err(DecompressionError::TooLarge { largest });
        }
        Ok(plain.into())
    }
}

#[cfg(not(feature = "compression"))]
mod coded {
    use super::{ByteSize, Bytes, CompressionAlgorithm, DecompressionError};

    pub(super) fn compress(
        _: CompressionAlgorithm,
        _: &[u8],
    ) -> Result<Vec<u8>, DecompressionError> {
        Err(DecompressionError::LeftOut)
    }

    pub(super) fn decompress(
        _: CompressionAlgorithm,
        _: &[u8],
        _: ByteSize,
    ) -> Result<Bytes, DecompressionError> {
        Err(DecompressionError::LeftOut)
    }
}

#[cfg(all(test, feature = "compression"))]
mod tests {
    use super::*;

    fn config(algorithm: CompressionAlgorithm) -> CompressionConfig {
        let config = CompressionConfig::default().with_algorithm(algorithm);
        config.with_above(ByteSize::new(100))
    }

    #[test]
    fn what_is_compressed_comes_back() {
        for algorithm in [CompressionAlgorithm::Zstd, CompressionAlgorithm::Gzip] {
            let config = config(algorithm);
            let mut message = Message::new("a".repeat(10_000));
            compress(&config, &mut message).unwrap();
            assert!(message.payload.len() < 1_000);
            assert_eq!(encoding(&message), Some(algorithm));
            decompress(None, &mut message).unwrap();
            assert_eq!(message.payload, "a".repeat(10_000));
            assert!(message.headers.is_empty());
        }
    }

    #[test]
    fn what_is_small_or_does_not_shrink_is_left_alone() {
        let config = config(CompressionAlgorithm::Zstd);
        let random: Vec<u8> = (0..200).map(|_| fastrand::u8(..)).collect();
        for payload in [b"a".repeat(100), random] {
            let mut message = Message::new(payload.clone());
            compress(&config, &mut message).unwrap();
            assert_eq!(message.payload, payload);
            assert!(message.headers.is_empty());
        }
        // The `utf-8` of some clients is no compression.
        let mut message = Message::new("text").with_header("content-encoding", "utf-8");
        decompress(None, &mut message).unwrap();
        assert_eq!(message.payload, "text");
    }

    #[test]
    fn a_bomb_is_refused_and_so_is_what_is_broken() {
        for algorithm in [CompressionAlgorithm::Zstd, CompressionAlgorithm::Gzip] {
            let config = config(algorithm).with_largest(ByteSize::new(9_999));
            let mut bomb = Message::new("a".repeat(10_000));
            compress(&config, &mut bomb).unwrap();
            let error = decompress(Some(&config), &mut bomb.clone()).unwrap_err();
            let largest = config.largest;
            let expected = DecompressionError::TooLarge { largest };
            assert_eq!(error.find::<DecompressionError>(), Some(&expected));
            let mut cut = bomb.clone();
            cut.payload = bomb.payload.slice(..bomb.payload.len() - 3);
            let error = decompress(None, &mut cut).unwrap_err();
            assert!(error.report().to_string().contains(algorithm.as_str()));
            decompress(Some(&config.with_largest(ByteSize::new(10_000))), &mut bomb).unwrap();
        }
    }
}
