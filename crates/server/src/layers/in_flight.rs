//! So many requests at once, and no queue.

use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;

use crate::ProblemResponse;

/// When a refused client may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The place that a request takes, among its extensions: who goes on with it when the client has left holds it on.
#[derive(Clone, Debug)]
pub(super) struct Place(Weak<OwnedSemaphorePermit>);

impl Place {
    pub(super) fn hold(&self) -> Option<Arc<OwnedSemaphorePermit>> {
        self.0.upgrade()
    }
}

/// Handles so many requests at once and answers further ones with 503 and `Retry-After`. A request counts until the
/// head of its response is ready, one with an idempotency key until it is done. All services made by one layer count
/// together.
#[derive(Clone, Debug)]
pub struct InFlightLayer(Arc<Semaphore>);

impl InFlightLayer {
    /// Sets how many.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self(Arc::new(Semaphore::new(most as usize)))
    }
}

impl<S> Layer<S> for InFlightLayer {
    type Service = InFlightService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InFlightService {
            inner,
            permits: Arc::clone(&self.0),
        }
    }
}

/// A service that handles so many requests at once.
#[derive(Clone, Debug)]
pub struct InFlightService<S> {
    inner: S,
    permits: Arc<Semaphore>,
}

impl<S, B> Service<Request<B>> for InFlightService<S>
where
    S: Service<Request<B>, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Box::pin(async {
                let full = ProblemResponse::unavailable("too many requests are under way here");
                Ok(full.with_retry_after(RETRY_AFTER).into_response())
            });
        };
        let permit = Arc::new(permit);
        let place = Place(Arc::downgrade(&permit));
        request.extensions_mut().insert(place);
        let future = self.inner.call(request);
        Box::pin(async move {
            let result = future.await;
            drop(permit);
            result
        })
    }
}
