//! An adaptive concurrency limit around a tower service.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{ConcurrencyLimiter, Overloaded, OwnedPermit, Priority};
use crate::failure::{Classify, Outcome, Standard};

/// Puts an adaptive concurrency limit around a service. Services made by one layer share it.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_resilience::Priority;
/// use trunkline_resilience::concurrency::{ConcurrencyLayer, ConcurrencyLimiter, ConcurrencySettings};
///
/// struct Get { nightly: bool }
/// let limiter = ConcurrencyLimiter::new("search", ConcurrencySettings::default());
/// let layer = ConcurrencyLayer::new(Arc::new(limiter))
///     .prioritize(|get: &Get| if get.nightly { Priority::Low } else { Priority::Normal });
/// # let _ = layer;
/// ```
#[derive(Clone, Debug)]
pub struct ConcurrencyLayer<C = Standard, P = AllNormal> {
    limiter: Arc<ConcurrencyLimiter>,
    judge: C,
    priority: P,
}

/// Every request matters the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllNormal;

/// Says how much a request matters. Any closure from a request to a [`Priority`] will do.
pub trait Prioritize<R> {
    /// How much it matters.
    fn priority(&self, request: &R) -> Priority;
}

impl<R> Prioritize<R> for AllNormal {
    fn priority(&self, _: &R) -> Priority {
        Priority::Normal
    }
}

impl<R, F: Fn(&R) -> Priority> Prioritize<R> for F {
    fn priority(&self, request: &R) -> Priority {
        self(request)
    }
}

impl ConcurrencyLayer {
    /// Judges results by the [`Standard`] rule, every request mattering the same.
    #[must_use]
    pub const fn new(limiter: Arc<ConcurrencyLimiter>) -> Self {
        Self {
            limiter,
            judge: Standard,
            priority: AllNormal,
        }
    }
}

impl<C, P> ConcurrencyLayer<C, P> {
    /// Judges results by one's own rule.
    #[must_use]
    pub fn classify<D>(self, judge: D) -> ConcurrencyLayer<D, P> {
        ConcurrencyLayer {
            limiter: self.limiter,
            judge,
            priority: self.priority,
        }
    }

    /// Says how much each request matters.
    #[must_use]
    pub fn prioritize<Q>(self, priority: Q) -> ConcurrencyLayer<C, Q> {
        ConcurrencyLayer {
            limiter: self.limiter,
            judge: self.judge,
            priority,
        }
    }
}

impl<S, C: Clone, P: Clone> Layer<S> for ConcurrencyLayer<C, P> {
    type Service = ConcurrencyService<S, C, P>;

    fn layer(&self, inner: S) -> Self::Service {
        ConcurrencyService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind an adaptive concurrency limit.
#[derive(Clone, Debug)]
pub struct ConcurrencyService<S, C = Standard, P = AllNormal> {
    inner: S,
    layer: ConcurrencyLayer<C, P>,
}

impl<S, C, P, R> Service<R> for ConcurrencyService<S, C, P>
where
    S: Service<R>,
    S::Error: From<Overloaded>,
    C: Classify<Result<S::Response, S::Error>> + Clone,
    P: Prioritize<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let priority = self.layer.priority.priority(&request);
        let admitted = match self.layer.limiter.try_acquire_owned(priority) {
            Ok(permit) => Admitted::Running {
                permit: Some(permit),
                judge: self.layer.judge.clone(),
                future: self.inner.call(request),
            },
            Err(overloaded) => Admitted::Refused {
                overloaded: Some(overloaded),
            },
        };
        ResponseFuture { admitted }
    }
}

pin_project! {
    /// The future of [`ConcurrencyService`].
    #[derive(Debug)]
    pub struct ResponseFuture<F, C> {
        #[pin]
        admitted: Admitted<F, C>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = AdmittedProjection]
    enum Admitted<F, C> {
        Running {
            // Before the permit: the place is free again only when the call has ended.
            #[pin]
            future: F,
            permit: Option<OwnedPermit>,
            judge: C,
        },
        Refused {
            overloaded: Option<Overloaded>,
        },
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    E: From<Overloaded>,
    C: Classify<Result<T, E>>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().admitted.project() {
            AdmittedProjection::Running {
                future,
                permit,
                judge,
            } => {
                let result = ready!(future.poll(cx));
                if let Some(permit) = permit.take() {
                    permit.record(outcome_of(judge, &result));
                }
                Poll::Ready(result)
            }
            AdmittedProjection::Refused { overloaded } => {
                let overloaded = overloaded
                    .take()
                    .expect("a future is not polled after it is ready");
                Poll::Ready(Err(overloaded.into()))
            }
        }
    }
}

/// What a result says about the number of calls.
pub(crate) fn outcome_of<R, C: Classify<R>>(judge: &C, result: &R) -> Outcome {
    match judge.outcome(result) {
        Outcome::Failure if judge.is_overload(result) => Outcome::Failure,
        // Any other failure may come at once and has seen no queue.
        Outcome::Failure | Outcome::Ignored => Outcome::Ignored,
        Outcome::Success => Outcome::Success,
    }
}
