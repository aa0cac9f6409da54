//! How a case gets its registry, and what is checked after every case.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use trunkline_core::BoxFuture;
use trunkline_discovery::{AnyRegistry, AnyResolver, Registry, Resolver};

use crate::Scope;
use crate::live::{self, Missing};

/// How long tasks of a registry may take to end after its shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Opens the registry under test.
pub trait RegistryHarness: Send + Sync + 'static {
    /// An open registry; `None` when it needs a server that is not configured here. Those opened with the same scope see
    /// the same instances where the registry is shared.
    fn open(&self, scope: &Scope) -> impl Future<Output = Option<OpenRegistry>> + Send;

    /// Whether registries opened with the same scope see the same instances.
    fn is_shared(&self) -> bool {
        false
    }

    /// The shortest time of a lease that the registry keeps to.
    fn shortest_ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// How much later than its time a lease may run out.
    fn expiry_delay(&self) -> Duration {
        Duration::from_secs(2)
    }

    /// The word by which `TRUNKLINE_REQUIRE_LIVE` asks for this registry.
    fn system(&self) -> &'static str {
        "registry"
    }
}

/// A registry, the resolver of what it announces, and how to shut both down.
pub struct OpenRegistry {
    registry: AnyRegistry,
    resolver: AnyResolver,
    shutdown: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl OpenRegistry {
    /// Puts one together. `shutdown` shuts both down and returns when that is done; it may be called when they are shut
    /// down already.
    pub fn new<F, Fut>(registry: impl Registry, resolver: impl Resolver, shutdown: F) -> Self
    where
        F: FnOnce() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self {
            registry: registry.erase(),
            resolver: resolver.erase(),
            shutdown: Box::new(move || Box::pin(shutdown())),
        }
    }
}

impl fmt::Debug for OpenRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenRegistry").field(&self.registry).finish()
    }
}

/// What a case gets.
pub struct RegistryUnderTest<'a> {
    /// Where instances are announced.
    pub registry: AnyRegistry,
    /// Where they are found.
    pub resolver: AnyResolver,
    /// The shortest time of a lease.
    pub short: Duration,
    /// When a lease of the shortest time has run out for sure, counted from its last renewal.
    pub surely_over: Duration,
    shutdown: std::sync::Mutex<Option<OpenRegistry>>,
    harness: &'a dyn OpenBoxed,
}

impl RegistryUnderTest<'_> {
    async fn of<'a>(harness: &'a dyn OpenBoxed, scope: &Scope) -> Option<RegistryUnderTest<'a>> {
        let open = scope.within("open", harness.open_boxed(scope)).await?;
        let (short, delay) = harness.times();
        Some(RegistryUnderTest {
            registry: open.registry.clone(),
            resolver: open.resolver.clone(),
            short,
            surely_over: short + delay,
            shutdown: std::sync::Mutex::new(Some(open)),
            harness,
        })
    }

    /// Shuts registry and resolver down; does nothing the second time.
    ///
    /// # Panics
    /// When a case has panicked while it did so.
    ///
    /// # Cancel safety
    /// Not cancel safe.
    pub async fn shutdown(&self) {
        let open = self.shutdown.lock().expect("no panic while locked").take();
        if let Some(open) = open {
            (open.shutdown)().await;
        }
    }

    /// Another registry that sees the same instances, as another process has it; says that the case is skipped when
    /// there can be none.
    ///
    /// # Cancel safety
    /// Not cancel safe.
    pub async fn another(&self, scope: &Scope) -> Option<Self> {
        if !self.harness.shared() {
            live::skip(scope, Missing::Capability("sharing between processes"));
            return None;
        }
        RegistryUnderTest::of(self.harness, scope).await
    }
}

impl fmt::Debug for RegistryUnderTest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegistryUnderTest")
            .field(&self.registry)
            .finish()
    }
}

/// The erased twin of [`RegistryHarness`], so that cases compile once.
pub trait OpenBoxed: Send + Sync {
    /// See [`RegistryHarness::open`].
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<OpenRegistry>>;
    /// See [`RegistryHarness::is_shared`].
    fn shared(&self) -> bool;
    /// See [`RegistryHarness::shortest_ttl`] and [`RegistryHarness::expiry_delay`].
    fn times(&self) -> (Duration, Duration);
    /// See [`RegistryHarness::system`].
    fn named(&self) -> &'static str;
}

impl<H: RegistryHarness> OpenBoxed for H {
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<OpenRegistry>> {
        Box::pin(self.open(scope))
    }

    fn shared(&self) -> bool {
        self.is_shared()
    }

    fn times(&self) -> (Duration, Duration) {
        (self.shortest_ttl(), self.expiry_delay())
    }

    fn named(&self) -> &'static str {
        self.system()
    }
}

/// Runs one case, shuts the registry down and checks that no task is left.
///
/// # Panics
/// When the case fails.
pub fn run<C>(harness: &dyn OpenBoxed, case: &'static str, body: C)
where
    C: for<'a> FnOnce(&'a RegistryUnderTest<'a>, &'a Scope) -> BoxFuture<'a, ()>,
{
    live::block_on(async {
        let scope = Scope::new(case);
        let Some(subject) = RegistryUnderTest::of(harness, &scope).await else {
            live::skip(&scope, Missing::Server(harness.named()));
            return;
        };
        scope.within("the case", body(&subject, &scope)).await;
        scope.within("shutdown", subject.shutdown()).await;
        drop(subject);
        live::no_task_left(&scope, GRACE).await;
    });
}
