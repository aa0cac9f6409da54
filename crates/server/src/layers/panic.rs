//! A panic of a handler is a 500, not a dropped connection.

use std::task::{Context as TaskContext, Poll};

use axum::response::{IntoResponse, Response};
use http::Request;
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;
use trunkline_core::task::catch_panic;

use crate::ProblemResponse;

/// Answers 500 when the handler panics, and logs the panic's message.
#[derive(Clone, Copy, Debug, Default)]
pub struct CatchPanicLayer;

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanicService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CatchPanicService(inner)
    }
}

/// A service whose panics are answers.
#[derive(Clone, Debug)]
pub struct CatchPanicService<S>(S);

impl<S, B> Service<Request<B>> for CatchPanicService<S>
where
    S: Service<Request<B>, Response = Response> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is called; its clone takes its place.
        let spare = self.0.clone();
        let mut ready = std::mem::replace(&mut self.0, spare);
        Box::pin(async move {
            // Called within: `call` itself may panic too.
            match catch_panic(async move { ready.call(request).await }).await {
                Ok(result) => result,
                Err(panic) => Ok(ProblemResponse::from(panic).into_response()),
            }
        })
    }
}
