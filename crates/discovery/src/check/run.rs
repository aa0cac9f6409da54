//! The task that checks the instances of one service.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use trunkline_core::{BoxFuture, Error, Result, task};

use super::health::CheckResult;
use super::probe::{AnyProbe, Probe};
use super::{AT_ONCE, first_wait, next_wait};
use crate::config::HealthCheckConfig;
use crate::instance::ServiceInstance;
use crate::instances::Instances;

/// What the last checks of a service's instances said, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results(Arc<Mutex<HashMap<String, CheckResult>>>);

impl Results {
    pub(super) fn get(&self, id: &str) -> Option<CheckResult> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CheckResult>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one instance, within the time allowed. A probe that panics has failed.
pub(crate) async fn ask(
    probe: AnyProbe,
    instance: Arc<ServiceInstance>,
    time: Duration,
) -> Result<()> {
    let asked = timeout(time, task::catch_panic(probe.probe(&instance))).await;
    match asked {
        Ok(answer) => answer?,
        Err(_) => {
            let span = trunkline_core::duration::format(time);
            Err(Error::timeout(format!(
                "no answer to the health check within {span}"
            )))
        }
    }
}

/// One check that is over.
struct Checked {
    id: String,
    result: Result<()>,
    began: Instant,
}

pub(super) struct Checking {
    instances: Instances,
    changes: watch::Receiver<()>,
    probe: AnyProbe,
    config: HealthCheckConfig,
    results: Results,
    /// The instances that wait for their next check, the next one first.
    due: BTreeSet<(Instant, String)>,
    /// When each is due; `None` while it is being asked.
    plan: HashMap<String, Option<Instant>>,
    under_way: FuturesUnordered<BoxFuture<'static, Checked>>,
}

impl Checking {
    pub(super) fn new(
        instances: Instances,
        probe: AnyProbe,
        config: HealthCheckConfig,
        results: Results,
    ) -> Self {
        Self {
            changes: instances.changes(),
            instances,
            probe,
            config,
            results,
            due: BTreeSet::new(),
            plan: HashMap::new(),
            under_way: FuturesUnordered::new(),
        }
    }

    /// Runs until it is dropped.
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

    /// Plans checks of instances that are new, and forgets those that are gone.
    fn take_stock(&mut self) {
        self.changes.mark_unchanged();
        let set = self.instances.snapshot();
        let gone: Vec<String> = self
            .plan
            .keys()
            .filter(|id| set.member(id).is_none())
            .cloned()
            .collect();
        for id in gone {
            if let Some(Some(at)) = self.plan.remove(&id) {
                self.due.remove(&(at, id.clone()));
            }
            self.results.lock().remove(&id);
        }
        for instance in set.instances() {
            if !self.plan.contains_key(&instance.id) {
                self.wait(instance.id.clone(), first_wait(self.config.interval));
            }
        }
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
        let set = self.instances.snapshot();
        let Some(member) = set.member(&id) else {
            self.plan.remove(&id);
            return;
        };
        self.plan.insert(id.clone(), None);
        let instance = Arc::clone(&member.instance);
        let (probe, time) = (self.probe.clone(), self.config.timeout);
        let began = Instant::now();
        self.under_way.push(Box::pin(async move {
            let result = ask(probe, instance, time).await;
            Checked { id, result, began }
        }));
    }

    fn checked(&mut self, checked: Checked) {
        let Checked { id, result, began } = checked;
        // It left while it was asked.
        if !self.plan.contains_key(&id) {
            return;
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
        self.judge(&id, failures, error.as_deref());
        self.wait(id, next_wait(self.config.interval));
    }

    fn judge(&self, id: &str, failures: u32, error: Option<&str>) {
        let threshold = self.config.failure_threshold.max(1);
        let service = self.instances.service();
        if failures == 0 {
            if self.instances.pool().checked(id, true) {
                tracing::info!(target: "trunkline::discovery", %service, instance = id, "instance passes its checks again");
            }
        } else if failures >= threshold && self.instances.pool().checked(id, false) {
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
