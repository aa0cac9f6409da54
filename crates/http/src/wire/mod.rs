//! What is spoken on a connection.

mod exchange;
mod h1;
mod h2;
mod head;
mod outward;

use std::task::Context;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

pub(crate) use exchange::Exchange;
pub(crate) use h1::{Driver, H1};
pub(crate) use h2::{H2, MOST_STREAMS};
pub(crate) use head::{Writing, head_within};
pub(crate) use outward::{Outward, back, outward};

use crate::connect::Meter;

/// The head of an answer, or why there is none; with the request, if not even its beginning was written.
pub(crate) type Answered = Result<Response<Incoming>, TrySendError<Request<Outward>>>;

/// A connection with an exchange on it.
pub(crate) trait Driven {
    /// What has moved on it.
    fn meter(&self) -> &Meter;

    /// Moves bytes. Returns whether there may be an answer now.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool;
}
