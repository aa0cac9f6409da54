//! A whole policy around a tower service.

use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;

use crate::call::{Attempt, Call};
use crate::failure::{Classify, Standard};
use crate::fallback::{Fallback, NoFallback};
use crate::policy::{Policy, PolicyError};
use crate::retry::Attempts;

/// Says what a policy has to know about a request of type `R`. Any closure from a request to a [`Call`] will do.
pub trait Describe<R> {
    /// Until when, and whether it may be repeated.
    fn call(&self, request: &R) -> Call;

    /// Writes into the request what an attempt has to tell the next hop, such as the time it has left.
    fn attempt(&self, request: &mut R, attempt: Attempt) {
        let _ = (request, attempt);
    }
}

impl<R, F: Fn(&R) -> Call> Describe<R> for F {
    fn call(&self, request: &R) -> Call {
        self(request)
    }
}

/// Knows nothing about requests: no deadline of their own, none repeatable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undescribed;

impl<R> Describe<R> for Undescribed {
    fn call(&self, _: &R) -> Call {
        Call::default()
    }
}

/// Puts a whole [`Policy`] around a service: fallback, retry, breaker, bulkhead and attempt timeout, in this order from
/// outside to inside.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_resilience::{Call, EffectivePolicy, Policy, PolicyLayer};
///
/// #[derive(Clone)]
/// struct Get(u32);
/// let policy = Arc::new(Policy::new("users", EffectivePolicy::default()));
/// let layer = PolicyLayer::new(policy).describe(|_: &Get| Call::default().repeatable(true));
/// # let _ = layer;
/// ```
#[derive(Clone, Debug)]
pub struct PolicyLayer<C = Standard, D = Undescribed, F = NoFallback> {
    policy: Arc<Policy>,
    judge: C,
    describe: D,
    fallback: F,
}

impl PolicyLayer {
    /// Judges results by the [`Standard`] rule, takes no request for repeatable, and has no fallback.
    #[must_use]
    pub const fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            judge: Standard,
            describe: Undescribed,
            fallback: NoFallback,
        }
    }
}

impl<C, D, F> PolicyLayer<C, D, F> {
    /// Judges results by one's own rule.
    #[must_use]
    pub fn classify<J>(self, judge: J) -> PolicyLayer<J, D, F> {
        PolicyLayer {
            policy: self.policy,
            judge,
            describe: self.describe,
            fallback: self.fallback,
        }
    }

    /// Says of each request until when it has time and whether it may be repeated.
    #[must_use]
    pub fn describe<N>(self, describe: N) -> PolicyLayer<C, N, F> {
        PolicyLayer {
            policy: self.policy,
            judge: self.judge,
            describe,
            fallback: self.fallback,
        }
    }

    /// Answers when a request has failed for good.
    #[must_use]
    pub fn fallback<N>(self, fallback: N) -> PolicyLayer<C, D, N> {
        PolicyLayer {
            policy: self.policy,
            judge: self.judge,
            describe: self.describe,
            fallback,
        }
    }
}

impl<S, C: Clone, D: Clone, F: Clone> Layer<S> for PolicyLayer<C, D, F> {
    type Service = PolicyService<S, C, D, F>;

    fn layer(&self, inner: S) -> Self::Service {
        PolicyService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind a whole policy.
#[derive(Clone, Debug)]
pub struct PolicyService<S, C = Standard, D = Undescribed, F = NoFallback> {
    inner: S,
    layer: PolicyLayer<C, D, F>,
}

impl<S, C, D, F, R> Service<R> for PolicyService<S, C, D, F>
where
    S: Service<R> + Clone + Send + 'static,
    S::Response: Send,
    S::Error: PolicyError + Send,
    S::Future: Send,
    R: Clone + Send + 'static,
    C: Classify<Result<S::Response, S::Error>> + Clone + Send + Sync + 'static,
    D: Describe<R> + Clone + Send + Sync + 'static,
    F: Fallback<R, S::Response, S::Error> + Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let call = self.layer.describe.call(&request);
        let layer = self.layer.clone();
        let spare = layer.fallback.answers().then(|| request.clone());
        let mut attempts = Attempts::new(&mut self.inner, request);
        Box::pin(async move {
            let describe = layer.describe;
            let operation = |info| {
                let mut request = attempts.request();
                describe.attempt(&mut request, info);
                attempts.send(request)
            };
            let Some(request) = spare else {
                return layer.policy.run_with(call, &layer.judge, operation).await;
            };
            let fallback = |result, deadline| layer.fallback.answer(request, result, deadline);
            layer
                .policy
                .run_or(call, &layer.judge, operation, fallback)
                .await
        })
    }
}
