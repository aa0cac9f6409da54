//! A timeout around a tower service.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::{Elapsed, Limit, Limited, later, limited};

/// Gives every request of a service the same time.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer {
    span: Duration,
}

impl TimeoutLayer {
    /// Each request may take this long.
    #[must_use]
    pub const fn new(span: Duration) -> Self {
        Self { span }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout {
            inner,
            span: self.span,
        }
    }
}

/// A service whose requests have a time limit. Waiting until the service is ready does not count.
#[derive(Clone, Debug)]
pub struct Timeout<S> {
    inner: S,
    span: Duration,
}

impl<S, R> Service<R> for Timeout<S>
where
    S: Service<R>,
    S::Error: From<Elapsed>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let began = Instant::now();
        ResponseFuture {
            limited: limited(later(began, self.span), self.inner.call(request)),
            span: self.span,
        }
    }
}

pin_project! {
    /// The future of [`Timeout`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        limited: Limited<F>,
        span: Duration,
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: From<Elapsed>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.limited.poll(cx).map(|ended| match ended {
            Ok(result) => result,
            Err(_) => Err(Elapsed::new(Limit::Attempt, *this.span).into()),
        })
    }
}
