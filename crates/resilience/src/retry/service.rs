//! Retry around a tower service, and alone.

use std::future::{Future, poll_fn};
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, sleep};
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;

use super::{Bounds, Next, Plan, RetryBudget, RetryExhausted, RetrySettings};
use crate::call::Call;
use crate::failure::{Classify, Standard};
use crate::stack::{Describe, Undescribed};
use crate::timeout::Deadline;

/// Repeats the requests of a service, or by [`RetryLayer::run`] anything else. Services made by one layer share its budget.
#[doc(alias = "retry_on_failure")]
#[derive(Clone, Debug)]
pub struct RetryLayer<C = Standard, D = Undescribed> {
    settings: Arc<RetrySettings>,
    budget: Option<Arc<RetryBudget>>,
    judge: C,
    describe: D,
}

impl RetryLayer {
    /// Repeats what the [`Standard`] rule allows. No request counts as repeatable until [`RetryLayer::describe`] says
    /// which ones are.
    #[must_use]
    pub fn new(settings: RetrySettings) -> Self {
        Self {
            budget: settings.budget.map(RetryBudget::new).map(Arc::new),
            settings: Arc::new(settings),
            judge: Standard,
            describe: Undescribed,
        }
    }
}

impl<C, D> RetryLayer<C, D> {
    /// Judges results by one's own rule.
    #[must_use]
    pub fn classify<J>(self, judge: J) -> RetryLayer<J, D> {
        RetryLayer {
            settings: self.settings,
            budget: self.budget,
            judge,
            describe: self.describe,
        }
    }

    /// Says of each request until when it has time and whether it may be repeated.
    #[must_use]
    pub fn describe<N>(self, describe: N) -> RetryLayer<C, N> {
        RetryLayer {
            settings: self.settings,
            budget: self.budget,
            judge: self.judge,
            describe,
        }
    }

    /// Pays from a budget that others share.
    #[must_use]
    pub fn budget(mut self, budget: Arc<RetryBudget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Runs an operation outside any service: it is called once for each attempt, with the number of the attempt.
    ///
    /// # Errors
    /// The operation's own error; after more than one attempt within [`RetryExhausted`].
    ///
    /// # Panics
    /// Outside a Tokio runtime with time enabled, when it has to wait.
    ///
    /// # Cancel safety
    /// Dropping it drops the attempt under way and gives back what was reserved.
    pub async fn run<T, E, F, Fut>(&self, call: Call, mut operation: F) -> Result<T, E>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<Result<T, E>>,
        E: From<RetryExhausted<E>>,
    {
        let began = call.began.unwrap_or_else(Instant::now);
        let budget = self.budget.as_deref();
        if let Some(budget) = budget {
            budget.deposit(began);
        }
        let end = call
            .total
            .map(|total| Deadline::of_call(began, total, call.deadline).at);
        let bounds = Bounds {
            repeatable: call.repeatable,
            attempts: call.max_attempts.unwrap_or(self.settings.attempts()),
            began,
            deadline: end.or(call.deadline),
            floor: std::time::Duration::ZERO,
        };
        let mut plan = Plan::new(&self.settings, budget, &self.judge, bounds);
        loop {
            let result = operation(plan.number()).await;
            if plan.is_over(&result) {
                return result;
            }
            match plan.after(result) {
                Next::Done(result, _) => return result,
                Next::Again(delay, reservation) => {
                    sleep(delay).await;
                    if let Some(reservation) = reservation {
                        reservation.commit(Instant::now());
                    }
                }
            }
        }
    }
}

impl<S, C: Clone, D: Clone> Layer<S> for RetryLayer<C, D> {
    type Service = RetryService<S, C, D>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose requests are repeated.
#[derive(Clone, Debug)]
pub struct RetryService<S, C = Standard, D = Undescribed> {
    inner: S,
    layer: RetryLayer<C, D>,
}

impl<S, C, D, R> Service<R> for RetryService<S, C, D>
where
    S: Service<R> + Clone + Send + 'static,
    S::Response: Send,
    S::Error: From<RetryExhausted<S::Error>> + Send,
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
            layer.run(call, operation).await
        })
    }
}

/// The attempts of one request: the first by the service that is ready, later ones by clones that have to become so.
pub(crate) struct Attempts<S, R> {
    ready: Option<S>,
    spare: S,
    request: R,
}

impl<S: Clone, R: Clone> Attempts<S, R> {
    /// Takes the service that is ready along and leaves its clone.
    pub(crate) fn new(inner: &mut S, request: R) -> Self {
        let spare = inner.clone();
        Self {
            ready: Some(mem::replace(inner, spare.clone())),
            spare,
            request,
        }
    }

    /// The request of the next attempt.
    pub(crate) fn request(&self) -> R {
        self.request.clone()
    }

    pub(crate) fn send(
        &mut self,
        request: R,
    ) -> impl Future<Output = Result<S::Response, S::Error>> + use<S, R>
    where
        S: Service<R>,
    {
        attempt(self.ready.take(), self.spare.clone(), request)
    }
}

/// One attempt, by the service that is ready or by a clone that has to become so.
async fn attempt<S, R>(ready: Option<S>, mut clone: S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    if let Some(mut service) = ready {
        return service.call(request).await;
    }
    poll_fn(|cx| clone.poll_ready(cx)).await?;
    clone.call(request).await
}
