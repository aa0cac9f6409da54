//! The instances of one service: kept current from behind, picked from in front without a lock.

mod arranging;
mod ejecting;

use std::cell::LazyCell;
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::task::Scope;
use trunkline_core::{Error, Result};
use trunkline_telemetry::Metrics;
use trunkline_telemetry::metrics::DiscoveryMetrics;

use crate::BalanceStrategy;
use crate::LoadBalancerConfig;
use crate::balance::{
    Load, Member, NoInstance, NoInstanceReason, PickRequest, Picked, Rotation, Sticky, is_among,
};
use crate::check::{
    self, Checks, EndpointCheck, Results, Rounds, Running, ServiceHealth, ServiceHealthChange,
};
use crate::departures::Departures;
use crate::instance::{ServiceInstance, ServiceName};
use crate::onlooker::Onlooker;
use crate::set::{Freshness, InstanceSet, Standing, Vanished};
use arranging::{MANY, Todo};
use ejecting::SHORTEST_INTERVAL;

/// Of the instances that a registry no longer lists, so many are remembered.
const MOST_VANISHED: usize = 1024;

/// The instances of one service. Cheap to clone; clones share one view of the service.
///
/// What discovery learns replaces the [`InstanceSet`] as a whole; picking an instance loads a pointer and takes the
/// same time for ten instances as for ten thousand. Get one from
/// [`Discovery::instances`](crate::Discovery::instances), or [`Instances::fixed`] where the instances are known.
///
/// ```
/// use std::time::Duration;
/// use trunkline_discovery::{Instances, PickRequest, ServiceInstance, ServiceName};
/// use trunkline_resilience::Outcome;
///
/// let name = ServiceName::new("users")?;
/// let users = Instances::fixed(name.clone(), vec![ServiceInstance::new(name, "127.0.0.1", 8001)]);
/// let picked = users.pick(&PickRequest::any())?;
/// assert_eq!(picked.instance().base_url(), "http://127.0.0.1:8001");
/// picked.finish(Outcome::Success, Duration::from_millis(3));
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Instances(Arc<Pool>);

impl Instances {
    /// Instances that are known and do not change, with the default rule of balancing and passive ejection.
    #[must_use]
    pub fn fixed(service: ServiceName, instances: Vec<ServiceInstance>) -> Self {
        Self::fixed_with(service, instances, &LoadBalancerConfig::default())
    }

    /// Instances that are known and do not change.
    #[must_use]
    pub fn fixed_with(
        service: ServiceName,
        instances: Vec<ServiceInstance>,
        balance: &LoadBalancerConfig,
    ) -> Self {
        let metrics = Metrics::disabled().discovery(service.as_str());
        let believed = Duration::ZERO;
        let pool = Pool::new(
            service,
            balance.clone(),
            None,
            metrics,
            None,
            None,
            believed,
        );
        pool.answer(instances, 0);
        pool.ended.store(true, Ordering::Relaxed);
        Self(pool)
    }

    pub(crate) fn of(pool: Arc<Pool>) -> Self {
        Self(pool)
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.0
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.0.service
    }

    /// Tells which instances leave from now on.
    #[must_use]
    pub fn departures(&self) -> Departures {
        Departures::of(&self.0)
    }

    /// Tells what is known from now on, for those who only look on.
    #[must_use]
    pub fn onlooker(&self) -> Onlooker {
        Onlooker::of(&self.0)
    }

    /// How an instance is chosen.
    #[must_use]
    pub fn load_balancer(&self) -> &LoadBalancerConfig {
        &self.0.balance
    }

    /// Everything that is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<InstanceSet> {
        self.0.used();
        Guard::into_inner(self.0.current())
    }

    /// Picks an instance by the rule configured for the service. Takes no lock and prepares nothing: what has changed is
    /// worked out beside those who pick.
    ///
    /// # Errors
    /// [`NoInstance`] when nobody can be asked; it says why. It becomes an [`Error`] of kind `Rejected`.
    pub fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoInstance> {
        let pool = &*self.0;
        pool.used();
        let set = pool.set.load();
        if set.awaited && request.only_current {
            let not_yet = NoInstanceReason::NotResolved(None);
            return Err(NoInstance::new(pool.service.clone(), not_yet));
        }
        if pool.is_behind(&set) && !pool.is_seen_to() {
            pool.see_to_it();
        }
        let whole = set.panicking;
        let picked = match (&pool.sticky, &set.homes, request.key) {
            (Some(sticky), Some(homes), Some(key)) => {
                let place = sticky.place(key);
                let stays = place
                    .stays(homes)
                    .filter(|it| !is_among(it, request.exclude));
                stays.or_else(|| {
                    let other = set.rotation.pick(&pool.cursor, request, whole)?;
                    place.moved(homes, other);
                    Some(other)
                })
            }
            _ => set.rotation.pick(&pool.cursor, request, whole),
        };
        match picked {
            Some(member) => Ok(Picked::new(Arc::clone(member))),
            None => Err(NoInstance::new(pool.service.clone(), set.why_nothing())),
        }
    }

    /// Waits until there is an instance to pick, at most until the deadline. What is known from before nobody used the
    /// service for long counts after a second, or when the registry cannot be asked.
    ///
    /// # Errors
    /// `Rejected`, caused by [`NoInstance`], when there is none by the deadline; at once when the instances are fixed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ready(&self, deadline: Instant) -> Result<()> {
        self.wait(deadline, |set| !set.rotation.members().is_empty())
            .await
    }

    /// Waits until somebody has answered who the instances are, at most until the deadline. The answer may be that
    /// there are none. An answer from before nobody used the service for long counts after a second, or when the registry
    /// cannot be asked.
    ///
    /// # Errors
    /// `Rejected`, caused by [`NoInstance`], when there is no answer by the deadline.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn resolved(&self, deadline: Instant) -> Result<()> {
        self.wait(deadline, InstanceSet::is_resolved).await
    }

    async fn wait(&self, deadline: Instant, done: impl Fn(&InstanceSet) -> bool) -> Result<()> {
        let mut changes = self.0.changes();
        loop {
            changes.mark_unchanged();
            let set = self.snapshot();
            let is_done = done(&set);
            if is_done && !set.awaited {
                return Ok(());
            }
            let nothing = || NoInstance::new(self.service().clone(), set.why_nothing());
            if self.0.ended.load(Ordering::Relaxed) {
                return Err(nothing().into());
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) if is_done => return Ok(()),
                // The pool outlives this handle, so its sender is there.
                Ok(Err(_)) | Err(_) => return Err(Error::from(nothing()).with_operation("resolve")),
            }
        }
    }

    /// Begins to check one endpoint at every instance, beside the health path and until nobody knows the service any
    /// more; meanwhile it is watched whether it is used or not. An instance that keeps failing the check gets no more
    /// requests, as one that fails at its health path. A check of that name that runs already goes on when it has the
    /// same settings, else it is replaced. Does nothing when `check` has its settings switched off.
    ///
    /// # Errors
    /// `Exhausted` when the service has too many such checks: 63 are possible.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn check_endpoint(&self, check: &EndpointCheck) -> Result<()> {
        check::begin_endpoint(self, check)
    }

    /// How each instance is, as far as it is known: its own word, the last checks from here, and whether requests to it
    /// keep failing.
    #[must_use]
    pub fn health(&self) -> ServiceHealth {
        self.0.health(&self.snapshot())
    }

    /// Tells that the snapshot may be another than before.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changes()
    }
}

impl fmt::Debug for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instances")
            .field(&self.0.set.load())
            .finish()
    }
}

/// What all handles of one service share.
pub(crate) struct Pool {
    service: ServiceName,
    set: ArcSwap<InstanceSet>,
    cursor: AtomicUsize,
    /// Where keys stay, if they are to.
    sticky: Option<Sticky>,
    /// By what this caller chooses few of many.
    caller: u64,
    /// Set by every use, taken by whoever looks for services that nobody uses.
    used: AtomicBool,
    /// Somebody uses a service whose watch is asleep.
    wake: Notify,
    changed: watch::Sender<()>,
    /// The same for checks, which do not count as use.
    replaced: watch::Sender<()>,
    /// Tells checks that a call has failed.
    doubted: watch::Sender<()>,
    /// Held while a set is replaced, so that no change is lost to another one. Within: the checks whose word counts. Nobody
    /// who picks or calls waits for it.
    replacing: Mutex<Checks>,
    /// Held for a moment while an instance is taken out, and while those that are in are counted: so none goes too many.
    leaving: Mutex<()>,
    /// Health that is asked for on demand.
    rounds: Rounds,
    /// What is to be worked out anew.
    todo: Arc<Todo>,
    /// Who owns the checks of a service that is watched; `None` for instances that are known.
    scope: Option<Scope>,
    balance: LoadBalancerConfig,
    /// How long instances are asked, for want of others, that the registry no longer lists.
    keep_vanished: Duration,
    /// Where the callers run.
    zone: Option<Arc<str>>,
    metrics: DiscoveryMetrics,
    /// No answer will come any more.
    ended: AtomicBool,
    health_changes: Option<broadcast::Sender<ServiceHealthChange>>,
    myself: Weak<Self>,
}

impl Pool {
    pub(crate) fn new(
        service: ServiceName,
        balance: LoadBalancerConfig,
        zone: Option<Arc<str>>,
        metrics: DiscoveryMetrics,
        health_changes: Option<broadcast::Sender<ServiceHealthChange>>,
        scope: Option<Scope>,
        keep_vanished: Duration,
    ) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            set: ArcSwap::from_pointee(InstanceSet {
                service: service.clone(),
                members: Arc::new([]),
                rotation: Arc::new(Rotation::new(Vec::new(), &balance)),
                homes: None,
                generation: 0,
                revision: 0,
                freshness: Freshness::default(),
                panicking: false,
                readmit_at: None,
                vanished: Vanished::default(),
                dormant: false,
                awaited: false,
                sound: 0,
                standing: Arc::default(),
            }),
            service,
            // Callers that start together shall not all begin with the same instance.
            cursor: AtomicUsize::new(fastrand::usize(..1 << 16)),
            sticky: (balance.strategy == BalanceStrategy::Sticky)
                .then(|| Sticky::new(balance.sticky.keys, balance.sticky.fail_back)),
            caller: fastrand::u64(..),
            used: AtomicBool::new(true),
            wake: Notify::new(),
            changed: watch::Sender::new(()),
            replaced: watch::Sender::new(()),
            doubted: watch::Sender::new(()),
            replacing: Mutex::default(),
            leaving: Mutex::default(),
            rounds: Rounds::default(),
            todo: Arc::default(),
            scope,
            balance,
            keep_vanished,
            zone,
            metrics,
            ended: AtomicBool::new(false),
            health_changes,
            myself: Weak::clone(myself),
        })
    }

    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    pub(crate) fn metrics(&self) -> &DiscoveryMetrics {
        &self.metrics
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Tells that the set was replaced. Whoever listens does not use the service by it.
    pub(crate) fn replacements(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }

    /// Tells that a call has failed.
    pub(crate) fn doubts(&self) -> watch::Receiver<()> {
        self.doubted.subscribe()
    }

    /// The set as it was arranged last. Looking does not count as use.
    pub(crate) fn peek(&self) -> Arc<InstanceSet> {
        self.set.load_full()
    }

    /// Remembers that the service is used, and wakes its watch should it be asleep.
    fn used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
            if self.set.load().dormant {
                self.wake.notify_one();
            }
        }
    }

    /// Whether the service was used since the last time this was asked, or somebody waits for its changes.
    pub(crate) fn is_in_use(&self) -> bool {
        let used = self.used.swap(false, Ordering::Relaxed);
        used || self.changed.receiver_count() > 0
    }

    pub(crate) fn is_resolved(&self) -> bool {
        self.set.load().is_resolved()
    }

    /// How old what is known is, while the registry is away.
    pub(crate) fn stale_for(&self) -> Option<Duration> {
        let set = self.set.load();
        set.is_stale().then(|| set.age())
    }

    pub(crate) fn revision(&self) -> u64 {
        self.set.load().revision
    }

    /// Waits until somebody uses the service.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// This is the list now, and there is no doubt about it. Says whether it is another one than before.
    pub(crate) fn answer(&self, instances: Vec<ServiceInstance>, revision: u64) -> bool {
        let vanished = |_: &InstanceSet, _: &[Arc<Member>]| Vanished::default();
        self.take(instances, revision, Freshness::now(), None, vanished)
    }

    /// The registry has answered: this is its list now. Says whether it is another one than before.
    ///
    /// A registry that lost what it knew answers as truly as one from which all have withdrawn. So when nobody is left who
    /// takes requests, or the registry has been away, those that are missing stay known as a last resort.
    ///
    /// Nothing is taken from a watch that was ended: its service may be known by other means now.
    pub(crate) fn listed(
        &self,
        instances: Vec<ServiceInstance>,
        revision: u64,
        ended: &CancellationToken,
    ) -> bool {
        let vanished = |before: &InstanceSet, now: &[Arc<Member>]| self.vanished(before, now);
        self.take(instances, revision, Freshness::now(), Some(ended), vanished)
    }

    fn take(
        &self,
        mut instances: Vec<ServiceInstance>,
        revision: u64,
        freshness: Freshness,
        ended: Option<&CancellationToken>,
        vanished: impl FnOnce(&InstanceSet, &[Arc<Member>]) -> Vanished,
    ) -> bool {
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        instances.dedup_by(|later, first| later.id == first.id);
        let replacing = self.replacing();
        if ended.is_some_and(CancellationToken::is_cancelled) {
            return false;
        }
        let set = self.set.load_full();
        let same = set.is_resolved() && set.instances().map(|known| &**known).eq(&instances);
        let next = if same {
            InstanceSet {
                revision,
                freshness,
                dormant: false,
                awaited: false,
                ..InstanceSet::clone(&set)
            }
        } else {
            let members = instances.into_iter().map(|it| self.member(it, &set));
            let members: Arc<[Arc<Member>]> = members.collect();
            self.arrange(InstanceSet {
                vanished: vanished(&set, &members),
                members,
                revision,
                freshness,
                dormant: false,
                awaited: false,
                ..InstanceSet::clone(&set)
            })
        };
        self.replace(next, &replacing);
        !same
    }

    /// What was known is no longer so, and nobody has said yet how it is.
    pub(crate) fn begin_anew(&self) {
        let replacing = self.replacing();
        let next = self.arrange(InstanceSet {
            members: Arc::new([]),
            vanished: Vanished::default(),
            revision: 0,
            freshness: Freshness::default(),
            dormant: false,
            awaited: false,
            ..InstanceSet::clone(&self.set.load())
        });
        self.replace(next, &replacing);
    }

    /// This is what an earlier process was told, so long ago; the registry has not been reached yet.
    pub(crate) fn remembered(
        &self,
        instances: Vec<ServiceInstance>,
        age: Duration,
        why: &Error,
        ended: &CancellationToken,
    ) {
        let now = Instant::now();
        let freshness = Freshness {
            answered_at: Some(now.checked_sub(age).unwrap_or(now)),
            stale: true,
            error: Some(why.report().to_string().into()),
        };
        // At once with the instances: nobody is to see them as if the registry stood behind them.
        let vanished = |_: &InstanceSet, _: &[Arc<Member>]| Vanished::default();
        self.take(instances, 0, freshness, Some(ended), vanished);
    }

    /// Who is missing from a new list and may be there all the same.
    ///
    /// Each is remembered for a while, however few: leases that nobody can renew run out one after the other, and the last
    /// one may be that of an instance that has gone.
    fn vanished(&self, before: &InstanceSet, now: &[Arc<Member>]) -> Vanished {
        let at = Instant::now();
        let Some(until) = at.checked_add(self.keep_vanished) else {
            return Vanished::default();
        };
        // By id they are in order. By place they are looked up only when an id is missing, which is seldom.
        let places = LazyCell::new(|| -> HashSet<(&str, u16)> {
            let instances = now.iter().map(|it| &it.instance);
            let places = instances.map(|it| (it.host.as_str(), it.port));
            places.collect()
        });
        let is_listed = |member: &Member| {
            let instance = &member.instance;
            let by_id = now.binary_search_by(|it| it.instance.id.cmp(&instance.id));
            by_id.is_ok() || places.contains(&(instance.host.as_str(), instance.port))
        };
        // One that was not watched for long may have changed in good order.
        let watched = !before.dormant && until > at;
        let missing = before.members.iter().filter(|member| {
            let took_requests = watched && member.is_usable();
            took_requests && !is_listed(member)
        });
        let missing = missing.map(|member| (Arc::clone(member), until));
        let known = before.vanished.members.iter();
        let known = known.filter(|(member, until)| *until > at && !is_listed(member));
        let mut members: Vec<_> = known.cloned().chain(missing).collect();
        // The youngest of very many are those that are most likely to be there.
        members.drain(..members.len().saturating_sub(MOST_VANISHED));
        let nobody = !now.iter().any(|member| member.is_usable());
        let was_away = before.freshness.stale && !before.dormant;
        let doubted = !members.is_empty() && (nobody || was_away || before.vanished.doubted);
        if doubted && !before.vanished.doubted {
            tracing::warn!(
                target: "trunkline::discovery",
                service = %self.service, missing = members.len(),
                "the registry no longer lists instances that it listed; they are asked when there is no other"
            );
        }
        Vanished {
            members: members.into(),
            doubted,
        }
    }

    /// The registry cannot be asked: what is known stays, marked stale.
    pub(crate) fn mark_stale(&self, error: &Error, ended: &CancellationToken) {
        let replacing = self.replacing();
        if !ended.is_cancelled() {
            self.stale(error, &replacing);
        }
    }

    fn stale(&self, error: &Error, replacing: &MutexGuard<'_, Checks>) {
        let set = self.set.load_full();
        let mut next = InstanceSet::clone(&set);
        next.freshness.stale = set.is_resolved();
        next.awaited = false;
        next.freshness.error = Some(error.report().to_string().into());
        self.replace(next, replacing);
    }

    /// No answer will come any more: whoever waits for one is told.
    pub(crate) fn end(&self, why: &Error) {
        self.ended.store(true, Ordering::Relaxed);
        self.stale(why, &self.replacing());
    }

    /// Nobody used the service for long: it is not watched any more.
    pub(crate) fn mark_dormant(&self, ended: &CancellationToken) {
        let replacing = self.replacing();
        if ended.is_cancelled() {
            return;
        }
        let mut next = InstanceSet::clone(&self.set.load());
        next.dormant = true;
        next.freshness.stale = next.is_resolved();
        next.awaited = next.is_resolved();
        self.replace(next, &replacing);
    }

    /// No newer list is worth a wait any more: what is known is used.
    pub(crate) fn go_by_what_is_known(&self) {
        if self.set.load().awaited {
            let replacing = self.replacing();
            let mut next = InstanceSet::clone(&self.set.load());
            next.awaited = false;
            self.replace(next, &replacing);
        }
    }

    pub(crate) fn is_dormant(&self) -> bool {
        self.set.load().dormant
    }

    /// Checks begin, in place of those that run.
    pub(crate) fn begin_checks(&self, running: Running) {
        if let Some(before) = self.replacing().own.replace(running) {
            before.stop.cancel();
        }
    }

    /// The check of an endpoint begins, in place of one of the same name. Says whether it is another one than runs
    /// already.
    ///
    /// # Errors
    /// `Exhausted` when there are too many of them.
    pub(crate) fn begin_endpoint_check(
        &self,
        check: &EndpointCheck,
        running: Running,
    ) -> Result<bool> {
        self.replacing().begin(check, running)
    }

    /// The checks of endpoints.
    pub(crate) fn endpoint_checks(&self) -> Vec<EndpointCheck> {
        self.replacing().endpoint_checks()
    }

    /// Who owns the checks of a service that is watched.
    pub(crate) fn scope(&self) -> Option<&Scope> {
        self.scope.as_ref()
    }

    /// Ends the checks: those that failed get requests again. Says whether there were any.
    pub(crate) fn end_checks(&self) -> bool {
        let mut replacing = self.replacing();
        let Some(running) = replacing.own.take() else {
            return false;
        };
        running.stop.cancel();
        let set = self.set.load_full();
        let back = set
            .members
            .iter()
            .map(|it| it.load.set_passing(Checks::OWN, true));
        if back.fold(false, |any, changed| any | changed) {
            let next = self.arrange(InstanceSet::clone(&set));
            self.replace(next, &replacing);
        }
        true
    }

    pub(crate) fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    /// How each instance is, as far as it is known.
    pub(crate) fn health(&self, set: &InstanceSet) -> ServiceHealth {
        let said = self.replacing().results();
        ServiceHealth::of(set, &said)
    }

    /// A check has passed or keeps failing. Says whether that is a change. The word of checks that were ended, which
    /// may be about to speak at that moment, counts for nothing.
    pub(crate) fn checked(&self, by: &Results, id: &str, passes: bool) -> bool {
        let replacing = self.replacing();
        let Some(check) = replacing.slot_of(by) else {
            return false;
        };
        let set = self.set.load_full();
        let Some(member) = set.member(id) else {
            return false;
        };
        let changed = {
            let _leaving = self.leaving();
            let was_sound = member.is_sound();
            let changed = member.load.set_passing(check, passes);
            if was_sound && !member.is_sound() {
                set.standing.goes(false, true);
            }
            changed
        };
        if changed && set.len() > MANY {
            // When a network fails, all of them fail within moments: not each has tables made.
            drop(replacing);
            self.rearrange();
        } else if changed {
            let next = self.arrange(InstanceSet::clone(&set));
            self.replace(next, &replacing);
        }
        changed
    }

    /// Makes a member of an instance: with the load it has if it is known and has not moved.
    fn member(&self, instance: ServiceInstance, known: &InstanceSet) -> Arc<Member> {
        let vanished = || {
            let mut vanished = known.vanished.members.iter().map(|(member, _)| member);
            vanished.find(|it| it.instance.id == instance.id && !it.load.is_given_up())
        };
        let before = known.member(&instance.id).or_else(vanished);
        if let Some(before) = before.filter(|before| *before.instance == instance) {
            return Arc::clone(before);
        }
        let stayed = before.filter(|before| {
            before.instance.host == instance.host && before.instance.port == instance.port
        });
        let every = self.balance.ejection.compares();
        let every = every.then_some(self.balance.ejection.interval.max(SHORTEST_INTERVAL));
        let load = stayed.map_or_else(
            || Arc::new(Load::new(every, !known.members.is_empty())),
            |before| Arc::clone(&before.load),
        );
        Arc::new(Member {
            instance: Arc::new(instance),
            load,
            pool: Weak::clone(&self.myself),
        })
    }

    fn replace(&self, mut set: InstanceSet, _replacing: &MutexGuard<'_, Checks>) {
        let (before, set) = {
            // Whoever is taken out meanwhile is counted here or there, and not lost between both.
            let _leaving = self.leaving();
            set.standing = Arc::new(Standing::of(&set.members));
            set.sound = set.standing.sound();
            let set = Arc::new(set);
            (self.set.swap(Arc::clone(&set)), set)
        };
        let ejected = set.ejected();
        let unhealthy = set.len().saturating_sub(set.sound + ejected);
        self.metrics.instances(set.sound, unhealthy, ejected);
        self.metrics.stale(set.age());
        self.changed.send_replace(());
        self.replaced.send_replace(());
        if set.readmit_at.is_some() && set.readmit_at != before.readmit_at {
            self.see_to_it();
        }
        let flipped = (before.sound > 0) != (set.sound > 0);
        if let Some(listeners) = &self.health_changes
            && before.is_resolved()
            && flipped
        {
            // No listener is not an error.
            drop(listeners.send(ServiceHealthChange::new(set)));
        }
    }

    /// The same, unless somebody else is about to replace the set.
    fn try_replacing(&self) -> Option<MutexGuard<'_, Checks>> {
        match self.replacing.try_lock() {
            Ok(replacing) => Some(replacing),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn replacing(&self) -> MutexGuard<'_, Checks> {
        self.replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> MutexGuard<'_, ()> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.todo.tell();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.service).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_was_ended_changes_nothing_any_more() {
        let name = ServiceName::new("users").unwrap();
        let instance = |host: &str| ServiceInstance::new(name.clone(), host, 80);
        let known = Instances::fixed(name.clone(), vec![instance("known")]);
        let (pool, ended) = (known.pool(), CancellationToken::new());
        ended.cancel();
        let error = Error::unavailable("away");
        assert!(!pool.listed(vec![instance("late")], 1, &ended));
        pool.remembered(vec![instance("late")], Duration::ZERO, &error, &ended);
        pool.mark_stale(&error, &ended);
        pool.mark_dormant(&ended);
        let set = known.snapshot();
        assert!(set.instances().all(|it| it.host == "known"));
        assert!(!set.is_stale());
        let watching = CancellationToken::new();
        assert!(pool.listed(vec![instance("new")], 1, &watching));
    }
}
