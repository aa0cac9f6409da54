//! Functions and closures as handlers.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use trunkline_core::{BoxFuture, Result};

use super::error::HandlerError;
use super::extract::Extract;
use super::incoming::Incoming;
use crate::codec::{AnyCodec, Codec};

/// Something that handles messages: an `async fn`, or a closure `move |event| async move { … }`, with up to eight
/// arguments that can be taken from a message ([`Extract`]), in any order.
///
/// `P` is what the source knows of its payload; `Args` are the types of the arguments.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot handle messages of this source",
    note = "a handler is an `async fn`, or a closure `move |event| async move {{ … }}`; a capturing `async |event|` closure is not one",
    note = "its arguments are the payload, `Context`, `Headers`, `Message`, `Attempt` … in any order; the payload of a typed topic is the topic's type",
    note = "it returns `()` or `Result<(), E>`; as a responder `Result<Answer, E>`"
)]
pub trait Handler<P, Args>: Send + Sync + 'static {
    /// What it returns.
    type Output;
    /// What runs.
    type Future: Future<Output = Self::Output> + Send;

    /// Takes the arguments and begins.
    ///
    /// # Errors
    /// When an argument cannot be taken.
    fn call(&self, incoming: &Incoming) -> Result<Self::Future>;
}

macro_rules! handlers {
    ($($arg:ident $via:ident),*) => {
        impl<P, F, Fut, $($arg, $via),*> Handler<P, ($(($arg, $via),)*)> for F
        where
            F: Fn($($arg),*) -> Fut + Send + Sync + 'static,
            Fut: Future + Send,
            $($arg: Extract<P, $via>,)*
        {
            type Output = Fut::Output;
            type Future = Fut;

            fn call(&self, incoming: &Incoming) -> Result<Fut> {
                let _ = incoming;
                Ok(self($($arg::extract(incoming)?),*))
            }
        }
    };
}

handlers!();
handlers!(A1 V1);
handlers!(A1 V1, A2 V2);
handlers!(A1 V1, A2 V2, A3 V3);
handlers!(A1 V1, A2 V2, A3 V3, A4 V4);
handlers!(A1 V1, A2 V2, A3 V3, A4 V4, A5 V5);
handlers!(A1 V1, A2 V2, A3 V3, A4 V4, A5 V5, A6 V6);
handlers!(A1 V1, A2 V2, A3 V3, A4 V4, A5 V5, A6 V6, A7 V7);
handlers!(A1 V1, A2 V2, A3 V3, A4 V4, A5 V5, A6 V6, A7 V7, A8 V8);

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler must not return `{Self}`",
    note = "it returns `()`, or `Result<(), E>` where `E` is `HandlerError` or any error"
)]
pub trait IntoOutcome {
    /// The outcome.
    ///
    /// # Errors
    /// When the handler did not succeed.
    fn into_outcome(self) -> Result<(), HandlerError>;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl<E: Into<HandlerError>> IntoOutcome for Result<(), E> {
    fn into_outcome(self) -> Result<(), HandlerError> {
        self.map_err(Into::into)
    }
}

/// What a responder may return.
#[diagnostic::on_unimplemented(
    message = "a responder must not return `{Self}`",
    note = "it returns `Result<Answer, E>` where `Answer` is `serde::Serialize` and `E` is `HandlerError` or any error"
)]
pub trait IntoAnswer {
    /// The answer, written.
    ///
    /// # Errors
    /// When the responder did not succeed, or the answer cannot be written.
    fn into_answer(self, codec: AnyCodec) -> Result<Bytes, HandlerError>;
}

impl<T: Serialize, E: Into<HandlerError>> IntoAnswer for Result<T, E> {
    fn into_answer(self, codec: AnyCodec) -> Result<Bytes, HandlerError> {
        let answer = self.map_err(Into::into)?;
        codec.encode(&answer).map_err(HandlerError::dead_letter)
    }
}

/// A message was handled. Middleware passes it on.
#[derive(Clone, Debug, Default)]
pub struct Handled {
    pub(super) answer: Option<Answer>,
}

impl Handled {
    /// Handled without an answer, as middleware says that does not ask the handler.
    #[must_use]
    pub fn done() -> Self {
        Self::default()
    }
}

/// The answer of a responder, written.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) payload: Bytes,
    pub(super) codec: AnyCodec,
}

/// A handler whose types are forgotten.
pub(super) trait DynHandler: Send + Sync {
    fn handle(&self, incoming: Incoming) -> BoxFuture<'_, Result<Handled, HandlerError>>;
}

pub(super) type AnyHandler = Arc<dyn DynHandler>;

type Types<P, Args> = PhantomData<fn(P, Args)>;

struct Plain<H, P, Args>(H, Types<P, Args>);

impl<H, P, Args> DynHandler for Plain<H, P, Args>
where
    H: Handler<P, Args>,
    H::Output: IntoOutcome,
{
    fn handle(&self, incoming: Incoming) -> BoxFuture<'_, Result<Handled, HandlerError>> {
        Box::pin(async move {
            let work = self
                .0
                .call(&incoming)
                .map_err(|error| HandlerError::Undecodable { error })?;
            work.await.into_outcome().map(|()| Handled::done())
        })
    }
}

pub(super) fn erase<P, Args, H>(handler: H) -> AnyHandler
where
    P: 'static,
    Args: 'static,
    H: Handler<P, Args>,
    H::Output: IntoOutcome,
{
    Arc::new(Plain(handler, PhantomData))
}

struct Responder<H, P, Args>(H, Types<P, Args>);

impl<H, P, Args> DynHandler for Responder<H, P, Args>
where
    H: Handler<P, Args>,
    H::Output: IntoAnswer,
{
    fn handle(&self, incoming: Incoming) -> BoxFuture<'_, Result<Handled, HandlerError>> {
        Box::pin(async move {
            // Who asks in a format can read an answer in it.
            let codec =
                AnyCodec::of(incoming.message().content_type.as_deref()).unwrap_or_default();
            let work = self
                .0
                .call(&incoming)
                .map_err(|error| HandlerError::Undecodable { error })?;
            let payload = work.await.into_answer(codec)?;
            Ok(Handled {
                answer: Some(Answer { payload, codec }),
            })
        })
    }
}

pub(super) fn erase_responder<P, Args, H>(handler: H) -> AnyHandler
where
    P: 'static,
    Args: 'static,
    H: Handler<P, Args>,
    H::Output: IntoAnswer,
{
    Arc::new(Responder(handler, PhantomData))
}
