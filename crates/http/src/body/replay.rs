//! A stream that can be sent again from the start, as long as it was short.
//!
//! Nothing is held back to find out: what passes is kept, up to a limit. A second sending begins with what was kept and
//! goes on with the rest of the stream. The sending before may still be under way, on a connection whose answer came
//! early: there is only one rest, so from then on it fails.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use trunkline_core::{Error, Result};

use super::Body;

/// One sending of a stream that is kept.
pub(crate) struct Replay {
    shared: Arc<Mutex<Shared>>,
    /// `None` until it is asked for its first piece.
    sending: Option<Sending>,
    size: SizeHint,
}

struct Sending {
    number: u64,
    /// What was kept before this sending began and has not passed in it.
    before: VecDeque<Bytes>,
}

struct Shared {
    rest: Body,
    kept: Vec<Bytes>,
    /// Bytes that may still be kept; `None` when more has passed.
    room: Option<usize>,
    /// Nothing more will come.
    ended: bool,
    /// Sendings that have begun; the last of them has the rest.
    begun: u64,
    /// Whoever sends it may be about to begin anew, and until that is known nothing passes.
    paused: bool,
    /// Waits for the next piece.
    waiting: Option<Waker>,
}

impl Replay {
    pub(super) fn new(stream: Body, up_to: usize) -> Self {
        let size = stream.size_hint();
        let shared = Shared {
            rest: stream,
            kept: Vec::new(),
            room: Some(up_to),
            ended: false,
            begun: 0,
            paused: false,
            waiting: None,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            sending: None,
            size,
        }
    }

    /// Another sending from the start, if everything that passed has been kept. When it begins, the one before fails.
    pub(super) fn again(&self) -> Option<Self> {
        self.can_repeat().then(|| Self {
            shared: Arc::clone(&self.shared),
            sending: None,
            size: self.size,
        })
    }

    pub(super) fn can_repeat(&self) -> bool {
        self.lock().room.is_some()
    }

    /// Lets nothing pass until another sending begins or [`Replay::resume`] is called.
    pub(super) fn pause(&self) {
        self.lock().paused = true;
    }

    pub(super) fn resume(&self) {
        let mut shared = self.lock();
        shared.paused = false;
        shared.wake();
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if self.sending.is_none() {
            self.sending = shared.begin();
        }
        let Some(sending) = &mut self.sending else {
            let error = Error::internal("the body has passed and cannot be sent again");
            return Poll::Ready(Some(Err(error)));
        };
        if sending.number != shared.begun {
            let error = Error::cancelled("the body is sent again on another connection");
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(piece) = sending.before.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        let polled = if shared.paused {
            Poll::Pending
        } else {
            Pin::new(&mut shared.rest).poll_frame(cx)
        };
        match &polled {
            Poll::Pending => shared.waiting = Some(cx.waker().clone()),
            Poll::Ready(Some(Ok(frame))) => shared.keep(frame.data_ref()),
            // What broke once cannot be sent again.
            Poll::Ready(Some(Err(_))) => shared.forget(),
            Poll::Ready(None) => shared.ended = true,
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.lock();
        let passed = match &self.sending {
            None => shared.begun == 0,
            Some(sending) => sending.number == shared.begun && sending.before.is_empty(),
        };
        passed && (shared.ended || shared.rest.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.size
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Begins a sending, and with that ends the one before, which may wait for a piece: it has to hear of it.
    fn begin(&mut self) -> Option<Sending> {
        self.room?;
        self.begun += 1;
        self.paused = false;
        self.wake();
        Some(Sending {
            number: self.begun,
            before: self.kept.iter().cloned().collect(),
        })
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

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
