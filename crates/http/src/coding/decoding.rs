//! A body that is decompressed piece by piece, as fast as it is read.
//!
//! What a piece may become is bounded, however well it was compressed: who reads the body, or a limit of its size, decides
//! after each whether there is a next one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use http_body::{Body as HttpBody, Frame};
use trunkline_core::{Error, Origin, Result, Retry};

use super::ContentCoding;
use super::codec::Decoder;
use crate::body::{Around, Body};

/// Bytes that are decoded at once.
const PIECE: usize = 32 * 1024;

/// What is expected to become of a byte, for the size of a buffer.
const USUAL_RATIO: usize = 4;

const SMALLEST: usize = 1024;

pub(super) struct Decoding {
    body: Body,
    coding: ContentCoding,
    decoder: Decoder,
    /// Has come and is not decoded yet.
    input: Bytes,
    at: At,
    /// The last piece filled its buffer, so there may be more without further input.
    more: bool,
    trailers: Option<Frame<Bytes>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nothing has come. Some servers announce a coding and send no body.
    Start,
    Inside,
    /// The compressed data ended here; there may be another member or frame.
    Boundary,
    /// There is nothing more.
    End,
}

impl Decoding {
    pub(super) fn new(body: Body, coding: ContentCoding, decoder: Decoder) -> Self {
        Self {
            body,
            coding,
            decoder,
            input: Bytes::new(),
            at: At::Start,
            more: false,
            trailers: None,
        }
    }

    /// Decodes what fits into one piece.
    fn decode(&mut self) -> io::Result<Bytes> {
        if self.at == At::Boundary {
            if self.coding == ContentCoding::Br {
                return Err(io::Error::other("there is something behind the end"));
            }
            self.decoder.reinit()?;
        }
        let size = self.input.len().saturating_mul(USUAL_RATIO);
        let mut piece = BytesMut::zeroed(size.clamp(SMALLEST, PIECE));
        let mut output = WriteBuffer::new_initialized(&mut piece);
        let mut input = PartialBuffer::new(&*self.input);
        let ended = match self.decoder.decode(&mut input, &mut output) {
            Ok(ended) => ended,
            // It was only asked whether there is more; that there is not, some decoders call an error.
            Err(_) if self.input.is_empty() => false,
            Err(error) => return Err(error),
        };
        let (used, made) = (input.written_len(), output.written_len());
        let full = output.has_no_spare_space();
        if used == 0 && made == 0 && !ended && !self.input.is_empty() {
            return Err(io::Error::other("it leads nowhere"));
        }
        self.input.advance(used);
        self.at = if ended { At::Boundary } else { At::Inside };
        self.more = full && !ended;
        piece.truncate(made);
        Ok(piece.freeze())
    }

    fn wrong(&mut self, cause: impl Into<trunkline_core::BoxError>) -> Error {
        self.at = At::End;
        self.body = Body::empty();
        Error::invalid(format!(
            "the body is not what its content-encoding `{}` says",
            self.coding
        ))
        .with_origin(Origin::Remote)
        .with_retry(Retry::Never)
        .with_source(cause)
    }
}

impl HttpBody for Decoding {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        loop {
            if this.at == At::End {
                return Poll::Ready(this.trailers.take().map(Ok));
            }
            if this.more || !this.input.is_empty() {
                match this.decode() {
                    Ok(piece) if piece.is_empty() => continue,
                    Ok(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Err(error) => return Poll::Ready(Some(Err(this.wrong(error)))),
                }
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.input = data,
                    Err(trailers) => this.trailers = Some(trailers),
                },
                Some(Err(error)) => {
                    this.at = At::End;
                    return Poll::Ready(Some(Err(error)));
                }
                None if this.at == At::Inside => {
                    let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Some(Err(this.wrong(cut))));
                }
                None => this.at = At::End,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.at == At::End && self.trailers.is_none()
    }
}

impl Around for Decoding {
    fn inner(&mut self) -> &mut Body {
        &mut self.body
    }
}
