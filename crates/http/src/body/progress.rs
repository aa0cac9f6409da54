//! Tells how much of a body has passed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use trunkline_core::Result;

use super::Body;

/// Pieces of a body that comes as one are no longer, so that there is progress to tell.
const PIECE: usize = 64 * 1024;

/// How much of a body has been handed to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes so far.
    pub sent: u64,
    /// Bytes altogether, where that is known.
    pub total: Option<u64>,
}

pub(super) struct Progressing<F> {
    body: Body,
    /// Of a piece that was too long.
    rest: Bytes,
    progress: Progress,
    tell: F,
}

impl<F> Progressing<F> {
    pub(super) fn new(body: Body, tell: F) -> Self {
        let total = body.size_hint().exact();
        Self {
            body,
            rest: Bytes::new(),
            progress: Progress { sent: 0, total },
            tell,
        }
    }
}

impl<F: FnMut(Progress) + Send + Unpin> HttpBody for Progressing<F> {
    type Data = Bytes;
    type Error = trunkline_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        this.progress.sent = this.progress.sent.saturating_add(length);
        (this.tell)(this.progress);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
