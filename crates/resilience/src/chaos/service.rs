//! Chaos around a tower service.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::sleep;
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;

use super::{Chaos, InjectedFault};
use crate::target::Target;

/// Puts chaos around a service. Services made by one layer share its dice. Every request counts as a first attempt, and as
/// marked where [`ChaosLayer::marked`] says so.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_resilience::chaos::{Chaos, ChaosLayer, ChaosSettings};
///
/// let mut settings = ChaosSettings::default();
/// settings.latency_percent = 10.0;
/// let layer = ChaosLayer::new("users", Arc::new(Chaos::new(settings)));
/// # let _ = layer;
/// ```
#[derive(Clone, Debug)]
pub struct ChaosLayer {
    chaos: Arc<Chaos>,
    target: Target,
    marked: bool,
}

impl ChaosLayer {
    /// Draws from this chaos, for calls of this target.
    #[must_use]
    pub fn new(target: impl Into<Target>, chaos: Arc<Chaos>) -> Self {
        Self {
            chaos,
            target: target.into(),
            marked: false,
        }
    }

    /// Takes every request for marked, or none.
    #[must_use]
    pub fn marked(mut self, marked: bool) -> Self {
        self.marked = marked;
        self
    }
}

impl<S> Layer<S> for ChaosLayer {
    type Service = ChaosService<S>;

    fn layer(&self, inner: S) -> ChaosService<S> {
        ChaosService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service to whose requests things happen.
#[derive(Clone, Debug)]
pub struct ChaosService<S> {
    inner: S,
    layer: ChaosLayer,
}

impl<S, R> Service<R> for ChaosService<S>
where
    S: Service<R> + Clone + Send + 'static,
    S::Response: Send,
    S::Error: From<InjectedFault> + Send,
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
        let layer = &self.layer;
        let plan = layer.chaos.draw(&layer.target, 1, layer.marked);
        // The one that is ready goes with the request, its clone stays.
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            if let Some(delay) = plan.delay {
                sleep(delay).await;
            }
            if let Some(fault) = plan.error {
                return Err(fault.into());
            }
            let answer = ready.call(request).await;
            match plan.abort {
                Some(fault) => Err(fault.into()),
                None => answer,
            }
        })
    }
}
