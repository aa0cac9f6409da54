//! What every policy promises as a tower service, checked of each of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt};
use trunkline_core::{Error, ErrorKind};

/// A service that sees whether it is used as tower demands.
pub(crate) struct Strict {
    shared: Arc<Shared>,
    ready: bool,
}

#[derive(Default)]
pub(crate) struct Shared {
    /// Calls of an instance that had not said that it was ready.
    violations: AtomicUsize,
    running: AtomicUsize,
    calls: AtomicUsize,
    /// What `poll_ready` says.
    gate: Mutex<Gate>,
}

#[derive(Clone, Copy, Default)]
enum Gate {
    #[default]
    Open,
    Shut,
    Broken,
}

/// What a request asks the service to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Answer,
    Fail,
    Hang,
    Panic,
}

impl Clone for Strict {
    /// A clone has to become ready by itself, as with every tower service that reserves something.
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            ready: false,
        }
    }
}

struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service<Ask> for Strict {
    type Response = ();
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match *self.shared.gate.lock().unwrap() {
            Gate::Open => {
                self.ready = true;
                Poll::Ready(Ok(()))
            }
            Gate::Shut => Poll::Pending,
            Gate::Broken => Poll::Ready(Err(Error::internal("broken"))),
        }
    }

    fn call(&mut self, ask: Ask) -> Self::Future {
        if !std::mem::take(&mut self.ready) {
            self.shared.violations.fetch_add(1, Ordering::SeqCst);
        }
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(&self.shared));
        Box::pin(async move {
            let _running = running;
            sleep(Duration::from_millis(1)).await;
            match ask {
                Ask::Answer => Ok(()),
                Ask::Fail => {
                    Err(Error::unavailable("down").with_retry(trunkline_core::Retry::Safe))
                }
                Ask::Hang => std::future::pending().await,
                Ask::Panic => panic!("on purpose"),
            }
        })
    }
}

fn strict() -> (Strict, Arc<Shared>) {
    let shared = Arc::<Shared>::default();
    (
        Strict {
            shared: Arc::clone(&shared),
            ready: false,
        },
        shared,
    )
}

/// Bounds for what the cases need of a service under test.
pub(crate) trait Policed:
    Service<Ask, Response = (), Error = Error, Future: Send> + Clone + Send + 'static
{
}

impl<S: Service<Ask, Response = (), Error = Error, Future: Send> + Clone + Send + 'static> Policed
    for S
{
}

pub(crate) async fn calls_only_what_is_ready<L>(layer: L)
where
    L: Layer<Strict, Service: Policed>,
{
    let (inner, shared) = strict();
    let mut service = layer.layer(inner);
    for ask in [Ask::Answer, Ask::Fail, Ask::Answer, Ask::Answer] {
        let answer = service.ready().await.unwrap().call(ask).await;
        assert_eq!(answer.is_ok(), matches!(ask, Ask::Answer), "{ask:?}");
        let clone = service.clone();
        assert!(clone.oneshot(Ask::Answer).await.is_ok());
    }
    assert!(shared.calls.load(Ordering::SeqCst) >= 8);
    assert_eq!(shared.violations.load(Ordering::SeqCst), 0);
}

pub(crate) async fn passes_readiness_on<L>(layer: L)
where
    L: Layer<Strict, Service: Policed>,
{
    let (inner, shared) = strict();
    let mut service = layer.layer(inner);
    *shared.gate.lock().unwrap() = Gate::Shut;
    assert!(service.ready().now_or_never().is_none());
    *shared.gate.lock().unwrap() = Gate::Broken;
    let broken = service.ready().await.map(|_| ()).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::Internal);
    *shared.gate.lock().unwrap() = Gate::Open;
    service
        .ready()
        .await
        .unwrap()
        .call(Ask::Answer)
        .await
        .unwrap();
}

pub(crate) async fn gives_back_what_a_cancelled_call_held<L>(layer: L)
where
    L: Layer<Strict, Service: Policed>,
{
    let (inner, shared) = strict();
    let mut service = layer.layer(inner);
    for pause in [0, 1, 5] {
        for _ in 0..20 {
            let call = service.ready().await.unwrap().call(Ask::Hang);
            let cut = tokio::time::timeout(Duration::from_millis(pause), call).await;
            assert!(cut.is_err());
            // Never polled at all.
            drop(service.ready().await.unwrap().call(Ask::Answer));
        }
        assert_eq!(shared.running.load(Ordering::SeqCst), 0);
        service
            .ready()
            .await
            .unwrap()
            .call(Ask::Answer)
            .await
            .unwrap();
    }
}

pub(crate) async fn gives_back_what_a_panicking_call_held<L>(layer: L)
where
    L: Layer<Strict, Service: Policed>,
{
    let (inner, shared) = strict();
    let mut service = layer.layer(inner);
    for _ in 0..20 {
        let call = service.ready().await.unwrap().call(Ask::Panic);
        let call = trunkline_core::task::spawn("panics", call);
        assert!(call.await.unwrap_err().is_panic());
        assert_eq!(shared.running.load(Ordering::SeqCst), 0);
    }
    service
        .ready()
        .await
        .unwrap()
        .call(Ask::Answer)
        .await
        .unwrap();
}

pub(crate) async fn serves_many_at_once<L>(layer: L)
where
    L: Layer<Strict, Service: Policed>,
{
    let (inner, shared) = strict();
    let service = layer.layer(inner);
    let calls =
        (0..100).map(|_| trunkline_core::task::spawn("call", service.clone().oneshot(Ask::Answer)));
    for call in futures_util::future::join_all(calls).await {
        call.unwrap().unwrap();
    }
    assert_eq!(shared.calls.load(Ordering::SeqCst), 100);
    assert_eq!(shared.running.load(Ordering::SeqCst), 0);
}

macro_rules! policy_conformance {
    ($name:ident, $layer:expr) => {
        mod $name {
            use super::*;

            #[tokio::test(start_paused = true)]
            async fn calls_only_what_is_ready() {
                super::calls_only_what_is_ready($layer).await;
            }

            #[tokio::test(start_paused = true)]
            async fn passes_readiness_on() {
                super::passes_readiness_on($layer).await;
            }

            #[tokio::test(start_paused = true)]
            async fn gives_back_what_a_cancelled_call_held() {
                super::gives_back_what_a_cancelled_call_held($layer).await;
            }

            #[tokio::test(start_paused = true)]
            async fn gives_back_what_a_panicking_call_held() {
                super::gives_back_what_a_panicking_call_held($layer).await;
            }

            #[tokio::test(start_paused = true)]
            async fn serves_many_at_once() {
                super::serves_many_at_once($layer).await;
            }
        }
    };
}

mod layer {
    use std::time::Duration;

    use super::{Arc, Ask};
    use trunkline_resilience::breaker::{Breaker, BreakerLayer, BreakerSettings};
    use trunkline_resilience::bulkhead::{Bulkhead, BulkheadLayer, BulkheadSettings};
    use trunkline_resilience::chaos::{Chaos, ChaosLayer, ChaosSettings};
    use trunkline_resilience::concurrency::{
        ConcurrencyLayer, ConcurrencyLimiter, ConcurrencySettings,
    };
    use trunkline_resilience::fallback::{Fallback, FallbackLayer};
    use trunkline_resilience::hedge::{Hedge, HedgeLayer, HedgeSettings};
    use trunkline_resilience::ratelimit::{RateLimitLayer, RateLimitSettings, RateLimiter};
    use trunkline_resilience::retry::{RetryLayer, RetrySettings};
    use trunkline_resilience::timeout::{Deadline, TimeoutLayer};
    use trunkline_resilience::{
        Call, EffectivePolicy, Layer, Policy, PolicyConfig, PolicyLayer, PolicyLayers,
    };

    pub(super) fn breaker() -> BreakerLayer {
        BreakerLayer::new(Arc::new(Breaker::new("x", BreakerSettings::default())))
    }

    /// Half-open with one probe at a time: what is not given back blocks everything.
    pub(super) fn half_open_breaker() -> BreakerLayer {
        let mut settings = BreakerSettings::default();
        settings.failure_threshold = 1;
        settings.recovery_timeout = Duration::ZERO;
        settings.success_threshold = u32::MAX;
        settings.probe_timeout = Duration::from_secs(3600);
        let breaker = Breaker::new("x", settings);
        breaker.try_acquire().unwrap().failure();
        BreakerLayer::new(Arc::new(breaker))
    }

    pub(super) fn bulkhead() -> BulkheadLayer {
        let mut settings = BulkheadSettings::default();
        settings.max_concurrent = 1;
        BulkheadLayer::new(Arc::new(Bulkhead::new(settings)))
    }

    /// Waits now and then, and never for long.
    pub(super) fn rate_limit() -> RateLimitLayer {
        let mut settings = RateLimitSettings::per_second(10_000);
        settings.burst = 1;
        RateLimitLayer::new(Arc::new(RateLimiter::new(settings)))
    }

    /// Room for those that run at once in the cases, and hardly more.
    pub(super) fn concurrency() -> ConcurrencyLayer {
        let mut settings = ConcurrencySettings::default();
        (settings.initial, settings.min) = (112, 112);
        ConcurrencyLayer::new(Arc::new(ConcurrencyLimiter::new("x", settings)))
    }

    /// Everything is a little late.
    pub(super) fn chaos() -> ChaosLayer {
        let mut settings = ChaosSettings::default();
        settings.latency_percent = 100.0;
        settings.latency = Duration::from_millis(1);
        ChaosLayer::new("x", Arc::new(Chaos::new(settings)))
    }

    pub(super) fn timeout() -> TimeoutLayer {
        TimeoutLayer::new(Duration::from_secs(10))
    }

    pub(super) fn retry() -> RetryLayer {
        RetryLayer::new(RetrySettings::default())
    }

    pub(super) fn hedge() -> HedgeLayer<
        trunkline_resilience::Standard,
        impl trunkline_resilience::Describe<Ask> + Clone + Send + Sync,
    > {
        let mut settings = HedgeSettings::default();
        settings.delay = Some(Duration::from_millis(1));
        HedgeLayer::new(Arc::new(Hedge::new(settings)))
            .describe(|_: &Ask| Call::default().hedge(true))
    }

    pub(super) fn fallback()
    -> FallbackLayer<impl Fallback<Ask, (), super::Error> + Clone + Send + Sync> {
        let answer =
            |_: Ask, result: Result<(), super::Error>, _: Deadline| std::future::ready(result);
        FallbackLayer::new(answer, Duration::from_secs(10))
    }

    pub(super) fn policy() -> PolicyLayer<
        trunkline_resilience::Standard,
        impl trunkline_resilience::Describe<Ask> + Clone + Send + Sync,
    > {
        let config: PolicyConfig = serde_json::from_value(serde_json::json!({
            "bulkhead": { "max_concurrent": 2, "max_queue": 100 },
            "rate_limit": { "limit": 10_000, "burst": 1 },
            "concurrency": { "algorithm": "gradient" },
            "chaos": { "enabled": true, "latency": { "percent": 10, "delay": "1ms" } }
        }))
        .unwrap();
        let layers = PolicyLayers::new().push(Layer::Service("s".into()), config, |_| None);
        let settings: EffectivePolicy = layers.resolve().unwrap().policy;
        let policy = Arc::new(Policy::new("x", settings));
        PolicyLayer::new(policy).describe(|_: &Ask| Call::default().repeatable(true))
    }
}

policy_conformance!(breaker, layer::breaker());
policy_conformance!(bulkhead, layer::bulkhead());
policy_conformance!(rate_limit, layer::rate_limit());
policy_conformance!(concurrency, layer::concurrency());
policy_conformance!(chaos, layer::chaos());
policy_conformance!(timeout, layer::timeout());
policy_conformance!(retry, layer::retry());
policy_conformance!(hedge, layer::hedge());
policy_conformance!(fallback, layer::fallback());
policy_conformance!(policy, layer::policy());

#[tokio::test(start_paused = true)]
async fn a_half_open_breaker_gets_the_place_of_every_probe_back() {
    gives_back_what_a_cancelled_call_held(layer::half_open_breaker()).await;
    gives_back_what_a_panicking_call_held(layer::half_open_breaker()).await;
}
