//! Bodies of requests and of answers.

mod ended;
mod length;
mod progress;
mod received;
mod replay;
mod uploading;

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::TryStreamExt;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use serde::Serialize;
use trunkline_core::size::ByteSize;
use trunkline_core::{BoxError, Error, ErrorKind, Result};

use crate::error::broken_body;
use crate::origin::Origin;

pub(crate) use ended::{End, Ended};
pub(crate) use length::WithLength;
pub use progress::Progress;
pub(crate) use received::{Received, Source};
pub(crate) use replay::Replay;
pub(crate) use uploading::Upload;

type Streamed = Pin<Box<dyn HttpBody<Data = Bytes, Error = Error> + Send>>;

/// The body of a request or of an answer: nothing, bytes, or a stream.
///
/// A body of bytes can be sent again ([`Body::try_clone`]); a stream passes once.
///
/// ```
/// use trunkline_http::Body;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let body = Body::json(&serde_json::json!({ "name": "Ada" }))?;
/// assert!(body.try_clone().is_some());
/// assert_eq!(body.bytes(1024).await?, r#"{"name":"Ada"}"#);
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Bytes(Bytes),
    Stream(Streamed),
    /// The body of an answer that has come already; its connection has gone back to the pool.
    Arrived(Incoming, Origin),
    Received(Box<Received>),
    Replay(Replay),
    Around(Box<dyn Around + Send + Unpin>),
}

/// A body that changes or watches another.
pub(crate) trait Around: HttpBody<Data = Bytes, Error = Error> {
    /// The one inside.
    fn inner(&mut self) -> &mut Body;
}

/// A body is larger than what may be read into memory. A typed cause of errors of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is larger than {}", ByteSize::new(*.limit))]
#[non_exhaustive]
pub struct BodyTooLarge {
    /// Bytes allowed.
    pub limit: u64,
}

impl Body {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A value as JSON.
    ///
    /// # Errors
    /// `Invalid` when the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        serde_json::to_vec(value).map(Self::from).map_err(|error| {
            Error::invalid("the body cannot be written as JSON").with_source(error)
        })
    }

    /// Any body of `http_body`, such as the one that a server received: it is passed on as it comes.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // One that has been one of ours all the time stays what it is.
        let mut body = Some(body);
        if let Some(own) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return own.take().unwrap_or_default();
        }
        let body = body.map(|body| body.map_err(stream_failed));
        Self(body.map_or(Kind::Empty, |body| Kind::Stream(Box::pin(body))))
    }

    /// A stream of pieces: sent as they come, without a length.
    pub fn stream<S, E>(pieces: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::new(StreamBody::new(pieces.map_ok(Frame::data)))
    }

    fn of_frames(body: impl HttpBody<Data = Bytes, Error = Error> + Send + 'static) -> Self {
        Self(Kind::Stream(Box::pin(body)))
    }

    pub(crate) fn around(body: impl Around + Send + Unpin + 'static) -> Self {
        Self(Kind::Around(Box::new(body)))
    }

    pub(crate) fn arrived(incoming: Incoming, origin: &Origin) -> Self {
        Self(Kind::Arrived(incoming, origin.clone()))
    }

    pub(crate) fn received(received: Received) -> Self {
        Self(Kind::Received(Box::new(received)))
    }

    /// The same body again, unless it is a stream, which passes once.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Kind::Empty => Some(Self::empty()),
            Kind::Bytes(bytes) => Some(Self(Kind::Bytes(bytes.clone()))),
            Kind::Replay(replay) => replay.again().map(|again| Self(Kind::Replay(again))),
            Kind::Stream(_) | Kind::Arrived(..) | Kind::Received(_) | Kind::Around(_) => None,
        }
    }

    /// Whether [`Body::try_clone`] would give a body.
    pub(crate) fn can_repeat(&self) -> bool {
        match &self.0 {
            Kind::Empty | Kind::Bytes(_) => true,
            Kind::Replay(replay) => replay.can_repeat(),
            Kind::Stream(_) | Kind::Arrived(..) | Kind::Received(_) | Kind::Around(_) => false,
        }
    }

    /// Whether it was to be repeated and too much has passed for that.
    pub(crate) fn is_spent(&self) -> bool {
        matches!(&self.0, Kind::Replay(replay) if !replay.can_repeat())
    }

    /// Lets nothing of it pass any more, where it can be sent again, until it is or [`Body::resume`] is called.
    pub(crate) fn pause(&self) {
        if let Kind::Replay(replay) = &self.0 {
            replay.pause();
        }
    }

    /// Goes on after [`Body::pause`].
    pub(crate) fn resume(&self) {
        if let Kind::Replay(replay) = &self.0 {
            replay.resume();
        }
    }

    /// Keeps a guard until the body has been read or dropped; drops it at once when there is nothing to read any more.
    pub(crate) fn hold(&mut self, guard: impl Send + 'static) {
        match &mut self.0 {
            Kind::Received(received) => received.hold(guard),
            Kind::Around(around) => around.inner().hold(guard),
            Kind::Empty
            | Kind::Bytes(_)
            | Kind::Stream(_)
            | Kind::Arrived(..)
            | Kind::Replay(_) => {}
        }
    }

    /// Whether the end of it is still to come from a connection, and so may not come.
    pub(crate) fn is_coming(&mut self) -> bool {
        match &mut self.0 {
            Kind::Received(received) => received.is_coming(),
            Kind::Around(around) => around.inner().is_coming(),
            _ => false,
        }
    }

    /// Tells how it ended, after those who have asked before; now, where it [is not coming](Self::is_coming).
    pub(crate) fn when_ended(&mut self, tell: impl FnOnce(&mut Ended) + Send + 'static) {
        match &mut self.0 {
            Kind::Received(received) if received.is_coming() => received.when_ended(Box::new(tell)),
            Kind::Around(around) => around.inner().when_ended(tell),
            _ => tell(&mut Ended {
                end: End::Whole,
                of_one_place: false,
            }),
        }
    }

    /// Tells how much of it has passed, whenever a piece of at most 64 KiB is handed to the connection. The body is a stream
    /// from then on: where an attempt is repeated, it is told from the start again only of what had been kept.
    #[must_use]
    pub fn with_progress(self, tell: impl FnMut(Progress) + Send + Unpin + 'static) -> Self {
        Self::of_frames(progress::Progressing::new(self, tell))
    }

    /// What is here already; nothing of a stream.
    pub(crate) fn here(&self) -> &[u8] {
        match &self.0 {
            Kind::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// Whether there is none.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self.0, Kind::Empty)
    }

    /// Whether all of it is in this process already, so that nothing of it can fail to come.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.0, Kind::Empty | Kind::Bytes(_) | Kind::Arrived(..))
    }

    /// Whether the body is a stream, which passes once.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(
            self.0,
            Kind::Stream(_)
                | Kind::Arrived(..)
                | Kind::Received(_)
                | Kind::Replay(_)
                | Kind::Around(_)
        )
    }

    /// A stream that keeps what passed, up to so many bytes: as long as no more has passed, [`Body::try_clone`] gives a
    /// body that can be sent again from the start. Nothing is held back for it, and of a stream that says itself that
    /// it is longer nothing is kept: it can be sent again only until it has begun. Once a second sending has begun, the
    /// one before fails. Other bodies stay what they are.
    #[must_use]
    pub fn replayable(self, up_to: usize) -> Self {
        match self.0 {
            Kind::Stream(_) | Kind::Arrived(..) | Kind::Received(_) | Kind::Around(_) => {
                let longer = self.size_hint().lower() > u64::try_from(up_to).unwrap_or(u64::MAX);
                Self(Kind::Replay(Replay::new(
                    self,
                    if longer { 0 } else { up_to },
                )))
            }
            _ => self,
        }
    }

    /// Reads the whole body, if it has no more than so many bytes.
    ///
    /// # Errors
    /// `Exhausted` with [`BodyTooLarge`] when it has more; else what reading it says: `Timeout`, `Unavailable`.
    ///
    /// # Cancel safety
    /// Dropping it gives up the body.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes> {
        let mut first = Bytes::new();
        let mut all: Option<BytesMut> = None;
        if self.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            return Err(too_large(limit));
        }
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            let read = all.as_ref().map_or(first.len(), BytesMut::len);
            if data.len() > limit - read {
                return Err(too_large(limit));
            }
            match &mut all {
                // Most answers come in one piece, which then is not copied.
                None if first.is_empty() => first = data,
                None => {
                    let mut both = BytesMut::with_capacity(first.len() + data.len());
                    both.extend_from_slice(&first);
                    both.extend_from_slice(&data);
                    all = Some(both);
                }
                Some(all) => all.extend_from_slice(&data),
            }
            if self.is_end_stream() {
                break;
            }
        }
        Ok(all.map_or(first, BytesMut::freeze))
    }

    /// The body as a stream of pieces; trailers are left out.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        self.into_data_stream()
    }
}

fn stream_failed(error: impl Into<BoxError>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(own) => *own,
        Err(foreign) => {
            Error::new(ErrorKind::Cancelled, "the stream of a body failed").with_source(foreign)
        }
    }
}

pub(crate) fn too_large(limit: usize) -> Error {
    let cause = BodyTooLarge {
        limit: limit.try_into().unwrap_or(u64::MAX),
    };
    Error::exhausted(cause.to_string()).with_source(cause)
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                let piece = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
                Poll::Ready(piece)
            }
            Kind::Stream(stream) => stream.as_mut().poll_frame(cx),
            Kind::Arrived(incoming, origin) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|read| read.map_err(|cause| broken_body(origin, cause))))
            }
            Kind::Received(received) => received.poll_frame(cx),
            Kind::Replay(replay) => replay.poll_frame(cx),
            Kind::Around(around) => Pin::new(around).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.is_end_stream(),
            Kind::Arrived(incoming, _) => incoming.is_end_stream(),
            Kind::Received(received) => received.is_end_stream(),
            Kind::Replay(replay) => replay.is_end_stream(),
            Kind::Around(around) => around.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Bytes(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Kind::Stream(stream) => stream.size_hint(),
            Kind::Arrived(incoming, _) => incoming.size_hint(),
            Kind::Received(received) => received.size_hint(),
            Kind::Replay(replay) => replay.size_hint(),
            Kind::Around(around) => around.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Empty => f.write_str("Body(empty)"),
            Kind::Bytes(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Stream(_)
            | Kind::Arrived(..)
            | Kind::Received(_)
            | Kind::Replay(_)
            | Kind::Around(_) => f.write_str("Body(stream)"),
        }
    }
}

macro_rules! from_bytes {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Body {
            fn from(bytes: $kind) -> Self {
                Self(Kind::Bytes(Bytes::from(bytes)))
            }
        }
    )*};
}

from_bytes!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}
