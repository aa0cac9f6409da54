//! The task that checks the instances of one service.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use trunkline_core::{BoxFuture, Error, Result, task};

use super::health::CheckResult;
use super::probe::{AnyProbe, Probe};
use super::{AT_ONCE, LEAST_WAIT, confirming_wait, first_wait, next_wait};
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

pub(super) struct Checking {
    /// Checks alone do not keep a service known.
    pool: Weak<Pool>,
    changes: watch::Receiver<()>,
    probe: AnyProbe,
    config: Arc<HealthCheckConfig>,
    results: Results,
    asked: Asked,
    /// The instances that wait for their next check, the next one first.
    due: BTreeSet<(Instant, String)>,
    /// When each is due; `None` while it is being asked.
    plan: HashMap<String, Option<Instant>>,
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
            pool: Arc::downgrade(pool),
            probe,
            config: Arc::new(config),
            results,
            asked,
            due: BTreeSet::new(),
            plan: HashMap::new(),
            recovering: HashMap::new(),
            places: HashMap::new(),
            under_way: FuturesUnordered::new(),
        }
    }

    /// Runs until it is dropped, or nobody knows the service any more.
    pub(super) async fn run(mut self) {
        self.take_stock();
        loop {
            let full = self.under_way.len() >= AT_ONCE;
            let next = self.due.first().map(|(at, _)| *at).filter(|_| !full);
            tokio::select! {
                Some(checked) = self.under_way.next() => self.checked(checked),
                () = at(next) => self.begin(),
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
        let gone: Vec<String> = self
            .plan
            .keys()
            .filter(|id| set.dormant || !self.is_asked(&set, id))
            .cloned()
            .collect();
        for id in gone {
            if let Some(Some(at)) = self.plan.remove(&id) {
                self.due.remove(&(at, id.clone()));
            }
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
        let asked = self.asked;
        for instance in set.instances().filter(|instance| asked.asks(instance)) {
            if !self.plan.contains_key(&instance.id) {
                self.wait(instance.id.clone(), first_wait(&self.config));
            }
        }
    }

    fn is_asked(&self, set: &InstanceSet, id: &str) -> bool {
        set.member(id)
            .is_some_and(|member| self.asked.asks(&member.instance))
    }

    fn wait(&mut self, id: String, span: Duration) {
        let at = Instant::now() + span;
        self.plan.insert(id.clone(), Some(at));
        self.due.insert((at, id));
    }

    /// Asks the instance that is due.
    fn begin(&mut self) {
        let Some((_, id)) = self.due.pop_first() else {
            return;
        };
        let set = self.pool.upgrade().map(|pool| pool.peek());
        let member = set.as_ref().and_then(|set| set.member(&id));
        let Some(instance) = member.map(|member| Arc::clone(&member.instance)) else {
            self.plan.remove(&id);
            return;
        };
        self.plan.insert(id.clone(), None);
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
        if !self.plan.contains_key(&id) {
            return;
        }
        let set = self.pool.upgrade().map(|pool| pool.peek());
        let member = set.as_ref().and_then(|set| set.member(&id));
        if member.is_some_and(|member| place_of(&member.instance) != place) {
            // It moved while it was asked: that was said of where it was.
            self.wait(id, LEAST_WAIT);
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
        let error = result.err().map(|error| error.report().to_string());
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
            self.judge(&id, failures, error.as_deref());
        }
        let counting = failures > 0 && failures < self.config.failure_threshold;
        let wait = if counting || self.recovering.contains_key(&id) {
            confirming_wait(&self.config)
        } else {
            next_wait(&self.config)
        };
        self.wait(id, wait);
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

    fn judge(&self, id: &str, failures: u32, error: Option<&str>) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let threshold = self.config.failure_threshold.max(1);
        let service = pool.service();
        if failures == 0 {
            if pool.checked(&self.results, id, true) {
                tracing::info!(target: "trunkline::discovery", %service, instance = id, "instance passes its checks again");
            }
        } else if failures >= threshold && pool.checked(&self.results, id, false) {
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
