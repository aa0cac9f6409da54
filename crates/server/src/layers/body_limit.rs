//! Bodies no larger than that.

use std::task::{Context as TaskContext, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use http::Request;
use http_body::Body as _;
use http_body_util::Limited;
use std::future::{Ready, ready};
use tower_layer::Layer;
use tower_service::Service;

use crate::extract::too_large;

/// Refuses bodies that say they are larger with 413, and stops reading those that only turn out to be.
///
/// It is the only limit: put it outside of axum's `DefaultBodyLimit::disable()`, whose 2 MB apply otherwise.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimitLayer(u64);

impl BodyLimitLayer {
    /// Sets the largest body, in bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl<S> Layer<S> for BodyLimitLayer {
    type Service = BodyLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BodyLimitService {
            inner,
            limit: self.0,
        }
    }
}

/// A service that reads bodies no larger than a limit.
#[derive(Clone, Debug)]
pub struct BodyLimitService<S> {
    inner: S,
    limit: u64,
}

impl<S> Service<Request<Body>> for BodyLimitService<S>
where
    S: Service<Request<Body>, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let hint = request.body().size_hint();
        if hint.lower() > self.limit {
            return Either::Right(ready(Ok(too_large().into_response())));
        }
        let known_to_fit = hint.upper().is_some_and(|most| most <= self.limit);
        let request = if known_to_fit {
            request
        } else {
            let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
            request.map(|body| Body::new(Limited::new(body, limit)))
        };
        Either::Left(self.inner.call(request))
    }
}
