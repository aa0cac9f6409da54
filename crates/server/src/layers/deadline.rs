//! Nobody works on what nobody waits for.

use std::task::{Context as TaskContext, Poll};

use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use tokio::time::timeout_at;
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::{BoxFuture, Context};

use crate::ProblemResponse;

/// Drops a handler when the deadline of the request's [`Context`] has passed, and answers 504. A body that is being
/// streamed is not cut off: the deadline is for the head of the response.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService(inner)
    }
}

/// A service that is dropped when nobody waits for it.
#[derive(Clone, Debug)]
pub struct DeadlineService<S>(S);

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>, Response = Response>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let context = request.extensions().get::<Context>().cloned();
        let context = context.or_else(Context::current);
        let Some(deadline) = context.as_ref().and_then(Context::deadline) else {
            return Box::pin(self.0.call(request));
        };
        if context.is_some_and(|context| context.is_expired()) {
            return Box::pin(async { Ok(late("the deadline had passed when the request came")) });
        }
        let handler = self.0.call(request);
        Box::pin(async move {
            match timeout_at(deadline, handler).await {
                Ok(result) => result,
                Err(_) => Ok(late("the deadline passed before the answer was ready")),
            }
        })
    }
}

fn late(detail: &str) -> Response {
    ProblemResponse::new(StatusCode::GATEWAY_TIMEOUT, detail).into_response()
}
