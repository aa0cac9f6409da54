//! So many requests in a span of time, for each client.

use std::fmt;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{Extensions, HeaderMap, Request, StatusCode};
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;
use trunkline_resilience::ratelimit::{RateLimitSettings, SharedRateLimiter, Verdict};

use crate::ProblemResponse;

type KeyOf = dyn Fn(&HeaderMap, &Extensions) -> Option<String> + Send + Sync;

/// Answers with 429 and `Retry-After` who sends more requests than a rate allows, counted by a key such as the client's
/// identity. Where the store of the counts cannot be asked, requests pass and a warning is logged.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use trunkline_resilience::ratelimit::{KeyedRateLimiter, RateLimitSettings};
/// use trunkline_server::layers::RateLimitLayer;
///
/// let counts = Arc::new(KeyedRateLimiter::new(10_000));
/// let layer = RateLimitLayer::new(counts, RateLimitSettings::new(600, Duration::from_secs(60)), |headers, _| {
///     let key = headers.get("x-api-key")?;
///     Some(key.to_str().ok()?.to_owned())
/// });
/// let router: axum::Router = axum::Router::new().layer(layer);
/// # let _ = router;
/// ```
#[derive(Clone)]
pub struct RateLimitLayer {
    limiter: Arc<dyn SharedRateLimiter>,
    settings: RateLimitSettings,
    key: Arc<KeyOf>,
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("limiter", &self.limiter)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl RateLimitLayer {
    /// Counts in this limiter, by what `key` says of a request; those without a key are not limited. Requests never wait:
    /// `max_wait` of the settings means nothing here.
    #[must_use]
    pub fn new(
        limiter: Arc<dyn SharedRateLimiter>,
        settings: RateLimitSettings,
        key: impl Fn(&HeaderMap, &Extensions) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            limiter,
            settings,
            key: Arc::new(key),
        }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind a rate limit.
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    layer: RateLimitLayer,
}

impl<S, B> Service<Request<B>> for RateLimitService<S>
where
    S: Service<Request<B>, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(key) = (self.layer.key)(request.headers(), request.extensions()) else {
            return Box::pin(self.inner.call(request));
        };
        let layer = self.layer.clone();
        // The one that is ready goes with the request, its clone stays.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            match layer.limiter.check(&key, layer.settings).await {
                Ok(Verdict::Refused { retry_after }) => return Ok(refused(retry_after)),
                Ok(Verdict::Granted { .. }) => {}
                Err(error) => {
                    let error = error.report();
                    tracing::warn!(target: "trunkline", %error, "rate limit not checked, the request passes");
                }
            }
            ready.call(request).await
        })
    }
}

fn refused(retry_after: Duration) -> Response {
    ProblemResponse::new(
        StatusCode::TOO_MANY_REQUESTS,
        "more requests than the rate limit allows",
    )
    .with_retry_after(retry_after)
    .into_response()
}
