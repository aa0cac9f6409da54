//! A stream that may not have more than so many bytes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use trunkline_core::{Error, Result};

use crate::body::{Around, Body, too_large};

pub(crate) struct Limited {
    body: Body,
    limit: usize,
    left: usize,
    over: bool,
}

impl Limited {
    pub(crate) const fn new(body: Body, limit: usize) -> Self {
        Self {
            body,
            limit,
            left: limit,
            over: false,
        }
    }
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match self.left.checked_sub(length) {
                Some(left) => self.left = left,
                None => {
                    self.over = true;
                    // What is still to come is not waited for.
                    self.body = Body::empty();
                    return Poll::Ready(Some(Err(too_large(self.limit))));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Around for Limited {
    fn inner(&mut self) -> &mut Body {
        &mut self.body
    }
}
