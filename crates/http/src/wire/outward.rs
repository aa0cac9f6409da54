//! The body of a request as a connection is given it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use trunkline_core::{Error, Result};

use crate::body::Body;

/// The body of a request on its way out: one word, and most have none. A request is moved a dozen times before it is written,
/// from one queue to the next, and each time as a whole.
#[derive(Debug)]
pub(crate) struct Outward(Option<Box<Body>>);

/// A request as a connection takes it.
pub(crate) fn outward(request: Request<Body>) -> Request<Outward> {
    request.map(|body| Outward((!body.is_nothing()).then(|| Box::new(body))))
}

/// One that a connection gives back.
pub(crate) fn back(request: Request<Outward>) -> Box<Request<Body>> {
    Box::new(request.map(|body| body.0.map_or_else(Body::empty, |body| *body)))
}

impl HttpBody for Outward {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some(body) => body.size_hint(),
        }
    }
}
