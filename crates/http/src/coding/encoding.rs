//! A body that is compressed piece by piece while it is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use http_body::{Body as HttpBody, Frame};
use trunkline_core::{Error, Result};

use super::codec::Encoder;
use crate::body::{Around, Body};

/// Bytes that are compressed before others get their turn.
const TURN: usize = 64 * 1024;

/// Bytes that are handed on at once.
const PIECE: usize = 16 * 1024;

pub(super) struct Encoding {
    body: Body,
    encoder: Encoder,
    /// Has come and is not compressed yet.
    input: Bytes,
    at: At,
    trailers: Option<Frame<Bytes>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Whatever has come has gone.
    Even,
    /// The encoder holds something back.
    Inside,
    Flushing,
    Finishing,
    End,
}

impl Encoding {
    pub(super) fn new(body: Body, encoder: Encoder) -> Self {
        Self {
            body,
            encoder,
            input: Bytes::new(),
            at: At::Even,
            trailers: None,
        }
    }

    /// Does what there is to do now, into one piece.
    fn work(&mut self) -> io::Result<Bytes> {
        let mut piece = BytesMut::zeroed(PIECE);
        let mut output = WriteBuffer::new_initialized(&mut piece);
        match self.at {
            At::Even | At::Inside => {
                let turn = self.input.slice(..self.input.len().min(TURN));
                let mut input = PartialBuffer::new(&*turn);
                self.encoder.encode(&mut input, &mut output)?;
                self.input.advance(input.written_len());
                self.at = At::Inside;
            }
            At::Flushing => {
                if self.encoder.flush(&mut output)? {
                    self.at = At::Even;
                }
            }
            At::Finishing => {
                if self.encoder.finish(&mut output)? {
                    self.at = At::End;
                }
            }
            At::End => {}
        }
        let made = output.written_len();
        piece.truncate(made);
        Ok(piece.freeze())
    }
}

impl HttpBody for Encoding {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        loop {
            let working = match this.at {
                At::Even | At::Inside => !this.input.is_empty(),
                At::Flushing | At::Finishing => true,
                At::End => return Poll::Ready(this.trailers.take().map(Ok)),
            };
            if working {
                match this.work() {
                    Ok(piece) if !piece.is_empty() => {
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    Ok(_) if this.input.is_empty() => continue,
                    Ok(_) => {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Err(error) => {
                        this.at = At::End;
                        let error =
                            Error::internal("the body cannot be compressed").with_source(error);
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.input = data,
                    Err(trailers) => this.trailers = Some(trailers),
                },
                Poll::Ready(Some(Err(error))) => {
                    this.at = At::End;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => this.at = At::Finishing,
                // Whoever sends a piece and waits for an answer to it must not wait for the encoder to be full.
                Poll::Pending if this.at == At::Inside => this.at = At::Flushing,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.at == At::End && self.trailers.is_none()
    }
}

impl Around for Encoding {
    fn inner(&mut self) -> &mut Body {
        &mut self.body
    }
}
