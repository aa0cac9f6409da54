//! Hedging around a tower service.

use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;

use super::Hedge;
use crate::failure::{Classify, Standard};
use crate::retry::Attempts;
use crate::stack::{Describe, Undescribed};

/// Hedges the requests of a service. Services made by one layer share its estimate and its budget.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_resilience::Call;
/// use trunkline_resilience::hedge::{Hedge, HedgeLayer, HedgeSettings};
///
/// #[derive(Clone)]
/// struct Get(u32);
/// let hedge = Arc::new(Hedge::new(HedgeSettings::default()));
/// let layer = HedgeLayer::new(hedge).describe(|_: &Get| Call::default().hedge(true));
/// # let _ = layer;
/// ```
#[derive(Clone, Debug)]
pub struct HedgeLayer<C = Standard, D = Undescribed> {
    hedge: Arc<Hedge>,
    judge: C,
    describe: D,
}

impl HedgeLayer {
    /// Takes what the [`Standard`] rule counts as a success for a good answer. No request is hedged until
    /// [`HedgeLayer::describe`] says which ones may be.
    #[must_use]
    pub const fn new(hedge: Arc<Hedge>) -> Self {
        Self {
            hedge,
            judge: Standard,
            describe: Undescribed,
        }
    }
}

impl<C, D> HedgeLayer<C, D> {
    /// Judges results by one's own rule.
    #[must_use]
    pub fn classify<J>(self, judge: J) -> HedgeLayer<J, D> {
        HedgeLayer {
            hedge: self.hedge,
            judge,
            describe: self.describe,
        }
    }

    /// Says of each request whether it may be hedged.
    #[must_use]
    pub fn describe<N>(self, describe: N) -> HedgeLayer<C, N> {
        HedgeLayer {
            hedge: self.hedge,
            judge: self.judge,
            describe,
        }
    }
}

impl<S, C: Clone, D: Clone> Layer<S> for HedgeLayer<C, D> {
    type Service = HedgeService<S, C, D>;

    fn layer(&self, inner: S) -> Self::Service {
        HedgeService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose requests are hedged.
#[derive(Clone, Debug)]
pub struct HedgeService<S, C = Standard, D = Undescribed> {
    inner: S,
    layer: HedgeLayer<C, D>,
}

impl<S, C, D, R> Service<R> for HedgeService<S, C, D>
where
    S: Service<R> + Clone + Send + 'static,
    S::Response: Send,
    S::Error: Send,
    S::Future: Send,
    R: Clone + Send + 'static,
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
        let call = self.layer.describe.call(&request);
        let mut attempts = Attempts::new(&mut self.inner, request);
        let layer = self.layer.clone();
        Box::pin(async move {
            let operation = |_| {
                let request = attempts.request();
                attempts.send(request)
            };
            layer.hedge.run_with(call, &layer.judge, operation).await
        })
    }
}
