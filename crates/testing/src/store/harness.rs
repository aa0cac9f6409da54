//! How a case gets its store, and what is checked after every case.

use std::fmt;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use trunkline_core::BoxFuture;
use trunkline_events::{AnyEventStore, EventStore};

use crate::Scope;
use crate::live::{self, Missing};

/// How long tasks of a store may take to end after its shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Opens the store under test.
pub trait StoreHarness: Send + Sync + 'static {
    /// An open store, empty the first time; `None` when it needs a server that is not configured here. Those opened with
    /// the same scope have the same events where the store is shared.
    fn open(&self, scope: &Scope) -> impl Future<Output = Option<OpenStore>> + Send;

    /// Whether stores opened with the same scope have the same events, after a shutdown too.
    fn is_shared(&self) -> bool {
        false
    }

    /// The word by which `TRUNKLINE_REQUIRE_LIVE` asks for this store.
    fn system(&self) -> &'static str {
        "store"
    }
}

/// A store, and how to shut it down.
pub struct OpenStore {
    store: AnyEventStore,
    shutdown: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl OpenStore {
    /// Puts one together. `shutdown` shuts the store down and returns when that is done.
    pub fn new<F, Fut>(store: impl EventStore, shutdown: F) -> Self
    where
        F: FnOnce() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self {
            store: store.erase(),
            shutdown: Box::new(move || Box::pin(shutdown())),
        }
    }
}

impl fmt::Debug for OpenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenStore").field(&self.store).finish()
    }
}

/// What a case gets.
pub struct StoreUnderTest<'a> {
    /// The store.
    pub store: AnyEventStore,
    open: Mutex<Option<OpenStore>>,
    harness: &'a dyn OpenBoxed,
}

impl StoreUnderTest<'_> {
    async fn of<'a>(harness: &'a dyn OpenBoxed, scope: &Scope) -> Option<StoreUnderTest<'a>> {
        let open = scope.within("open", harness.open_boxed(scope)).await?;
        Some(StoreUnderTest {
            store: open.store.clone(),
            open: Mutex::new(Some(open)),
            harness,
        })
    }

    /// Shuts the store down; does nothing the second time.
    ///
    /// # Panics
    /// When a case has panicked while it did so.
    ///
    /// # Cancel safety
    /// Not cancel safe.
    pub async fn shutdown(&self) {
        let open = self.open.lock().expect("no panic while locked").take();
        if let Some(open) = open {
            (open.shutdown)().await;
        }
    }

    /// Another store with the same events, as another process has it; says that the case is skipped when there can be
    /// none.
    ///
    /// # Cancel safety
    /// Not cancel safe.
    pub async fn another(&self, scope: &Scope) -> Option<Self> {
        if !self.harness.shared() {
            live::skip(scope, Missing::Capability("sharing between processes"));
            return None;
        }
        StoreUnderTest::of(self.harness, scope).await
    }
}

impl fmt::Debug for StoreUnderTest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreUnderTest").field(&self.store).finish()
    }
}

/// The erased twin of [`StoreHarness`], so that cases compile once.
pub trait OpenBoxed: Send + Sync {
    /// See [`StoreHarness::open`].
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<OpenStore>>;
    /// See [`StoreHarness::is_shared`].
    fn shared(&self) -> bool;
    /// See [`StoreHarness::system`].
    fn named(&self) -> &'static str;
}

impl<H: StoreHarness> OpenBoxed for H {
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<OpenStore>> {
        Box::pin(self.open(scope))
    }

    fn shared(&self) -> bool {
        self.is_shared()
    }

    fn named(&self) -> &'static str {
        self.system()
    }
}

/// Runs one case, shuts the store down and checks that no task is left.
///
/// # Panics
/// When the case fails.
pub fn run<C>(harness: &dyn OpenBoxed, case: &'static str, body: C)
where
    C: for<'a> FnOnce(&'a StoreUnderTest<'a>, &'a Scope) -> BoxFuture<'a, ()>,
{
    live::block_on(async {
        let scope = Scope::new(case);
        let Some(subject) = StoreUnderTest::of(harness, &scope).await else {
            live::skip(&scope, Missing::Server(harness.named()));
            return;
        };
        scope.within("the case", body(&subject, &scope)).await;
        scope.within("shutdown", subject.shutdown()).await;
        drop(subject);
        live::no_task_left(&scope, GRACE).await;
    });
}
