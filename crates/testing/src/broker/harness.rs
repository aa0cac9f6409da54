//! How a case gets its broker, and what is checked after every case.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::BoxFuture;
use trunkline_messaging::{AnyBroker, MessageBroker};

use crate::Scope;
use crate::live::{self, Missing};

/// How long tasks of a broker may take to end after `disconnect`; a transaction of Kafka that is given up takes ten seconds.
const GRACE: Duration = Duration::from_secs(20);

/// Opens the broker under test.
pub trait BrokerHarness: Send + Sync + 'static {
    /// A broker that is **not** connected yet; `None` when it needs a server that is not configured here. Handles opened
    /// with the same scope reach the same messages where the broker is `shared` or `durable`.
    fn open(&self, scope: &Scope) -> impl Future<Output = Option<AnyBroker>> + Send;

    /// The same, but with room for so many messages only. `None` when the broker cannot be limited.
    fn open_limited(
        &self,
        scope: &Scope,
        max_messages: usize,
    ) -> impl Future<Output = Option<AnyBroker>> + Send {
        let _ = (scope, max_messages);
        async { None }
    }

    /// The same, but with room for so many bytes only, and no message larger than that. `None` when the broker cannot be
    /// limited.
    fn open_limited_bytes(
        &self,
        scope: &Scope,
        max_bytes: usize,
    ) -> impl Future<Output = Option<AnyBroker>> + Send {
        let _ = (scope, max_bytes);
        async { None }
    }

    /// The word by which `TRUNKLINE_REQUIRE_LIVE` asks for this broker, such as `redis`. Override it where `open` may
    /// answer `None`. Default `broker`.
    fn system(&self) -> &'static str {
        "broker"
    }
}

/// The erased twin of [`BrokerHarness`], as cases that open brokers themselves take it.
pub trait OpenBroker: Send + Sync {
    /// See [`BrokerHarness::open`].
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<AnyBroker>>;
    /// See [`BrokerHarness::open_limited`].
    fn open_limited_boxed<'a>(
        &'a self,
        scope: &'a Scope,
        max_messages: usize,
    ) -> BoxFuture<'a, Option<AnyBroker>>;
    /// See [`BrokerHarness::open_limited_bytes`].
    fn open_limited_bytes_boxed<'a>(
        &'a self,
        scope: &'a Scope,
        max_bytes: usize,
    ) -> BoxFuture<'a, Option<AnyBroker>>;
    /// See [`BrokerHarness::system`].
    fn system_dyn(&self) -> &'static str;
}

impl<H: BrokerHarness> OpenBroker for H {
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<AnyBroker>> {
        Box::pin(self.open(scope))
    }

    fn open_limited_boxed<'a>(
        &'a self,
        scope: &'a Scope,
        max_messages: usize,
    ) -> BoxFuture<'a, Option<AnyBroker>> {
        Box::pin(self.open_limited(scope, max_messages))
    }

    fn open_limited_bytes_boxed<'a>(
        &'a self,
        scope: &'a Scope,
        max_bytes: usize,
    ) -> BoxFuture<'a, Option<AnyBroker>> {
        Box::pin(self.open_limited_bytes(scope, max_bytes))
    }

    fn system_dyn(&self) -> &'static str {
        self.system()
    }
}

/// Runs one case over a connected broker, disconnects it and checks that no task is left.
///
/// # Panics
/// When the case fails.
pub fn run<C>(harness: &dyn OpenBroker, case: &'static str, body: C)
where
    C: for<'a> FnOnce(&'a AnyBroker, &'a Scope) -> BoxFuture<'a, ()>,
{
    live::block_on(async {
        let scope = Scope::new(case);
        let Some(broker) = opened(harness, &scope).await else {
            return;
        };
        scope
            .within("connect", broker.connect())
            .await
            .expect("connects");
        scope.within("the case", body(&broker, &scope)).await;
        let deadline = Instant::now() + GRACE;
        scope
            .within("disconnect", broker.disconnect(deadline))
            .await
            .expect("disconnects");
        drop(broker);
        live::no_task_left(&scope, GRACE).await;
    });
}

/// Runs one case that opens its brokers itself.
///
/// # Panics
/// When the case fails.
pub fn run_with_harness<C>(harness: &dyn OpenBroker, case: &'static str, body: C)
where
    C: for<'a> FnOnce(&'a dyn OpenBroker, &'a Scope) -> BoxFuture<'a, ()>,
{
    live::block_on(async {
        let scope = Scope::new(case);
        if opened(harness, &scope).await.is_none() {
            return;
        }
        scope.within("the case", body(harness, &scope)).await;
        live::no_task_left(&scope, GRACE).await;
    });
}

async fn opened(harness: &dyn OpenBroker, scope: &Scope) -> Option<AnyBroker> {
    let broker = scope.within("open", harness.open_boxed(scope)).await;
    if broker.is_none() {
        live::skip(scope, Missing::Server(harness.system_dyn()));
    }
    broker
}
