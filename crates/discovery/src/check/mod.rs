//! Checking instances from here: is there somebody, and does he say that he is well?
//!
//! A [`Probe`] asks one instance; `trunkline-http` brings one that asks its health path. Where there is one, the instances
//! of a service are checked from the first time on that somebody asks for the service, for as long as it is used; those
//! that name no health path are left alone, so nobody is taken out for not having one. An instance that fails as many
//! checks in a row as configured gets no more requests at that moment, and gets them again after enough good ones. After
//! the first one that says otherwise than before the next ones come soon, so that either does not take whole intervals. One
//! that answers that it is not well is believed at once; and a call that fails brings the next check forward, which takes the
//! instance out if it fails as well.

mod endpoint;
mod health;
mod plan;
mod probe;
mod round;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, ErrorKind, Result, task};

pub use endpoint::EndpointCheck;
pub(crate) use endpoint::{Checks, begin_endpoint};
pub use health::{CheckResult, InstanceHealth, ServiceHealth, ServiceHealthChange};
pub use probe::{AnyProbe, Probe};
pub(crate) use round::Rounds;
use round::{Found, Round};
pub(crate) use run::Results;
use run::{Asked, Checking};

use crate::config::{CheckKind, HealthCheckConfig};
use crate::discovery::Discovery;
use crate::instance::ServiceName;
use crate::instances::{Instances, Pool};
use crate::resolver::Resolver;

/// Most services that are asked at a time on demand.
const AT_ONCE: usize = 16;

/// The checks of one service that run, and what they have said.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    pub(crate) results: Results,
}

/// How the instances of a service are checked.
#[derive(Clone, Debug)]
pub(crate) struct CheckPlan {
    config: HealthCheckConfig,
    /// Whether this was said of the one service.
    by_name: bool,
}

impl CheckPlan {
    /// As is said of all services.
    pub(crate) fn of_all(config: HealthCheckConfig) -> Self {
        Self {
            config,
            by_name: false,
        }
    }

    /// As is said of this service alone.
    pub(crate) fn of_one(config: HealthCheckConfig) -> Self {
        Self {
            config,
            by_name: true,
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.config.enabled
    }

    /// Whoever names no path is asked only where that was asked for by name, and for something else than a path.
    fn asked(&self) -> Asked {
        if self.by_name && self.config.kind != CheckKind::Http {
            Asked::Everyone
        } else {
            Asked::HealthPath
        }
    }
}

/// Begins to check the instances of a service, in place of checks that run. They go on until they are stopped, or
/// nothing holds the pool any more; `keep` is dropped with them.
pub(crate) fn begin(
    pool: &Arc<Pool>,
    probe: &AnyProbe,
    plan: &CheckPlan,
    scope: &Scope,
    keep: Option<InUse>,
) {
    let stop = scope.token().child_token();
    let results = Results::default();
    pool.begin_checks(Running {
        stop: stop.clone(),
        results: results.clone(),
    });
    let checking = Checking::new(
        pool,
        probe.clone(),
        plan.config.clone(),
        results,
        plan.asked(),
    );
    scope.spawn("discovery-checks", async move {
        let _keep = keep;
        tokio::select! {
            () = stop.cancelled() => {}
            () = checking.run() => {}
        }
    });
}

/// Keeps a service in use although nobody calls it.
pub(crate) struct InUse {
    _instances: Instances,
    _changes: watch::Receiver<()>,
}

impl InUse {
    fn of(instances: Instances) -> Self {
        Self {
            _changes: instances.changes(),
            _instances: instances,
        }
    }
}

impl Discovery {
    /// Begins to check the instances of a service, each at its own moment, until it is told to stop; meanwhile the
    /// service is watched whether it is used or not. Does nothing when `config` has checks switched off; checks that run
    /// already, such as those that the configuration began, are replaced.
    ///
    /// # Errors
    /// `Unsupported` when there is no probe; `Cancelled` after shutdown.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start_checks(&self, service: &ServiceName, config: &HealthCheckConfig) -> Result<()> {
        self.check_open("start_checks")?;
        let Some(probe) = &self.inner().probe else {
            return Err(Error::unsupported(
                "instances cannot be checked: there is no probe",
            ));
        };
        if !config.enabled {
            return Ok(());
        }
        let instances = self.instances(service);
        let pool = Arc::clone(instances.pool());
        let keep = Some(InUse::of(instances));
        let plan = CheckPlan::of_one(config.clone());
        begin(&pool, probe, &plan, &self.inner().scope, keep);
        Ok(())
    }

    /// Stops checking the instances of a service: those that failed get requests again. Says whether it was checked. It
    /// stays so until [`Discovery::start_checks`], or until the service is asked for anew after it was forgotten.
    pub fn stop_checks(&self, service: &ServiceName) -> bool {
        let pool = self.inner().cache.pool(service);
        pool.is_some_and(|pool| pool.end_checks())
    }

    /// Whether a service has an instance that is well. With a probe every instance that takes requests is asked now, within
    /// the configured time; one that names no health path is well by its own word. Endpoints that are checked
    /// ([`Instances::check_endpoint`]) are asked too. Without either it is what is known.
    ///
    /// Those who ask while others do share one round of asking, which takes no longer than two instances that do not answer,
    /// however many there are. A caller waits at most until the deadline of its [`Context`].
    ///
    /// # Errors
    /// `Unavailable` when it is not known who the instances are; `Timeout` when the time was over before one was well or all
    /// were asked; `Cancelled` after shutdown.
    ///
    /// # Cancel safety
    /// Cancel safe; the round goes on for others.
    pub async fn health_check_service(&self, service: &ServiceName) -> Result<bool> {
        self.discover_services(service).await?;
        let instances = self.instances(service);
        let set = instances.snapshot();
        let own = self.inner().probe.clone();
        let endpoints = instances.pool().endpoint_checks();
        if own.is_none() && endpoints.is_empty() {
            return Ok(set.is_healthy());
        }
        let begin = || {
            let plan = |probe| (probe, self.inner().cache.plan_of(service));
            Round::of(&set, own.map(plan), endpoints)
        };
        let found = instances.pool().rounds().ask(&self.inner().scope, begin);
        let deadline = Context::current().and_then(|context| context.deadline());
        let found = match deadline {
            Some(deadline) => timeout_at(deadline, found).await,
            None => Ok(found.await),
        };
        let too_late = |what: String| Error::timeout(what).with_operation("health_check_service");
        match found {
            Ok(Ok(Found::OutOfTime { left })) => Err(too_late(format!(
                "no instance of service {service} that was asked is well, and {left} did not answer in time"
            ))),
            Ok(found) => Ok(found? == Found::Well),
            Err(_) => Err(too_late(format!(
                "the deadline was over before an instance of service {service} was well"
            ))),
        }
    }

    /// How each instance of a service is, as far as it is known: its own word, the last check from here, and whether
    /// requests to it keep failing.
    ///
    /// # Errors
    /// `Unavailable` when it is not known who the instances are.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn service_health(&self, service: &ServiceName) -> Result<ServiceHealth> {
        self.discover_services(service).await?;
        Ok(self.instances(service).health())
    }

    /// How every service is: those of the registry, those named here, and those that were asked for. Asking does not
    /// begin to watch them. A service that cannot be asked about says so by itself. Where the registry cannot say which
    /// services there are, those that are known here are told.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Unsupported` when the registry cannot say which services there are, and none is known here.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "get_all_service_health")]
    pub async fn all_service_health(&self) -> Result<BTreeMap<ServiceName, ServiceHealth>> {
        let known = self.inner().cache.asked_for().into_iter();
        let mut names: Vec<ServiceName> = known.chain(self.inner().cache.statics()).collect();
        match self.services().await {
            Ok(listed) => names.extend(listed),
            Err(error) if names.is_empty() || error.kind() == ErrorKind::Cancelled => {
                return Err(error);
            }
            Err(error) => tracing::warn!(
                target: "trunkline::discovery",
                known = names.len(), error = %error.report(),
                "the registry does not say which services there are; those that are known here are told"
            ),
        }
        names.sort_unstable();
        names.dedup();
        let asked = stream::iter(names)
            .map(async |name| {
                let health = self.health_now(&name).await;
                (name, health)
            })
            .buffer_unordered(AT_ONCE);
        Ok(asked.collect().await)
    }

    /// Calls back, one change after the other, whenever a service that is watched gets its first healthy instance or
    /// loses its last one. It ends with discovery; a panic in it is logged.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn on_service_health_change<F, Fut>(&self, callback: F)
    where
        F: Fn(ServiceHealthChange) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut changes = self.inner().health_changes.subscribe();
        let stop = self.inner().scope.token();
        let listen = async move {
            loop {
                match changes.recv().await {
                    Ok(change) => {
                        if let Err(panic) = task::catch_panic(callback(change)).await {
                            tracing::error!(
                                target: "trunkline::discovery",
                                error = %panic, "a callback on the health of services panicked"
                            );
                        }
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(
                            target: "trunkline::discovery",
                            missed, "a callback on the health of services is too slow"
                        )
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        };
        self.inner()
            .scope
            .spawn("discovery-health-callback", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = listen => {}
                }
            });
    }

    async fn health_now(&self, service: &ServiceName) -> ServiceHealth {
        if let Some(known) = self.inner().cache.find(service) {
            let answered = timeout_at(self.deadline(), known.resolved(self.deadline())).await;
            // Without an answer there is nothing known of it, which is what is told.
            drop(answered);
            return known.health();
        }
        match &self.inner().resolver {
            None => ServiceHealth::default(),
            Some(resolver) => match self.within("resolve", resolver.resolve(service)).await {
                Ok(list) => ServiceHealth::by_their_word(list.instances),
                Err(error) => ServiceHealth::unknown(&error),
            },
        }
    }
}

/// Spreads the first checks of many instances over a part of the interval.
fn first_wait(config: &HealthCheckConfig) -> Duration {
    config.interval.mul_f64(fastrand::f64() / 10.0)
}

/// An interval of nothing, which code can give, is no reason to do nothing but check.
const LEAST_WAIT: Duration = Duration::from_millis(10);

/// Keeps checks of many instances, and of many callers, from falling into step.
fn next_wait(config: &HealthCheckConfig) -> Duration {
    spread(config.interval, config)
}

/// While it is counted whether an instance has failed or come back, the next check is not far.
fn confirming_wait(config: &HealthCheckConfig) -> Duration {
    spread(config.confirm_interval.min(config.interval), config)
}

fn spread(span: Duration, config: &HealthCheckConfig) -> Duration {
    let jitter = f64::from(config.jitter_percent.min(100)) / 100.0;
    let factor = 1.0 - jitter + 2.0 * jitter * fastrand::f64();
    // Never at once again: a whole interval of jitter must not become a loop.
    let wait = span.mul_f64(factor.max(0.01));
    wait.max(LEAST_WAIT)
}
