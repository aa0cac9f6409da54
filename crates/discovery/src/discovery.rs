//! The handle through which services are found.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::{Instant, timeout};
use trunkline_core::health::ComponentHealth;
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, Result, SharedClock, SystemClock};
use trunkline_telemetry::Metrics;
use trunkline_telemetry::metrics::RegistrationMetrics;

use crate::balance::PickRequest;
use crate::cache::{Cache, CacheSettings, Snapshot};
use crate::change::ServiceWatch;
use crate::check::{AnyProbe, Probe, ServiceHealthChange};
use crate::config::{
    DiscoveryCacheConfig, HealthCheckConfig, LoadBalancerConfig, ServiceConfig,
    ServiceDiscoveryConfig,
};
use crate::erased::{AnyRegistry, AnyResolver};
use crate::instance::{ServiceInstance, ServiceName};
use crate::instances::Instances;
use crate::pulse::Pulse;
use crate::registry::Registry;
use crate::report::{Reporter, Weight};
use crate::resolver::Resolver;
use crate::several::Several;
use crate::static_list::instances_of;

/// Longer spans are as good as for ever, and moments after them could not be told.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What happens again and again does so no more often than a runtime tells time.
const SHORTEST: Duration = Duration::from_millis(1);

/// Changes of health that a slow listener may fall behind.
const CHANGES_KEPT: usize = 256;

/// Finds services, and keeps what it found current. Cheap to clone; clones share one cache.
///
/// Each service that is asked for is watched once, however many ask. While the registry is away the last known
/// instances are used and marked stale; a registry that fails never empties a pool. Services that the configuration
/// gives a host are not looked up.
///
/// ```
/// use std::time::Duration;
/// use trunkline_discovery::{Discovery, MemoryRegistry, Registry, Resolver, ServiceInstance, ServiceName};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let registry = MemoryRegistry::new();
/// let users = ServiceName::new("users")?;
/// registry.register(ServiceInstance::new(users.clone(), "127.0.0.1", 8001), Duration::from_secs(10)).await?;
///
/// let discovery = Discovery::builder().resolver(registry.clone()).build();
/// let instance = discovery.service_instance(&users).await?;
/// assert_eq!(instance.base_url(), "http://127.0.0.1:8001");
/// # Ok(()) }
/// ```
#[doc(alias = "ServiceDiscovery")]
#[derive(Clone)]
pub struct Discovery(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) resolver: Option<AnyResolver>,
    pub(crate) registry: Option<AnyRegistry>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) request_timeout: Duration,
    pub(crate) lease_ttl: Duration,
    pub(crate) reporter: Reporter,
    pub(crate) registrations: RegistrationMetrics,
    pub(crate) scope: Scope,
    pub(crate) probe: Option<AnyProbe>,
    pub(crate) health_changes: broadcast::Sender<ServiceHealthChange>,
}

impl Discovery {
    /// Puts discovery together.
    pub fn builder() -> DiscoveryBuilder {
        DiscoveryBuilder::default()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// The instances of a service, kept current from now on. Returns at once; see [`Instances::ready`] for waiting.
    ///
    /// # Panics
    /// Outside a Tokio runtime, when the service is asked for the first time.
    #[must_use]
    pub fn instances(&self, service: &ServiceName) -> Instances {
        self.0.cache.instances(service)
    }

    /// Every instance of a service, whatever its status. The first time it waits for the registry's answer, until the
    /// deadline of the running [`Context`] or the timeout of a question to the registry.
    ///
    /// # Errors
    /// `Unavailable` when there was no answer, not even an earlier one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "discover_service")]
    pub async fn discover_services(
        &self,
        service: &ServiceName,
    ) -> Result<Vec<Arc<ServiceInstance>>> {
        let instances = self.instances(service);
        if let Err(nothing) = instances.resolved(self.deadline()).await {
            return Err(Error::unavailable(nothing.to_string())
                .with_operation("discover_services")
                .with_source(nothing));
        }
        Ok(instances.snapshot().instances().cloned().collect())
    }

    /// One instance of a service, chosen by the rule of balancing. Waits for one as
    /// [`Discovery::discover_services`] does.
    ///
    /// # Errors
    /// `Rejected`, caused by [`NoInstance`](crate::NoInstance), when there is none.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "get_service_instance")]
    pub async fn service_instance(&self, service: &ServiceName) -> Result<Arc<ServiceInstance>> {
        let instances = self.instances(service);
        instances.resolved(self.deadline()).await?;
        let picked = instances.pick(&PickRequest::any())?;
        Ok(Arc::clone(picked.instance()))
    }

    /// Tells what changes about a service; the first item is what is known of it. While it is held, the service is
    /// watched.
    ///
    /// # Panics
    /// Outside a Tokio runtime, when the service is asked for the first time.
    pub fn watch(&self, service: &ServiceName) -> ServiceWatch {
        ServiceWatch::new(self.instances(service), self.0.scope.token())
    }

    /// The names of all services that have an instance, in order: those of the registry and those named here.
    ///
    /// # Errors
    /// What the registry answers: `Unavailable`, `Timeout`; `Cancelled` after shutdown.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn services(&self) -> Result<Vec<ServiceName>> {
        self.check_open("services")?;
        let mut names: BTreeSet<ServiceName> = self.0.cache.statics().into_iter().collect();
        if let Some(resolver) = &self.0.resolver {
            names.extend(self.within("services", resolver.services()).await?);
        }
        Ok(names.into_iter().collect())
    }

    /// Makes an instance of a service known to this process alone, such as one outside that registers nowhere. From now
    /// on the registry is not asked about that service. Further instances of the same service may be added; one with the
    /// same id is replaced.
    ///
    /// To announce it to everybody, see [`Discovery::register`].
    ///
    /// # Errors
    /// `Invalid` when the instance is not sound; see [`ServiceInstance::validate`].
    pub fn register_external_service(&self, instance: ServiceInstance) -> Result<()> {
        instance.validate()?;
        self.0.cache.add_static(instance);
        Ok(())
    }

    /// Forgets the instances of a service that were named here, and asks the registry about it again. Says whether
    /// there were any.
    ///
    /// # Panics
    /// Outside a Tokio runtime, when there were any.
    pub fn deregister_external_service(&self, service: &ServiceName) -> bool {
        self.0.cache.remove_static(service)
    }

    /// Asks the registry itself whether it works, and reports it.
    ///
    /// # Errors
    /// What the registry answers: `Unavailable`, `Timeout`; `Cancelled` after shutdown.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn health_check(&self) -> Result<()> {
        const WHO: &str = "registry";
        self.check_open("health_check")?;
        let answer = match (&self.0.registry, &self.0.resolver) {
            (Some(registry), _) => self.within("health_check", registry.health_check()).await,
            (None, Some(resolver)) => {
                let services = self.within("health_check", resolver.services()).await;
                services.map(drop)
            }
            (None, None) => Ok(()),
        };
        self.0.cache.report_ages();
        match &answer {
            Ok(()) => {
                let registry = self.0.registry.as_ref();
                match registry.and_then(|registry| registry.shortcoming()) {
                    None => self.0.reporter.works(WHO),
                    Some(error) => self.0.reporter.failed(WHO, Weight::Degraded, error),
                }
            }
            Err(error) => {
                let weight = if self.0.cache.knows_any() {
                    Weight::Degraded
                } else {
                    Weight::Unhealthy
                };
                let told = Error::new(error.kind(), format!("the registry does not work: {error}"));
                self.0.reporter.failed(WHO, weight, told);
            }
        }
        answer
    }

    /// How many services are kept current.
    #[must_use]
    pub fn cached_services(&self) -> usize {
        self.0.cache.len()
    }

    /// Ends every watch, and withdraws every registration that still stands. What is known stays and can be picked
    /// from, marked stale by its age.
    ///
    /// # Errors
    /// `Timeout` when not everything ended by the deadline.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn shutdown(&self, deadline: Instant) -> Result<()> {
        match self.0.scope.shutdown(deadline).await {
            0 => Ok(()),
            left => Err(Error::timeout(format!(
                "{left} tasks of discovery did not end in time"
            ))),
        }
    }

    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.0.scope.is_stopping() {
            return Err(Error::cancelled("discovery was shut down").with_operation(operation));
        }
        Ok(())
    }

    /// Bounds a question to the registry.
    pub(crate) async fn within<T>(
        &self,
        operation: &'static str,
        question: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let answer = timeout(self.0.request_timeout, question).await;
        answer.unwrap_or_else(|_| {
            let span = trunkline_core::duration::format(self.0.request_timeout);
            Err(
                Error::timeout(format!("the registry did not answer within {span}"))
                    .with_operation(operation),
            )
        })
    }

    /// Until when to wait for a first answer.
    pub(crate) fn deadline(&self) -> Instant {
        let own = Instant::now() + self.0.request_timeout;
        let callers = Context::current().and_then(|context| context.deadline());
        callers.map_or(own, |deadline| deadline.min(own))
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("cache", &self.0.cache)
            .field("registry", &self.0.registry)
            .finish_non_exhaustive()
    }
}

/// Puts [`Discovery`] together. Without a resolver only the services named here are known.
#[derive(Debug)]
#[must_use]
pub struct DiscoveryBuilder {
    resolver: Option<AnyResolver>,
    registry: Option<AnyRegistry>,
    cache: DiscoveryCacheConfig,
    balance: LoadBalancerConfig,
    balance_of: HashMap<ServiceName, LoadBalancerConfig>,
    checks_of: HashMap<ServiceName, HealthCheckConfig>,
    zone: Option<Arc<str>>,
    statics: HashMap<ServiceName, Vec<ServiceInstance>>,
    request_timeout: Duration,
    lease_ttl: Duration,
    metrics: Metrics,
    component: Option<ComponentHealth>,
    probe: Option<AnyProbe>,
    health_check: HealthCheckConfig,
    several: Option<Several>,
    clock: SharedClock,
}

impl Default for DiscoveryBuilder {
    fn default() -> Self {
        Self {
            resolver: None,
            registry: None,
            cache: DiscoveryCacheConfig::default(),
            balance: LoadBalancerConfig::default(),
            balance_of: HashMap::new(),
            checks_of: HashMap::new(),
            zone: None,
            statics: HashMap::new(),
            request_timeout: Duration::from_secs(5),
            lease_ttl: Duration::from_secs(10),
            metrics: Metrics::disabled(),
            component: None,
            probe: None,
            health_check: HealthCheckConfig::default(),
            several: None,
            clock: SystemClock::shared(),
        }
    }
}

impl DiscoveryBuilder {
    /// Where services are looked up.
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = Some(resolver.erase());
        self
    }

    /// Where instances are announced.
    pub fn registry(mut self, registry: impl Registry) -> Self {
        self.registry = Some(registry.erase());
        self
    }

    /// What is wrong with one of several registries is reported as well: degraded while others work, and where they differ
    /// about a service. It says nothing about where services are looked up and announced.
    pub fn several(mut self, several: &Several) -> Self {
        self.several = Some(several.clone());
        self
    }

    /// Takes cache, balancing, checks and lease from the configuration.
    pub fn config(mut self, config: &ServiceDiscoveryConfig) -> Self {
        self.cache = config.cache.clone();
        self.balance = config.load_balancer.clone();
        self.lease_ttl = config.lease_ttl;
        self.health_check = config.health_check.clone();
        self
    }

    /// Takes the services of the configuration: those with a host are known by it, before any registry, and each may
    /// have its own rule of balancing and its own checks.
    ///
    /// # Errors
    /// `Config` naming the service when its name or its instance is not sound, or is there in two spellings.
    pub fn services<N: AsRef<str>>(
        mut self,
        services: impl IntoIterator<Item = (N, ServiceConfig)>,
    ) -> Result<Self> {
        let services: Vec<(N, ServiceConfig)> = services.into_iter().collect();
        for (name, config) in &services {
            if let Some(balance) = &config.load_balancer {
                let service = ServiceName::new(name.as_ref())?;
                self.balance_of.insert(service, balance.clone());
            }
            if let Some(check) = &config.instance_check {
                let service = ServiceName::new(name.as_ref())?;
                self.checks_of.insert(service, check.clone());
            }
        }
        for instance in instances_of(services)? {
            let known = self.statics.entry(instance.name.clone()).or_default();
            known.push(instance);
        }
        Ok(self)
    }

    /// What is remembered of the answers.
    pub fn cache(mut self, cache: DiscoveryCacheConfig) -> Self {
        self.cache = cache;
        self
    }

    /// How an instance is chosen, unless the service says otherwise.
    pub fn load_balancer(mut self, balance: LoadBalancerConfig) -> Self {
        self.balance = balance;
        self
    }

    /// Where this process runs: while a service has instances in rotation in the same zone, those alone are picked, and
    /// others only for what was tried at all of them. Default: not said, and zones do not matter.
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Time for one question to the registry. Default 5 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a registration outlives a process that no longer renews it. Default 10 s.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// Where it is measured.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Where it is reported how the registry is: degraded while last known answers are used, unhealthy while there is
    /// nothing to go by.
    pub fn component(mut self, component: ComponentHealth) -> Self {
        self.component = Some(component);
        self
    }

    /// How instances are checked from here. With it those of a service are checked from the first time on that somebody
    /// asks for the service, unless [`health_check`](Self::health_check) says otherwise.
    pub fn probe(mut self, probe: impl Probe) -> Self {
        self.probe = Some(probe.erase());
        self
    }

    /// Whether and how often instances are checked.
    pub fn health_check(mut self, config: HealthCheckConfig) -> Self {
        self.health_check = config;
        self
    }

    /// Tells how old the snapshot on disk is. Default: the system's.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Discovery, put together. Nothing is asked until a service is; the snapshot is read, if there is one.
    #[must_use]
    pub fn build(mut self) -> Discovery {
        for span in [
            &mut self.request_timeout,
            &mut self.lease_ttl,
            &mut self.cache.idle_expiry,
            &mut self.cache.resync_interval,
            &mut self.cache.keep_vanished,
            &mut self.cache.snapshot_max_age,
        ] {
            *span = (*span).min(A_YEAR);
        }
        for span in [
            &mut self.lease_ttl,
            &mut self.cache.idle_expiry,
            &mut self.cache.resync_interval,
        ] {
            *span = (*span).max(SHORTEST);
        }
        let scope = Scope::new();
        let reporter = Reporter::new(self.component);
        if let Some(several) = &self.several {
            several.report_to(reporter.clone());
        }
        let (health_changes, _) = broadcast::channel(CHANGES_KEPT);
        let pulse = Pulse::new(self.registry.clone());
        let registrations = self.metrics.registrations();
        let snapshot = Snapshot::open(&self.cache, &self.clock);
        let cache = Cache::new(CacheSettings {
            resolver: self.resolver.clone(),
            config: self.cache,
            request_timeout: self.request_timeout,
            balance: self.balance,
            balance_of: self.balance_of,
            zone: self.zone,
            statics: self.statics,
            metrics: self.metrics,
            health_changes: health_changes.clone(),
            reporter: reporter.clone(),
            scope: scope.clone(),
            pulse: Arc::clone(&pulse),
            snapshot,
            checks: self.health_check,
            checks_of: self.checks_of,
            probe: self.probe.clone(),
        });
        Discovery(Arc::new(Inner {
            resolver: self.resolver,
            registry: self.registry,
            cache,
            pulse,
            request_timeout: self.request_timeout,
            lease_ttl: self.lease_ttl,
            reporter,
            registrations,
            scope,
            probe: self.probe,
            health_changes,
        }))
    }
}
