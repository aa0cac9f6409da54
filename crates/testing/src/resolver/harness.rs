//! How a case gets its resolver and the directory behind it, and what is checked after every case.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use trunkline_core::BoxFuture;
use trunkline_discovery::{
    AnyRegistry, AnyResolver, InstanceList, InstanceWatch, Registry, Resolver, ServiceName,
};

use crate::Scope;
use crate::live::{self, Missing};

/// How long tasks of a resolver may take to end after its shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Where an instance is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// An address of IPv4.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Place {
    /// The place of number `n` of the service in a case; no two numbers have the same.
    #[must_use]
    pub fn number(n: u16) -> Self {
        Self {
            host: format!("10.1.{}.{}", n / 200, n % 200 + 1),
            port: 8000,
        }
    }
}

/// Writes into the real directory.
pub trait Editor: Send + Sync + 'static {
    /// From now on these, and no others, are the instances of the service. Returns when the directory has taken it.
    fn write<'a>(&'a self, service: &'a ServiceName, places: &'a [Place]) -> BoxFuture<'a, ()>;
}

/// The way between the resolver and its directory, which fails on demand.
pub trait Link: Send + Sync + 'static {
    /// Whatever stands is reset and nothing new is let through, for as long as it is told so.
    fn cut(&self, cut: bool);

    /// Nothing passes, and nobody says so, for as long as it is told so.
    fn stall(&self, stall: bool);

    /// Whatever stands is reset, and new connections pass.
    fn reset(&self);
}

/// A relay between resolver and server is such a link.
#[cfg(feature = "faults")]
impl Link for crate::faults::Relay {
    fn cut(&self, cut: bool) {
        self.refuse(cut);
        self.reset_all();
    }

    fn stall(&self, stall: bool) {
        Self::stall(self, stall);
    }

    fn reset(&self) {
        self.reset_all();
    }
}

/// Opens the resolver under test.
pub trait ResolverHarness: Send + Sync + 'static {
    /// An open resolver and its directory; `None` when it needs a server that is not configured here.
    fn open(&self, scope: &Scope) -> impl Future<Output = Option<OpenResolver>> + Send;

    /// Whether it can list the names of all services.
    fn lists_services(&self) -> bool {
        true
    }

    /// The word by which `TRUNKLINE_REQUIRE_LIVE` asks for this resolver.
    fn system(&self) -> &'static str {
        "resolver"
    }
}

/// A resolver, its other half which announces nothing, its directory, and how to shut both down.
pub struct OpenResolver {
    registry: AnyRegistry,
    resolver: AnyResolver,
    editor: Box<dyn Editor>,
    link: Box<dyn Link>,
    shutdown: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl OpenResolver {
    /// Puts one together. `shutdown` may be called when it is shut down already.
    pub fn new<R, F, Fut>(resolver: R, editor: impl Editor, link: impl Link, shutdown: F) -> Self
    where
        R: Registry + Resolver + Clone,
        F: FnOnce() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self {
            registry: AnyRegistry::new(resolver.clone()),
            resolver: AnyResolver::new(resolver),
            editor: Box::new(editor),
            link: Box::new(link),
            shutdown: Box::new(move || Box::pin(shutdown())),
        }
    }
}

impl fmt::Debug for OpenResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenResolver").field(&self.resolver).finish()
    }
}

/// What a case works with.
pub struct ResolverUnderTest<'a> {
    /// The half that announces nothing.
    pub registry: AnyRegistry,
    /// Where instances are found.
    pub resolver: AnyResolver,
    /// Whether it can list the names of all services.
    pub lists_services: bool,
    /// The way to its directory. The editor has one of its own.
    pub link: Box<dyn Link>,
    editor: Box<dyn Editor>,
    harness: &'a dyn OpenBoxed,
    #[expect(
        clippy::type_complexity,
        reason = "what is called once, by a case or after it"
    )]
    shutdown: std::sync::Mutex<Option<Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send + Sync>>>,
}

impl ResolverUnderTest<'_> {
    async fn of<'a>(harness: &'a dyn OpenBoxed, scope: &Scope) -> Option<ResolverUnderTest<'a>> {
        let open = scope.within("open", harness.open_boxed(scope)).await?;
        Some(ResolverUnderTest {
            registry: open.registry,
            resolver: open.resolver,
            lists_services: harness.lists(),
            link: open.link,
            editor: open.editor,
            harness,
            shutdown: std::sync::Mutex::new(Some(open.shutdown)),
        })
    }

    /// Another one of the same directory, as another process has it.
    ///
    /// # Panics
    /// When it cannot be opened, though the first one was.
    ///
    /// # Cancel safety
    /// Not cancel safe.
    pub async fn another(&self, scope: &Scope) -> Self {
        let another = ResolverUnderTest::of(self.harness, scope).await;
        another.expect("it was opened before")
    }

    /// From now on these are the instances of the service.
    ///
    /// # Cancel safety
    /// Not cancel safe.
    pub async fn write(&self, service: &ServiceName, numbers: impl IntoIterator<Item = u16>) {
        let places: Vec<Place> = numbers.into_iter().map(Place::number).collect();
        self.write_places(service, &places).await;
    }

    /// As [`write`](Self::write), at any places.
    ///
    /// # Cancel safety
    /// Not cancel safe.
    pub async fn write_places(&self, service: &ServiceName, places: &[Place]) {
        self.editor.write(service, places).await;
    }

    /// The places of a service.
    ///
    /// # Panics
    /// When it cannot be resolved.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn places(&self, service: &ServiceName) -> Vec<Place> {
        let list = self.resolver.resolve(service).await;
        places(&list.expect("a service can be resolved"))
    }

    /// A watch of a service.
    ///
    /// # Panics
    /// When it cannot be watched.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn watch(&self, service: &ServiceName) -> InstanceWatch {
        let watch = self.resolver.watch(service).await;
        watch.expect("a service can be watched")
    }

    /// Shuts it down; does nothing the second time.
    ///
    /// # Panics
    /// When a case has panicked while it did so.
    ///
    /// # Cancel safety
    /// Not cancel safe.
    pub async fn shutdown(&self) {
        let shutdown = self.shutdown.lock().expect("no panic while locked").take();
        if let Some(shutdown) = shutdown {
            shutdown().await;
        }
    }
}

impl fmt::Debug for ResolverUnderTest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.resolver;
        f.debug_tuple("ResolverUnderTest").field(shown).finish()
    }
}

/// Where the instances of a list are, in order.
pub(super) fn places(list: &InstanceList) -> Vec<Place> {
    let instances = list.instances.iter();
    let mut places: Vec<Place> = instances
        .map(|instance| Place {
            host: instance.host.clone(),
            port: instance.port,
        })
        .collect();
    places.sort();
    places
}

/// The erased twin of [`ResolverHarness`], so that cases compile once.
pub trait OpenBoxed: Send + Sync {
    /// See [`ResolverHarness::open`].
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<OpenResolver>>;
    /// See [`ResolverHarness::lists_services`].
    fn lists(&self) -> bool;
    /// See [`ResolverHarness::system`].
    fn named(&self) -> &'static str;
}

impl<H: ResolverHarness> OpenBoxed for H {
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<OpenResolver>> {
        Box::pin(self.open(scope))
    }

    fn lists(&self) -> bool {
        self.lists_services()
    }

    fn named(&self) -> &'static str {
        self.system()
    }
}

/// Runs one case, shuts the resolver down and checks that no task is left.
///
/// # Panics
/// When the case fails.
pub fn run<C>(harness: &dyn OpenBoxed, case: &'static str, body: C)
where
    C: for<'a> FnOnce(&'a ResolverUnderTest<'a>, &'a Scope) -> BoxFuture<'a, ()>,
{
    live::block_on(async {
        let scope = Scope::new(case);
        let Some(subject) = ResolverUnderTest::of(harness, &scope).await else {
            live::skip(&scope, Missing::Server(harness.named()));
            return;
        };
        scope.within("the case", body(&subject, &scope)).await;
        scope.within("shutdown", subject.shutdown()).await;
        drop(subject);
        live::no_task_left(&scope, GRACE).await;
    });
}
