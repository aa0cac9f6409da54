//! What runs around handlers.
//!
//! Middleware sees every attempt of every message: it is inside retries, dead letters, dedup, the timeout and the
//! context, which the router does itself in the one order that is right, and outside decoding. The first one added is
//! the outermost.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use trunkline_core::{BoxFuture, Result};

use super::error::HandlerError;
use super::handler::{AnyHandler, Handled};
use super::incoming::Incoming;

/// Something that runs around handlers.
///
/// ```
/// use trunkline_messaging::{Handled, HandlerError, Incoming, Middleware, Next};
///
/// struct OnlyKeyed;
///
/// impl Middleware for OnlyKeyed {
///     async fn handle(&self, incoming: Incoming, next: Next<'_>) -> Result<Handled, HandlerError> {
///         if incoming.message().key.is_none() {
///             return Err(HandlerError::reject("a message without a key"));
///         }
///         next.run(incoming).await
///     }
/// }
/// ```
pub trait Middleware: Send + Sync + 'static {
    /// Handles a message, most often by letting the next one do it. Dropped when the attempt takes too long.
    fn handle(
        &self,
        incoming: Incoming,
        next: Next<'_>,
    ) -> impl Future<Output = Result<Handled, HandlerError>> + Send;
}

trait DynMiddleware: Send + Sync {
    fn handle_dyn<'a>(
        &'a self,
        incoming: Incoming,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Handled, HandlerError>>;
}

impl<M: Middleware> DynMiddleware for M {
    fn handle_dyn<'a>(
        &'a self,
        incoming: Incoming,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Handled, HandlerError>> {
        Box::pin(self.handle(incoming, next))
    }
}

/// Any middleware, behind one cheap handle.
#[derive(Clone)]
pub struct AnyMiddleware(Arc<dyn DynMiddleware>);

impl AnyMiddleware {
    /// Erases the type.
    #[must_use]
    pub fn new(middleware: impl Middleware) -> Self {
        Self(Arc::new(middleware))
    }
}

impl fmt::Debug for AnyMiddleware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyMiddleware")
    }
}

/// The rest of the way to the handler.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    pub(super) rest: &'a [AnyMiddleware],
    pub(super) handler: &'a AnyHandler,
}

impl<'a> Next<'a> {
    /// Goes on. A middleware that calls it twice runs the handler twice.
    ///
    /// # Errors
    /// What the handler, or a middleware on the way to it, says.
    ///
    /// # Cancel safety
    /// As safe as the handler.
    pub fn run(self, incoming: Incoming) -> BoxFuture<'a, Result<Handled, HandlerError>> {
        match self.rest.split_first() {
            Some((first, rest)) => {
                let handler = self.handler;
                first.0.handle_dyn(incoming, Next { rest, handler })
            }
            None => self.handler.handle(incoming),
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Next({} more)", self.rest.len())
    }
}
