//! What hyper and h2 say, in our words. Here alone it is decided whether a request may have been processed.

use std::fmt;
use std::time::Duration;

use trunkline_core::{Error, ErrorKind, Origin as Side, Retry, duration};

use crate::body::BodyTooLarge;
use crate::origin::Origin;

/// The connection was lost before the answer began. A typed cause of errors of this crate.
#[derive(Debug)]
#[non_exhaustive]
pub struct NoAnswer {
    /// Whether the connection had carried a request before: then the other side has most likely closed it for being
    /// unused at the very moment in which it was used.
    pub reused: bool,
    /// Whether any byte of the request was written.
    pub sent: bool,
    /// Whether any byte of an answer came back.
    pub received: bool,
    cause: hyper::Error,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = if self.reused { "a reused" } else { "the" };
        let when = match (self.sent, self.received) {
            (false, _) => "before the request was written",
            (true, false) => "before the answer began",
            (true, true) => "while the answer began",
        };
        write!(f, "{which} connection ended {when}")
    }
}

impl std::error::Error for NoAnswer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// The other side was silent for too long. A typed cause of errors of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing came within {}", duration::format(*.limit))]
#[non_exhaustive]
pub struct Silence {
    /// The longest silence allowed.
    pub limit: Duration,
}

/// The head of the answer took too long once the request had been written. A typed cause of errors of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the head of the answer was not here within {}", duration::format(*.limit))]
#[non_exhaustive]
pub struct SlowHead {
    /// The limit, `timeout.first_byte`.
    pub limit: Duration,
}

/// What moved on a connection before it was lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    /// It had carried a request before.
    pub(crate) reused: bool,
    /// Bytes of this request were handed to the socket.
    pub(crate) sent: bool,
    /// Bytes came back.
    pub(crate) received: bool,
}

/// The error of a request on an HTTP/1.1 connection that was not answered.
pub(crate) fn no_answer(origin: &Origin, moved: Moved, error: hyper::Error) -> Error {
    if let Some(own) = own_body_failed(&error) {
        return own;
    }
    if error.is_parse() {
        return not_http(origin, error);
    }
    let retry = if moved.sent {
        Retry::IfIdempotent
    } else {
        Retry::Safe
    };
    lost(origin, retry).with_source(NoAnswer {
        reused: moved.reused,
        sent: moved.sent,
        received: moved.received,
        cause: error,
    })
}

/// The error of a request on an HTTP/2 stream that was not answered.
pub(crate) fn no_stream_answer(origin: &Origin, error: hyper::Error) -> Error {
    if let Some(own) = own_body_failed(&error) {
        return own;
    }
    if provably_unprocessed(&error) {
        return lost(origin, Retry::Safe).with_source(error);
    }
    lost(origin, Retry::IfIdempotent).with_source(error)
}

/// Whether the other side says itself that it did not process the request (RFC 9113, 8.7): it refused the stream, or
/// went away without having come to it.
fn provably_unprocessed(error: &hyper::Error) -> bool {
    let Some(cause) = find::<h2::Error>(error) else {
        return false;
    };
    let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
    cause.is_remote() && (refused || cause.is_go_away())
}

/// The body of an answer on an HTTP/1.1 connection or an HTTP/2 stream broke off.
pub(crate) fn broken_body(origin: &Origin, cause: hyper::Error) -> Error {
    Error::unavailable(format!("the answer of {} broke off", origin.authority()))
        .with_retry(Retry::IfIdempotent)
        .with_origin(Side::Remote)
        .with_source(cause)
}

/// The deadline passed while an answer, or the rest of it, was waited for.
pub(crate) fn late(origin: &Origin) -> Error {
    Error::timeout(format!(
        "{} took longer than the deadline allows",
        origin.authority()
    ))
    .with_retry(Retry::IfIdempotent)
}

/// The rest of an answer did not come.
pub(crate) fn silent(origin: &Origin, limit: Duration) -> Error {
    Error::timeout(format!(
        "{} fell silent in the middle of its answer",
        origin.authority()
    ))
    .with_retry(Retry::IfIdempotent)
    .with_source(Silence { limit })
}

/// The answer did not begin.
pub(crate) fn silent_before_answer(origin: &Origin, limit: Duration) -> Error {
    Error::timeout(format!("{} did not answer", origin.authority()))
        .with_retry(Retry::IfIdempotent)
        .with_source(Silence { limit })
}

/// The head of the answer took too long.
pub(crate) fn slow_head(origin: &Origin, limit: Duration) -> Error {
    Error::timeout(format!("{} did not answer in time", origin.authority()))
        .with_retry(Retry::IfIdempotent)
        .with_source(SlowHead { limit })
}

fn lost(origin: &Origin, retry: Retry) -> Error {
    Error::unavailable(format!("the connection to {} was lost", origin.authority()))
        .with_retry(retry)
}

fn not_http(origin: &Origin, cause: hyper::Error) -> Error {
    let text = format!(
        "the answer of {} cannot be read as HTTP",
        origin.authority()
    );
    Error::new(ErrorKind::Internal, text)
        .with_origin(Side::Remote)
        .with_retry(Retry::IfIdempotent)
        .with_source(cause)
}

/// The stream that was to be the request's body failed: that is nobody's fault but its own.
fn own_body_failed(error: &hyper::Error) -> Option<Error> {
    let own = find::<Error>(error)?;
    let copy = Error::new(own.kind(), own.message().to_owned()).with_retry(own.retry());
    Some(match own.find::<BodyTooLarge>() {
        Some(cause) => copy.with_source(*cause),
        None => copy.with_context("cause", own.report()),
    })
}

fn find<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<E>() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}
