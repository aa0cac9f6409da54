//! As many requests at once as can be served in time, the least important refused first.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::{BoxFuture, Context, Error};
use trunkline_resilience::concurrency::ConcurrencyLimiter;
use trunkline_resilience::timeout::TimeoutSettings;
use trunkline_resilience::{Outcome, Priority};

use crate::ProblemResponse;
use crate::problem::RETRIES_EXHAUSTED;

/// Where nothing is known yet of how long a request takes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Sheds load: handles as many requests at once as an adaptive limit finds, and answers further ones with 503 and
/// `Retry-After`. The priority that a request's context carries decides which are refused first.
///
/// It measures the time until the head of a response is ready. A 503 or 504 of the handler says that there were too many;
/// other 5xx say nothing, nor does a 503 or 504 with `X-Retries-Exhausted`, which is about somebody the handler asked, or one
/// to a request that brought too little time to begin with ([`LoadShedLayer::with_fair`]). Put it where [`InFlightLayer`](super::InFlightLayer) stands, inside
/// [`ContextLayer`](super::ContextLayer), on routes that take about the same time: streams and long polls would be taken
/// for overload.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_resilience::concurrency::{ConcurrencyLimiter, ConcurrencySettings};
/// use trunkline_server::layers::LoadShedLayer;
///
/// let limiter = ConcurrencyLimiter::new("orders", ConcurrencySettings::default());
/// let router: axum::Router = axum::Router::new().layer(LoadShedLayer::new(Arc::new(limiter)));
/// # let _ = router;
/// ```
#[derive(Clone, Debug)]
pub struct LoadShedLayer {
    limiter: Arc<ConcurrencyLimiter>,
    fair: Duration,
}

impl LoadShedLayer {
    /// Requests take their places from this limiter.
    #[must_use]
    pub fn new(limiter: Arc<ConcurrencyLimiter>) -> Self {
        Self {
            limiter,
            fair: TimeoutSettings::default().fair,
        }
    }

    /// A request that came with less time than this and was not served in it says nothing about the load: whoever asks
    /// could else lower the limit for everybody. Choose less than the time that every request is given here. Default
    /// `500ms`.
    #[must_use]
    pub const fn with_fair(mut self, fair: Duration) -> Self {
        self.fair = fair;
        self
    }
}

impl<S> Layer<S> for LoadShedLayer {
    type Service = LoadShedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LoadShedService {
            inner,
            limiter: Arc::clone(&self.limiter),
            fair: self.fair,
        }
    }
}

/// A service that sheds load.
#[derive(Clone, Debug)]
pub struct LoadShedService<S> {
    inner: S,
    limiter: Arc<ConcurrencyLimiter>,
    fair: Duration,
}

impl<S, B> Service<Request<B>> for LoadShedService<S>
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let context = request.extensions().get::<Context>();
        let priority = context.map_or(Priority::Normal, Priority::of);
        let permit = match self.limiter.try_acquire_owned(priority) {
            Ok(permit) => permit,
            Err(overloaded) => {
                let after = overloaded.retry_after.unwrap_or(RETRY_AFTER);
                let full = ProblemResponse::unavailable("more requests than can be served in time")
                    .with_retry_after(after)
                    .with_cause(Error::from(overloaded));
                return Box::pin(async { Ok(full.into_response()) });
            }
        };
        let left = context.and_then(Context::remaining);
        let is_fair = left.is_none_or(|left| left >= self.fair);
        let future = self.inner.call(request);
        Box::pin(async move {
            let result = future.await;
            permit.record(match &result {
                Ok(response) => outcome_of(response, is_fair),
                Err(_) => Outcome::Ignored,
            });
            result
        })
    }
}

fn outcome_of(response: &Response, is_fair: bool) -> Outcome {
    match response.status() {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            if !is_fair || response.headers().contains_key(RETRIES_EXHAUSTED) =>
        {
            Outcome::Ignored
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Outcome::Failure,
        // It may have come at once.
        status if status.is_server_error() => Outcome::Ignored,
        _ => Outcome::Success,
    }
}
