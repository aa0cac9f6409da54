//! The task that checks the instances of one service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use trunkline_core::{BoxFuture, Error, Origin, Result, task};

use super::health::CheckResult;
use super::plan::{Plan, at_once, failing_wait};
use super::probe::{AnyProbe, Probe};
use super::{LEAST_WAIT, confirming_wait, first_wait, next_wait};
use crate::config::HealthCheckConfig;
use crate::instance::ServiceInstance;
use crate::instances::Pool;
use crate::set::InstanceSet;

/// What the last checks of a service's instances said, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results(Arc<Mutex<HashMap<String, CheckResult>>>);

impl Results {
    pub(super) fn get(&self, id: &str) -> Option<CheckResult> {
        self.lock().get(id).cloned()
    }

    /// Whether these are the same, not only alike.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CheckResult>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one instance, within the time allowed. A probe that panics has failed.
pub(crate) async fn ask(
    probe: AnyProbe,
    instance: Arc<ServiceInstance>,
    settings: &HealthCheckConfig,
) -> Result<()> {
    let time = settings.timeout;
    let answer = task::catch_panic(probe.probe_by(&instance, settings));
    match timeout(time, answer).await {
        Ok(answer) => answer?,
        Err(_) => {
            let span = trunkline_core::duration::format(time);
            Err(Error::timeout(format!(
                "no answer to the health check within {span}"
            )))
        }
    }
}

/// Calls that fail are looked at no more often than this, and then all together.
const LOOK: Duration = Duration::from_millis(20);

/// Where an instance can be asked.
type Place = (String, u16);

fn place_of(instance: &ServiceInstance) -> Place {
    (instance.host.clone(), instance.port)
}

/// One check that is over.
struct Checked {
    id: String,
    place: Place,
    result: Result<()>,
    began: Instant,
}

/// Which instances are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Those that name a health path.
    HealthPath,
    /// All of them, whatever they name: for an endpoint, or in another way than for a path.
    Everyone,
}

impl Asked {
    pub(super) fn asks(self, instance: &ServiceInstance) -> bool {
        self == Self::Everyone || instance.is_checked()
    }
}

/// Why one failed check may be enough.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sure {
    /// The instance has answered that it is not well.
    ItsWord,
    /// A call to it has failed just before.
    AfterACall,
    /// It is not: it takes as many as are configured.
    No,
}

pub(super) struct Checking {
    /// Checks alone do not keep a service known.
    pool: Weak<Pool>,
    changes: watch::Receiver<()>,
    /// Tells that a call has failed.
    doubts: watch::Receiver<()>,
    /// When it is looked who is in doubt, if somebody is.
    look_at: Option<Instant>,
    looked_at: Instant,
    probe: AnyProbe,
    config: Arc<HealthCheckConfig>,
    results: Results,
    asked: Asked,
    plan: Plan,
    /// How many may be asked at a time.
    at_once: usize,
    /// Good checks in a row of those that were failing last.
    recovering: HashMap<String, u32>,
    /// Where each was when it was asked last: what was said of another place counts for nothing.
    places: HashMap<String, Place>,
    under_way: FuturesUnordered<BoxFuture<'static, Checked>>,
}

impl Checking {
    pub(super) fn new(
        pool: &Arc<Pool>,
        probe: AnyProbe,
        config: HealthCheckConfig,
        results: Results,
        asked: Asked,
    ) -> Self {
        Self {
            changes: pool.replacements(),
            doubts: pool.doubts(),
            look_at: None,
            looked_at: Instant::now(),
            pool: Arc::downgrade(pool),
            probe,
            config: Arc::new(config),
            results,
            asked,
            plan: Plan::default(),
            at_once: 1,
            recovering: HashMap::new(),
            places: HashMap::new(),
            under_way: FuturesUnordered::new(),
        }
    }

    /// Runs until it is dropped, or nobody knows the service any more.
    pub(super) async fn run(mut self) {
        self.take_stock();
        loop {
            let next = self.plan.next(self.at_once);
            tokio::select! {
                Some(checked) = self.under_way.next() => self.checked(checked),
                () = at(next) => self.begin(),
                () = at(self.look_at) => self.take_doubts(),
                doubted = self.doubts.changed(), if self.look_at.is_none() => match doubted {
                    Ok(()) => self.look_at = Some(self.looked_at + LOOK),
                    Err(_) => return,
                },
                changed = self.changes.changed() => match changed {
                    Ok(()) => self.take_stock(),
                    Err(_) => return,
                },
            }
        }
    }

    /// Plans checks of instances that are new, and forgets those that are gone. While nobody uses the service nobody is
    /// asked.
    fn take_stock(&mut self) {
        self.changes.mark_unchanged();
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let set = pool.peek();
        let known = self.plan.ids();
        let gone = known.filter(|id| set.dormant || !self.is_asked(&set, id));
        let gone: Vec<String> = gone.cloned().collect();
        for id in gone {
            self.plan.forget(&id);
            self.recovering.remove(&id);
            self.places.remove(&id);
            if !self.is_asked(&set, &id) {
                self.results.lock().remove(&id);
                // It may have failed before it took its health path back.
                pool.checked(&self.results, &id, true);
            }
        }
        if set.dormant {
            return;
        }
        let (asked, mut count) = (self.asked, 0);
        for instance in set.instances().filter(|instance| asked.asks(instance)) {
            count += 1;
            if !self.plan.knows(&instance.id) {
                self.plan.wait(&instance.id, first_wait(&self.config));
            }
        }
        self.at_once = at_once(count, &self.config);
    }

    /// Calls to some have failed: those are asked before it is their turn.
    fn take_doubts(&mut self) {
        self.look_at = None;
        self.looked_at = Instant::now();
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        for member in pool.peek().members.iter() {
            if let Some(when) = member.load.doubted_at() {
                self.is_doubted(&member.instance.id, when);
            }
        }
    }

    fn is_doubted(&mut self, id: &str, when: Instant) {
        let failures = self.results.get(id).map_or(0, |last| last.failures);
        // Who is out for good gets no calls by which it could come back.
        if failures < self.config.failure_threshold {
            self.plan.is_doubted(id, when, &self.config);
        }
    }

    fn is_asked(&self, set: &InstanceSet, id: &str) -> bool {
        set.member(id)
            .is_some_and(|member| self.asked.asks(&member.instance))
    }

    /// Asks the instance that is due.
    fn begin(&mut self) {
        let Some(id) = self.plan.take(self.at_once) else {
            return;
        };
        let set = self.pool.upgrade().map(|pool| pool.peek());
        let member = set.as_ref().and_then(|set| set.member(&id));
        let Some(instance) = member.map(|member| Arc::clone(&member.instance)) else {
            self.plan.forget(&id);
            return;
        };
        let place = place_of(&instance);
        let (probe, settings) = (self.probe.clone(), Arc::clone(&self.config));
        let began = Instant::now();
        self.under_way.push(Box::pin(async move {
            let result = ask(probe, instance, &settings).await;
            Checked {
                id,
                place,
                result,
                began,
            }
        }));
    }

    fn checked(&mut self, checked: Checked) {
        let Checked {
            id,
            place,
            result,
            began,
        } = checked;
        // It left while it was asked.
        if !self.plan.knows(&id) {
            return;
        }
        let called_for = self.plan.asked(&id, began, result.is_err(), &self.config);
        let set = self.pool.upgrade().map(|pool| pool.peek());
        let member = set.as_ref().and_then(|set| set.member(&id));
        if member.is_some_and(|member| place_of(&member.instance) != place) {
            // It moved while it was asked: that was said of where it was.
            self.plan.wait(&id, LEAST_WAIT);
            return;
        }
        if self
            .places
            .insert(id.clone(), place.clone())
            .is_some_and(|before| before != place)
        {
            self.results.lock().remove(&id);
            self.recovering.remove(&id);
        }
        let before = self.results.get(&id).map_or(0, |last| last.failures);
        let result = result.err();
        let sure = match &result {
            None => Sure::No,
            // It says so itself: there is nothing to confirm.
            Some(error) if error.origin() == Origin::Remote => Sure::ItsWord,
            Some(_) if called_for => Sure::AfterACall,
            Some(_) => Sure::No,
        };
        let error = result.map(|error| error.report().to_string());
        let failures = if error.is_some() {
            before.saturating_add(1)
        } else {
            0
        };
        let last = CheckResult {
            error: error.clone(),
            failures,
            at: Instant::now(),
            took: began.elapsed(),
        };
        self.results.lock().insert(id.clone(), last);
        if self.is_steady(&id, before, failures) {
            self.judge(&id, failures, sure, error.as_deref());
        }
        let wait = if failures >= self.config.failure_threshold.max(1) {
            failing_wait(
                failures - self.config.failure_threshold.max(1),
                &self.config,
            )
        } else if failures > 0 || self.recovering.contains_key(&id) {
            confirming_wait(&self.config)
        } else {
            next_wait(&self.config)
        };
        self.plan.wait(&id, wait);
        // Since it began to be asked a call has failed: what it says now was asked before.
        let doubted = member.and_then(|member| member.load.doubted_at());
        if let Some(when) = doubted {
            self.is_doubted(&id, when);
        }
    }

    /// Whether the last check counts: a good one of those that failed does so when enough were good in a row.
    fn is_steady(&mut self, id: &str, before: u32, failures: u32) -> bool {
        if failures > 0 {
            self.recovering.remove(id);
            return true;
        }
        if before > 0 {
            self.recovering.insert(id.to_owned(), 0);
        }
        let Some(good) = self.recovering.get_mut(id) else {
            return true;
        };
        *good = good.saturating_add(1);
        let steady = *good >= self.config.success_threshold;
        if steady {
            self.recovering.remove(id);
        }
        steady
    }

    fn judge(&self, id: &str, failures: u32, sure: Sure, error: Option<&str>) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let threshold = self.config.failure_threshold.max(1);
        let service = pool.service();
        if failures == 0 {
            if pool.checked(&self.results, id, true) {
                tracing::info!(target: "trunkline::discovery", %service, instance = id, "instance passes its checks again");
            }
            return;
        }
        let is_sure = match sure {
            Sure::ItsWord => true,
            // Silence may be the fault of what is asked of all of them.
            Sure::AfterACall => pool.can_spare(id),
            Sure::No => false,
        };
        if (is_sure || failures >= threshold) && pool.checked(&self.results, id, false) {
            tracing::warn!(
                target: "trunkline::discovery",
                %service, instance = id, failures, error,
                "instance fails its checks and gets no more requests"
            );
        }
    }
}

async fn at(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Running;
    use crate::instance::ServiceName;
    use crate::instances::Instances;

    struct Silent;

    impl Probe for Silent {
        async fn probe(&self, _: &ServiceInstance) -> Result<()> {
            std::future::pending().await
        }
    }

    fn begun(instances: &Instances) -> Checking {
        let results = Results::default();
        instances.pool().begin_checks(Running {
            stop: tokio_util::sync::CancellationToken::new(),
            results: results.clone(),
        });
        let config = HealthCheckConfig::default().with_failure_threshold(1);
        let mut checking = Checking::new(
            instances.pool(),
            Silent.erase(),
            config,
            results,
            Asked::HealthPath,
        );
        checking.take_stock();
        checking
    }

    fn failed(id: &str) -> Checked {
        Checked {
            id: id.to_owned(),
            place: (id.to_owned(), 80),
            result: Err(Error::unavailable("503")),
            began: Instant::now(),
        }
    }

    /// A check may be judged on one thread while another one stops the checks.
    #[tokio::test(start_paused = true)]
    async fn a_verdict_that_comes_after_the_stop_counts_for_nothing() {
        let name = ServiceName::new("users").expect("a name");
        let two = ["a", "b"].map(|id| ServiceInstance::new(name.clone(), id, 80).with_id(id));
        let instances = Instances::fixed(name, two.into());
        let in_rotation = || instances.snapshot().in_rotation().len();
        let mut checking = begun(&instances);
        checking.checked(failed("a"));
        assert_eq!(in_rotation(), 1);
        assert!(instances.pool().end_checks());
        assert_eq!(in_rotation(), 2);
        checking.checked(failed("a"));
        assert_eq!(in_rotation(), 2);
        let mut later = begun(&instances);
        checking.checked(failed("a"));
        assert_eq!(in_rotation(), 2, "nor beside checks that came after");
        later.checked(failed("a"));
        assert_eq!(in_rotation(), 1);
    }
}
