//! A body whose length is known although it comes in pieces.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// Says how much of a body is left. Hyper fails a request whose body turns out to be shorter or longer.
    pub(crate) struct WithLength<B> {
        #[pin]
        body: B,
        left: u64,
    }
}

impl<B> WithLength<B> {
    pub(crate) const fn new(body: B, length: u64) -> Self {
        Self { body, left: length }
    }
}

impl<B: HttpBody<Data = Bytes>> HttpBody for WithLength<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            *this.left = this
                .left
                .saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
