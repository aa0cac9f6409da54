//! A stream that can be sent again from the start, as long as it was short.
//!
//! Nothing is held back to find out: what passes is kept, up to a limit. A second sending begins with what was kept and
//! goes on with the rest of the stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use trunkline_core::Result;

use super::Body;

/// One sending of a stream that is kept.
pub(crate) struct Replay {
    shared: Arc<Mutex<Shared>>,
    /// What was kept before this sending began and has not passed in it.
    before: VecDeque<Bytes>,
    size: SizeHint,
}

struct Shared {
    rest: Body,
    kept: Vec<Bytes>,
    /// Bytes that may still be kept; `None` when more has passed.
    room: Option<usize>,
    /// Nothing more will come.
    ended: bool,
}

impl Replay {
    pub(super) fn new(stream: Body, up_to: usize) -> Self {
        let size = stream.size_hint();
        let shared = Shared {
            rest: stream,
            kept: Vec::new(),
            room: Some(up_to),
            ended: false,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            before: VecDeque::new(),
            size,
        }
    }

    /// Another sending from the start, if everything that passed has been kept. The sending before has to be given up:
    /// there is only one rest.
    pub(super) fn again(&self) -> Option<Self> {
        let shared = self.lock();
        shared.room?;
        Some(Self {
            before: shared.kept.iter().cloned().collect(),
            shared: Arc::clone(&self.shared),
            size: self.size,
        })
    }

    pub(super) fn can_repeat(&self) -> bool {
        self.lock().room.is_some()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        if let Some(piece) = self.before.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let mut shared = self.lock();
        if shared.ended {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut shared.rest).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => shared.keep(frame.data_ref()),
            // What broke once cannot be sent again.
            Some(Err(_)) => shared.forget(),
            None => shared.ended = true,
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.lock();
        self.before.is_empty() && (shared.ended || shared.rest.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.size
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Keeps a piece; trailers (no data) cannot be kept.
    fn keep(&mut self, data: Option<&Bytes>) {
        let fits = data.and_then(|data| self.room?.checked_sub(data.len()));
        match (data, fits) {
            (Some(data), Some(left)) => {
                self.room = Some(left);
                self.kept.push(data.clone());
            }
            _ => self.forget(),
        }
    }

    fn forget(&mut self) {
        self.room = None;
        self.kept = Vec::new();
    }
}
