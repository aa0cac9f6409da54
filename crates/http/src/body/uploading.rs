//! Tells whether a request's body is still on its way.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use trunkline_core::Result;

use super::Body;

/// Known as long as the body has not been sent or given up.
#[derive(Clone)]
pub(crate) struct Upload(Weak<()>, Arc<AtomicBool>);

struct Uploading {
    body: Body,
    _under_way: Arc<()>,
    failed: Arc<AtomicBool>,
}

impl Upload {
    /// Watches a body; worth it for streams alone, others are written in one go.
    pub(crate) fn watch(body: Body) -> (Body, Self) {
        let (under_way, failed) = (Arc::new(()), Arc::new(AtomicBool::new(false)));
        let upload = Self(Arc::downgrade(&under_way), Arc::clone(&failed));
        let watched = Body::of_frames(Uploading {
            body,
            _under_way: under_way,
            failed,
        });
        (watched, upload)
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Whether it came to nothing for a reason of its own.
    pub(crate) fn has_failed(&self) -> bool {
        self.1.load(Ordering::Acquire)
    }
}

impl HttpBody for Uploading {
    type Data = Bytes;
    type Error = trunkline_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.failed.store(true, Ordering::Release);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
