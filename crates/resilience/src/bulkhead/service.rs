//! A bulkhead around a tower service.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;

use super::{Bulkhead, BulkheadFull};

/// Puts a bulkhead around a service. Services made by one layer share its places.
#[derive(Clone, Debug)]
pub struct BulkheadLayer {
    bulkhead: Arc<Bulkhead>,
}

impl BulkheadLayer {
    /// Requests take their places from this bulkhead.
    #[must_use]
    pub const fn new(bulkhead: Arc<Bulkhead>) -> Self {
        Self { bulkhead }
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = BulkheadService<S>;

    fn layer(&self, inner: S) -> BulkheadService<S> {
        BulkheadService {
            inner,
            bulkhead: Arc::clone(&self.bulkhead),
        }
    }
}

/// A service behind a bulkhead. A request waits for its place in its own future, where the wait is bounded and can be
/// cancelled; the service itself is ready whenever the one within is.
#[derive(Clone, Debug)]
pub struct BulkheadService<S> {
    inner: S,
    bulkhead: Arc<Bulkhead>,
}

impl<S, R> Service<R> for BulkheadService<S>
where
    S: Service<R> + Clone + Send + 'static,
    S::Error: From<BulkheadFull>,
    S::Future: Send,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // The one that is ready goes with the request, its clone stays.
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        let bulkhead = Arc::clone(&self.bulkhead);
        Box::pin(async move {
            let _place = bulkhead.acquire_owned(None).await?;
            ready.call(request).await
        })
    }
}
