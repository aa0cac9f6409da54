//! The codecs, and what is set about them.

use compression_codecs::brotli::params::EncoderParams;
use compression_codecs::core::Level;
use compression_codecs::zstd::params::DParameter;
use compression_codecs::{
    BrotliDecoder, BrotliEncoder, DecodeV2, EncodeV2, GzipDecoder, GzipEncoder, ZstdDecoder,
    ZstdEncoder,
};

use super::ContentCoding;
use super::decoding::Decoding;
use super::encoding::Encoding;
use crate::body::Body;

pub(super) const BUILT: bool = true;

/// The window of zstd that a receiver has to accept and no more (RFC 9659): 8 MiB. The library would take 128 MiB for one
/// answer that asks for it.
const ZSTD_WINDOW: u32 = 23;

/// Of 11, the quality that costs about what gzip does.
const BROTLI_QUALITY: i32 = 4;

/// Zstandard's own usual level.
const ZSTD_LEVEL: i32 = 3;

pub(super) type Decoder = Box<dyn DecodeV2 + Send>;
pub(super) type Encoder = Box<dyn EncodeV2 + Send>;

/// The body as it was before it was compressed.
pub(super) fn decoded(body: Body, coding: ContentCoding) -> Body {
    Body::around(Decoding::new(body, coding, decoder(coding)))
}

/// The body, compressed.
pub(super) fn encoded(body: Body, coding: ContentCoding) -> Body {
    Body::around(Encoding::new(body, encoder(coding)))
}

fn decoder(coding: ContentCoding) -> Decoder {
    match coding {
        ContentCoding::Gzip => Box::new(GzipDecoder::new()),
        ContentCoding::Br => Box::new(BrotliDecoder::new()),
        ContentCoding::Zstd => {
            let window = DParameter::window_log_max(ZSTD_WINDOW);
            Box::new(ZstdDecoder::new_with_params(&[window]))
        }
    }
}

fn encoder(coding: ContentCoding) -> Encoder {
    match coding {
        ContentCoding::Gzip => Box::new(GzipEncoder::new(Level::Default.into())),
        ContentCoding::Br => {
            let params = EncoderParams::default().quality(Level::Precise(BROTLI_QUALITY));
            Box::new(BrotliEncoder::new(params))
        }
        ContentCoding::Zstd => Box::new(ZstdEncoder::new(ZSTD_LEVEL)),
    }
}
