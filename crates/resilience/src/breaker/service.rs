//! The breaker around a tower service.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Breaker, CircuitOpen, OwnedPermit};
use crate::failure::{Classify, Standard};

/// Puts a breaker around a service. Services made by one layer share its circuit.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_resilience::breaker::{Breaker, BreakerLayer, BreakerSettings};
///
/// let breaker = Arc::new(Breaker::new("users", BreakerSettings::default()));
/// let layer = BreakerLayer::new(Arc::clone(&breaker));
/// # let _ = layer;
/// ```
#[derive(Clone, Debug)]
pub struct BreakerLayer<C = Standard> {
    breaker: Arc<Breaker>,
    judge: C,
}

impl BreakerLayer {
    /// Judges results by the [`Standard`] rule.
    #[must_use]
    pub const fn new(breaker: Arc<Breaker>) -> Self {
        Self {
            breaker,
            judge: Standard,
        }
    }
}

impl<C> BreakerLayer<C> {
    /// Judges results by one's own rule.
    #[must_use]
    pub fn classify<D>(self, judge: D) -> BreakerLayer<D> {
        BreakerLayer {
            breaker: self.breaker,
            judge,
        }
    }
}

impl<S, C: Clone> Layer<S> for BreakerLayer<C> {
    type Service = BreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        BreakerService {
            inner,
            breaker: Arc::clone(&self.breaker),
            judge: self.judge.clone(),
        }
    }
}

/// A service behind a breaker. Its errors must be able to say that the circuit is open: those of
/// `trunkline_core` and boxed ones can.
#[derive(Clone, Debug)]
pub struct BreakerService<S, C = Standard> {
    inner: S,
    breaker: Arc<Breaker>,
    judge: C,
}

impl<S, C, R> Service<R> for BreakerService<S, C>
where
    S: Service<R>,
    S::Error: From<CircuitOpen>,
    C: Classify<Result<S::Response, S::Error>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let admitted = match self.breaker.try_acquire_owned() {
            Ok(permit) => Admitted::Running {
                permit: Some(permit),
                judge: self.judge.clone(),
                future: self.inner.call(request),
            },
            Err(open) => Admitted::Refused { open: Some(open) },
        };
        ResponseFuture { admitted }
    }
}

pin_project! {
    /// The future of [`BreakerService`].
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
            // Before the permit: a probe's place is free again only when the call has ended.
            #[pin]
            future: F,
            permit: Option<OwnedPermit>,
            judge: C,
        },
        Refused {
            open: Option<CircuitOpen>,
        },
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    E: From<CircuitOpen>,
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
                    permit.record(judge.outcome(&result));
                }
                Poll::Ready(result)
            }
            AdmittedProjection::Refused { open } => {
                let open = open
                    .take()
                    .expect("a future is not polled after it is ready");
                Poll::Ready(Err(open.into()))
            }
        }
    }
}
