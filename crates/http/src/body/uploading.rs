//! Tells whether a request's body is still on its way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use trunkline_core::Result;

use super::Body;

/// Known as long as the body has not been sent or given up.
pub(crate) struct Upload(Arc<()>);

struct Uploading {
    body: Body,
    _upload: Arc<()>,
}

impl Upload {
    /// Watches a body; worth it for streams alone, others are written in one go.
    pub(crate) fn watch(body: Body) -> (Body, Self) {
        let upload = Arc::new(());
        let watched = Body::of_frames(Uploading {
            body,
            _upload: Arc::clone(&upload),
        });
        (watched, Self(upload))
    }

    pub(crate) fn is_under_way(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl HttpBody for Uploading {
    type Data = Bytes;
    type Error = trunkline_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
