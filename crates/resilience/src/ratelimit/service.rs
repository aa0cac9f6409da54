//! A rate limit around a tower service.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;

use super::{RateLimited, RateLimiter};

/// Puts a rate limit around a service. Services made by one layer share its count.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_resilience::ratelimit::{RateLimitLayer, RateLimitSettings, RateLimiter};
///
/// let limiter = Arc::new(RateLimiter::new(RateLimitSettings::per_second(50)));
/// let layer = RateLimitLayer::new(limiter);
/// # let _ = layer;
/// ```
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    limiter: Arc<RateLimiter>,
}

impl RateLimitLayer {
    /// Requests take their turns from this limiter.
    #[must_use]
    pub const fn new(limiter: Arc<RateLimiter>) -> Self {
        Self { limiter }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> RateLimitService<S> {
        RateLimitService {
            inner,
            limiter: Arc::clone(&self.limiter),
        }
    }
}

/// A service behind a rate limit. A request waits for its turn in its own future, where the wait is bounded and can be
/// cancelled; the service itself is ready whenever the one within is.
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    limiter: Arc<RateLimiter>,
}

impl<S, R> Service<R> for RateLimitService<S>
where
    S: Service<R> + Clone + Send + 'static,
    S::Error: From<RateLimited>,
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
        let limiter = Arc::clone(&self.limiter);
        Box::pin(async move {
            limiter.acquire(None).await?;
            ready.call(request).await
        })
    }
}
