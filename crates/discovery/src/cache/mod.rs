//! What is known of every service that somebody asked for.
//!
//! One entry and one watch per service, however many ask. The watch keeps the entry current; an entry that nobody
//! uses for long is no longer watched, and forgotten when nobody holds it.

mod follow;
mod snapshot;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::Error;
use trunkline_core::task::Scope;
use trunkline_telemetry::Metrics;

use crate::check::{self, AnyProbe, CheckPlan, ServiceHealthChange};
use crate::config::{DiscoveryCacheConfig, HealthCheckConfig, LoadBalancerConfig};
use crate::erased::AnyResolver;
use crate::instance::{ServiceInstance, ServiceName};
use crate::instances::{Instances, Pool};
use crate::pulse::Pulse;
use crate::report::Reporter;
use follow::Follow;
pub(crate) use snapshot::Snapshot;

/// Services whose age is told in health.
const MOST_TOLD: usize = 100;

/// What the cache is made of.
pub(crate) struct CacheSettings {
    pub(crate) resolver: Option<AnyResolver>,
    pub(crate) config: DiscoveryCacheConfig,
    pub(crate) request_timeout: Duration,
    pub(crate) balance: LoadBalancerConfig,
    pub(crate) balance_of: HashMap<ServiceName, LoadBalancerConfig>,
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) statics: HashMap<ServiceName, Vec<ServiceInstance>>,
    pub(crate) metrics: Metrics,
    pub(crate) health_changes: broadcast::Sender<ServiceHealthChange>,
    pub(crate) reporter: Reporter,
    pub(crate) scope: Scope,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// How every service that is asked for is checked.
    pub(crate) checks: HealthCheckConfig,
    /// The same of single services.
    pub(crate) checks_of: HashMap<ServiceName, HealthCheckConfig>,
    /// Without it nobody is checked.
    pub(crate) probe: Option<AnyProbe>,
}

/// The entries by service.
pub(crate) struct Cache {
    settings: CacheSettings,
    /// Whether the snapshot is being written.
    writing: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<ServiceName, Entry>,
    /// Instances that were named here; the registry is not asked about their services.
    statics: HashMap<ServiceName, Vec<ServiceInstance>>,
}

struct Entry {
    pool: Arc<Pool>,
    asked_at: Instant,
    /// Ends the watch, if there is one.
    watch: Option<CancellationToken>,
    /// Whether its instances have begun to be checked as configured.
    checked: bool,
}

/// Who holds a pool besides its users: the entry, and the watch.
const OWN_HANDLES: usize = 2;

impl Entry {
    fn is_held(&self) -> bool {
        let own = if self.watch.is_some() { OWN_HANDLES } else { 1 };
        Arc::strong_count(&self.pool) > own
    }
}

impl Cache {
    pub(crate) fn new(mut settings: CacheSettings) -> Arc<Self> {
        let statics = std::mem::take(&mut settings.statics);
        let table = Table {
            entries: HashMap::new(),
            statics,
        };
        Arc::new(Self {
            settings,
            writing: AtomicBool::new(false),
            table: Mutex::new(table),
        })
    }

    /// How the instances of a service are checked, as configured.
    pub(crate) fn plan_of(&self, service: &ServiceName) -> CheckPlan {
        match self.settings.checks_of.get(service) {
            Some(own) => CheckPlan::of_one(own.clone()),
            None => CheckPlan::of_all(self.settings.checks.clone()),
        }
    }

    /// The instances of a service; from now on it is watched, and checked as configured.
    pub(crate) fn instances(self: &Arc<Self>, service: &ServiceName) -> Instances {
        let mut table = self.lock();
        let entry = self.entry(&mut table, service);
        if !std::mem::replace(&mut entry.checked, true)
            && let Some(probe) = &self.settings.probe
        {
            let plan = self.plan_of(service);
            if plan.is_enabled() {
                check::begin(&entry.pool, probe, &plan, &self.settings.scope, None);
            }
        }
        Instances::of(Arc::clone(&entry.pool))
    }

    fn entry<'a>(self: &Arc<Self>, table: &'a mut Table, service: &ServiceName) -> &'a mut Entry {
        if !table.entries.contains_key(service) {
            self.make_room(table);
        }
        let named = table.statics.get(service);
        let entry = table.entries.entry(service.clone());
        let entry = entry.or_insert_with(|| self.open(service, named));
        entry.asked_at = Instant::now();
        entry
    }

    /// What is known of a service that somebody asked for.
    pub(crate) fn pool(&self, service: &ServiceName) -> Option<Arc<Pool>> {
        let table = self.lock();
        table
            .entries
            .get(service)
            .map(|entry| Arc::clone(&entry.pool))
    }

    /// Adds an instance of a service that the registry is not asked about any more.
    pub(crate) fn add_static(&self, instance: ServiceInstance) {
        let mut table = self.lock();
        let service = instance.name.clone();
        let known = table.statics.entry(service.clone()).or_default();
        known.retain(|other| other.id != instance.id);
        known.push(instance);
        let known = known.clone();
        if let Some(entry) = table.entries.get_mut(&service) {
            if let Some(watch) = entry.watch.take() {
                watch.cancel();
            }
            entry.pool.answer(known, 0);
        }
    }

    /// Takes the instances of a service out that were added here, and asks the registry again. Says whether there were
    /// any.
    pub(crate) fn remove_static(self: &Arc<Self>, service: &ServiceName) -> bool {
        let mut table = self.lock();
        let removed = table.statics.remove(service).is_some();
        if removed && let Some(entry) = table.entries.get_mut(service) {
            entry.pool.begin_anew();
            entry.watch = self.watch(service, &entry.pool);
        }
        removed
    }

    /// The instances that were named here.
    pub(crate) fn statics(&self) -> Vec<ServiceName> {
        self.lock().statics.keys().cloned().collect()
    }

    /// Every service that somebody asked for.
    pub(crate) fn asked_for(&self) -> Vec<ServiceName> {
        self.lock().entries.keys().cloned().collect()
    }

    /// Whether the instances of any service are known.
    pub(crate) fn knows_any(&self) -> bool {
        let table = self.lock();
        table.entries.values().any(|entry| entry.pool.is_resolved())
    }

    /// Says in health which services are known from earlier only, and how old that is.
    pub(crate) fn report_ages(&self) {
        let ages: serde_json::Map<String, serde_json::Value> = {
            let table = self.lock();
            let stale = table.entries.iter().filter_map(|(name, entry)| {
                let age = entry.pool.stale_for()?;
                let age = trunkline_core::duration::format(Duration::from_secs(age.as_secs()));
                Some((name.to_string(), age.into()))
            });
            stale.take(MOST_TOLD).collect()
        };
        self.settings.reporter.detail("stale", ages);
    }

    /// The instances of a service, if somebody asked for it or they were named here. They do not begin to be checked.
    pub(crate) fn find(self: &Arc<Self>, service: &ServiceName) -> Option<Instances> {
        let mut table = self.lock();
        let known = table.entries.contains_key(service) || table.statics.contains_key(service);
        known.then(|| Instances::of(Arc::clone(&self.entry(&mut table, service).pool)))
    }

    /// How many services there are entries of.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    fn open(
        self: &Arc<Self>,
        service: &ServiceName,
        known: Option<&Vec<ServiceInstance>>,
    ) -> Entry {
        let settings = &self.settings;
        let balance = settings
            .balance_of
            .get(service)
            .unwrap_or(&settings.balance);
        let metrics = settings.metrics.discovery(service.as_str());
        let tell = Some(settings.health_changes.clone());
        let zone = settings.zone.clone();
        let pool = Pool::new(
            service.clone(),
            balance.clone(),
            zone,
            metrics,
            tell,
            Some(self.settings.scope.clone()),
            settings.config.keep_vanished,
        );
        let watch = match known {
            Some(known) => {
                pool.answer(known.clone(), 0);
                None
            }
            None => self.watch(service, &pool),
        };
        Entry {
            pool,
            asked_at: Instant::now(),
            watch,
            checked: false,
        }
    }

    /// Begins to watch a service.
    fn watch(
        self: &Arc<Self>,
        service: &ServiceName,
        pool: &Arc<Pool>,
    ) -> Option<CancellationToken> {
        let Some(resolver) = self.settings.resolver.clone() else {
            // Nobody else can know it: it has no instance.
            pool.answer(Vec::new(), 0);
            return None;
        };
        if self.settings.scope.is_stopping() {
            pool.end(&Error::cancelled("discovery was shut down"));
            return None;
        }
        let stop = self.settings.scope.token().child_token();
        let follow = Follow {
            cache: Arc::downgrade(self),
            resolver,
            service: service.clone(),
            pool: Arc::clone(pool),
            config: self.settings.config.clone(),
            request_timeout: self.settings.request_timeout,
            reporter: self.settings.reporter.clone(),
            snapshot: self.settings.snapshot.clone(),
            stop: stop.clone(),
            shutdown: self.settings.scope.token(),
        };
        if let Some(snapshot) = &self.settings.snapshot
            && !self.writing.swap(true, Ordering::Relaxed)
        {
            let scope = &self.settings.scope;
            let keeping = Arc::clone(snapshot).keep(Arc::downgrade(self), scope.token());
            scope.spawn("discovery-snapshot", keeping);
        }
        let pulse = self.settings.pulse.listen(&self.settings.scope);
        self.settings
            .scope
            .spawn("discovery-watch", follow.run(pulse));
        Some(stop)
    }

    /// Forgets the service that was asked for longest ago among those that nobody holds, when there are too many.
    fn make_room(&self, table: &mut Table) {
        if table.entries.len() < self.settings.config.capacity as usize {
            return;
        }
        let free = table.entries.iter().filter(|(_, entry)| !entry.is_held());
        let oldest = free.min_by_key(|(_, entry)| entry.asked_at);
        let oldest = oldest.map(|(service, _)| service.clone());
        match oldest.and_then(|service| table.entries.remove(&service)) {
            Some(Entry {
                watch: Some(watch), ..
            }) => watch.cancel(),
            Some(_) => {}
            // Those that are held and not used are not watched.
            None if self.is_watching_less(table) => {}
            None => tracing::warn!(
                target: "trunkline::discovery",
                capacity = self.settings.config.capacity,
                "more services are in use than discovery is configured to watch"
            ),
        }
    }

    fn is_watching_less(&self, table: &Table) -> bool {
        let awake = table.entries.values().filter(|it| !it.pool.is_dormant());
        awake.count() < self.settings.config.capacity as usize
    }

    /// Forgets a service whose watch found it unused, unless somebody holds it.
    fn forget(&self, service: &ServiceName, pool: &Arc<Pool>) -> bool {
        let mut table = self.lock();
        let entry = table.entries.get(service);
        // Another entry may have taken the place of the one that this watch belongs to.
        if entry.is_some_and(|entry| Arc::ptr_eq(&entry.pool, pool) && entry.is_held()) {
            return false;
        }
        if entry.is_some_and(|entry| Arc::ptr_eq(&entry.pool, pool)) {
            table.entries.remove(service);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("resolver", &self.settings.resolver)
            .field("services", &self.len())
            .finish_non_exhaustive()
    }
}
