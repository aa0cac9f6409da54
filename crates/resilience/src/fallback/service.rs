//! A fallback around a tower service.

use std::mem;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;

use super::{Fallback, FallbackSettings};
use crate::failure::{Classify, Standard};
use crate::stack::{Describe, Undescribed};
use crate::timeout::{Deadline, Elapsed, limited};

/// Answers in place of a service whose requests fail.
#[derive(Clone, Debug)]
pub struct FallbackLayer<F, C = Standard, D = Undescribed> {
    fallback: F,
    judge: C,
    describe: D,
    total: Duration,
    reserve: Duration,
}

impl<F> FallbackLayer<F> {
    /// Answers what the [`Standard`] rule takes for a failure or a refusal. A request and its fallback together have
    /// this much time, of which 250 ms (at most a quarter) are kept back for the fallback.
    #[must_use]
    pub const fn new(fallback: F, total: Duration) -> Self {
        Self {
            fallback,
            judge: Standard,
            describe: Undescribed,
            total,
            reserve: FallbackSettings::RESERVE,
        }
    }
}

impl<F, C, D> FallbackLayer<F, C, D> {
    /// Judges results by one's own rule.
    #[must_use]
    pub fn classify<J>(self, judge: J) -> FallbackLayer<F, J, D> {
        FallbackLayer {
            fallback: self.fallback,
            judge,
            describe: self.describe,
            total: self.total,
            reserve: self.reserve,
        }
    }

    /// Says of each request until when it has time.
    #[must_use]
    pub fn describe<N>(self, describe: N) -> FallbackLayer<F, C, N> {
        FallbackLayer {
            fallback: self.fallback,
            judge: self.judge,
            describe,
            total: self.total,
            reserve: self.reserve,
        }
    }

    /// Keeps back another part of the time for the fallback.
    #[must_use]
    pub const fn reserve(mut self, reserve: Duration) -> Self {
        self.reserve = reserve;
        self
    }
}

impl<S, F: Clone, C: Clone, D: Clone> Layer<S> for FallbackLayer<F, C, D> {
    type Service = FallbackService<S, F, C, D>;

    fn layer(&self, inner: S) -> Self::Service {
        FallbackService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service with a fallback.
#[derive(Clone, Debug)]
pub struct FallbackService<S, F, C = Standard, D = Undescribed> {
    inner: S,
    layer: FallbackLayer<F, C, D>,
}

impl<S, F, C, D, R> Service<R> for FallbackService<S, F, C, D>
where
    S: Service<R> + Clone + Send + 'static,
    S::Response: Send,
    S::Error: From<Elapsed> + Send,
    S::Future: Send,
    R: Clone + Send + 'static,
    F: Fallback<R, S::Response, S::Error> + Clone + Send + Sync + 'static,
    C: Classify<Result<S::Response, S::Error>> + Clone + Send + Sync + 'static,
    D: Describe<R> + Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let now = Instant::now();
            let call = layer.describe.call(&request);
            let total = call.total.unwrap_or(layer.total);
            let deadline = Deadline::of_call(now, total, call.deadline);
            let earlier = deadline.keeping(now, layer.reserve);
            let result = match limited(earlier.at, ready.call(request.clone())).await {
                Ok(result) if !layer.judge.wants_fallback(&result) => return result,
                Ok(result) => result,
                Err(_) => Err(Elapsed::new(earlier.limit, earlier.left(now)).into()),
            };
            let now = Instant::now();
            let answer = layer.fallback.answer(request, result, deadline);
            match limited(deadline.at, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(Elapsed::new(deadline.limit, deadline.left(now)).into()),
            }
        })
    }
}
