//! Announcing instances, and seeing to it that the announcement stands.
//!
//! A registration is announced, renewed at a third of its time, announced again when the registry has forgotten it, and
//! withdrawn at the end. It starts with the registry down and picks it up later.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use trunkline_core::health::HealthChange;
use trunkline_core::{Error, ErrorKind, Health, Result};
use trunkline_telemetry::metrics::RegistrationMetrics;

use crate::backoff::Backoff;
use crate::discovery::Discovery;
use crate::erased::AnyRegistry;
use crate::instance::{InstanceStatus, ServiceInstance};
use crate::pulse::Listener;
use crate::registry::{Lease, Registry};
use crate::report::{Reporter, Weight};

/// Readiness has no signal for everything that goes into it, so it is looked at this often.
const LOOK_AT_READINESS: Duration = Duration::from_secs(1);

/// Changes in quick succession are told together.
const SETTLE: Duration = Duration::from_millis(100);

/// How a registration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationState {
    /// It has not been announced yet. Holds the last error, if there was one.
    Pending(Option<String>),
    /// It stands.
    Registered,
    /// It stood, and may be gone by now: it could not be renewed in time.
    Lost(String),
    /// It was withdrawn.
    Withdrawn,
}

/// An instance that is kept announced until [`Registration::deregister`], or until discovery is shut down. Clones
/// control the same registration; dropping them changes nothing.
#[derive(Clone)]
pub struct Registration(Arc<Shared>);

struct Shared {
    wanted: Mutex<Wanted>,
    changed: Notify,
    state: watch::Sender<RegistrationState>,
    announced: watch::Sender<u64>,
    /// The status that the registry was told last, while it knows the announcement.
    told: watch::Sender<Option<InstanceStatus>>,
    stop: CancellationToken,
}

struct Wanted {
    instance: ServiceInstance,
    draining: bool,
}

impl Discovery {
    /// Announces the running service, and keeps it announced: its status is `up` while the service is ready, `down`
    /// while it is not. Returns at once; the registry may come later.
    ///
    /// # Errors
    /// `Invalid` when the instance is not sound, `Unsupported` when instances are not announced here, `Cancelled` after
    /// shutdown.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn register_current_service(
        &self,
        instance: ServiceInstance,
        health: &Health,
    ) -> Result<Registration> {
        self.supervise(instance, Some(health.clone()))
    }

    /// Announces an instance, and keeps it announced with the status it has. Returns at once; the registry may come
    /// later.
    ///
    /// # Errors
    /// As [`Discovery::register_current_service`].
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn register(&self, instance: ServiceInstance) -> Result<Registration> {
        self.supervise(instance, None)
    }

    fn supervise(&self, instance: ServiceInstance, health: Option<Health>) -> Result<Registration> {
        self.check_open("register")?;
        instance.validate()?;
        let inner = self.inner();
        let Some(registry) = inner.registry.clone() else {
            return Err(Error::unsupported(
                "instances are not announced here: there is no registry",
            ));
        };
        let shared = Arc::new(Shared {
            wanted: Mutex::new(Wanted {
                instance,
                draining: false,
            }),
            changed: Notify::new(),
            state: watch::Sender::new(RegistrationState::Pending(None)),
            announced: watch::Sender::new(0),
            told: watch::Sender::new(None),
            stop: inner.scope.token().child_token(),
        });
        let ttl = inner.lease_ttl;
        let id = shared.wanted().instance.id.clone();
        let supervisor = Supervisor {
            who: format!("registration {id}"),
            id,
            shared: Arc::clone(&shared),
            registry,
            ttl,
            // A question that takes longer must not use up the lease.
            request_timeout: inner.request_timeout.min(ttl / 3),
            reporter: inner.reporter.clone(),
            metrics: inner.registrations.clone(),
            losses: 0,
            alarm_until: None,
            changes: health.as_ref().map(Health::subscribe),
            health,
            pulse: inner.pulse.listen(&inner.scope),
            stands_until: None,
        };
        inner
            .scope
            .spawn("discovery-registration", supervisor.run());
        Ok(Registration(shared))
    }
}

impl Registration {
    /// The instance as it was last announced or is about to be.
    #[must_use]
    pub fn instance(&self) -> ServiceInstance {
        self.0.wanted().instance.clone()
    }

    /// How the registration stands.
    #[must_use]
    pub fn state(&self) -> RegistrationState {
        self.0.state.borrow().clone()
    }

    /// How the registration stands, as a value to watch.
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<RegistrationState> {
        self.0.state.subscribe()
    }

    /// How often it was announced: more than once means that the registry had forgotten it.
    #[must_use]
    pub fn announcements(&self) -> u64 {
        *self.0.announced.borrow()
    }

    /// Waits until it stands, at most until the deadline.
    ///
    /// # Errors
    /// `Timeout` with the last error when it does not by then, `Cancelled` when it was withdrawn.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn registered(&self, deadline: Instant) -> Result<()> {
        let mut state = self.0.state.subscribe();
        let decided = state.wait_for(|state| {
            matches!(
                state,
                RegistrationState::Registered | RegistrationState::Withdrawn
            )
        });
        let decided = match timeout_at(deadline, decided).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => RegistrationState::Withdrawn,
            Err(_) => self.state(),
        };
        match decided {
            RegistrationState::Registered => Ok(()),
            RegistrationState::Withdrawn => Err(Error::cancelled("the registration was withdrawn")),
            RegistrationState::Pending(why) => {
                let why = why.unwrap_or_else(|| "the registry has not answered".to_owned());
                Err(Error::timeout(format!("not registered in time: {why}")))
            }
            RegistrationState::Lost(why) => {
                Err(Error::timeout(format!("not registered in time: {why}")))
            }
        }
    }

    /// Tells everybody to send nothing new; what runs may finish. From now on the status is `draining`. Returns at once; see
    /// [`Registration::draining_told`].
    pub fn set_draining(&self) {
        self.0.wanted().draining = true;
        self.0.changed.notify_one();
    }

    /// Waits until the registry has been told that the instance drains, at most until the deadline. Returns at once where the
    /// registry knows of no announcement.
    ///
    /// # Errors
    /// `Timeout` when the registry has not been told by then.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn draining_told(&self, deadline: Instant) -> Result<()> {
        let mut told = self.0.told.subscribe();
        let heard = told.wait_for(|told| told.is_none_or(|it| it == InstanceStatus::Draining));
        match timeout_at(deadline, heard).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::timeout(
                "the registry was not told in time that the instance drains",
            )),
        }
    }

    /// Changes what is announced: weight, metadata, zone, version. Id, name and address stay as they are.
    ///
    /// # Errors
    /// `Invalid` when the instance would not be sound; nothing is changed then.
    pub fn update(&self, change: impl FnOnce(&mut ServiceInstance)) -> Result<()> {
        let mut wanted = self.0.wanted();
        let mut changed = wanted.instance.clone();
        change(&mut changed);
        changed.validate()?;
        let moved = changed.id != wanted.instance.id
            || changed.name != wanted.instance.name
            || changed.host != wanted.instance.host
            || changed.port != wanted.instance.port;
        if moved {
            return Err(Error::invalid(
                "id, name and address of a registered instance stay as they are: register another one",
            ));
        }
        wanted.instance = changed;
        drop(wanted);
        self.0.changed.notify_one();
        Ok(())
    }

    /// Withdraws it. When the registry cannot be told, the announcement goes when its time is over.
    ///
    /// # Errors
    /// `Timeout` when it was not withdrawn by the deadline; it goes on in the background.
    ///
    /// # Cancel safety
    /// Cancel safe: it is withdrawn all the same.
    pub async fn deregister(&self, deadline: Instant) -> Result<()> {
        self.0.stop.cancel();
        let mut state = self.0.state.subscribe();
        let withdrawn = state.wait_for(|state| *state == RegistrationState::Withdrawn);
        match timeout_at(deadline, withdrawn).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::timeout("not deregistered in time")),
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("instance", &self.0.wanted().instance.id)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that keeps one registration.
struct Supervisor {
    who: String,
    id: String,
    shared: Arc<Shared>,
    registry: AnyRegistry,
    ttl: Duration,
    request_timeout: Duration,
    reporter: Reporter,
    metrics: RegistrationMetrics,
    /// How often the announcement was lost.
    losses: u64,
    /// A loss that is over within milliseconds is told in health for so long.
    alarm_until: Option<Instant>,
    health: Option<Health>,
    changes: Option<broadcast::Receiver<HealthChange>>,
    /// Tells when the registry has been silent and is back.
    pulse: Listener,
    /// Until when the announcement stands even if nobody renews it.
    stands_until: Option<Instant>,
}

impl Supervisor {
    async fn run(mut self) {
        let mut lease: Option<Lease> = None;
        // A registry that is back is told within a third of the time, as in quiet times.
        let mut backoff = Backoff::new(self.ttl / 3);
        let mut told = None;
        while !self.shared.stop.is_cancelled() {
            let instance = self.present();
            let outcome = self.tell(&mut lease, &instance).await;
            let wait = match outcome {
                Ok(()) => {
                    backoff.reset();
                    told = Some(instance);
                    let wait = (self.ttl / 3).mul_f64(0.8 + fastrand::f64() / 5.0);
                    let alarm = self.alarm_until;
                    let alarm = alarm.map(|end| end.saturating_duration_since(Instant::now()));
                    wait.min(alarm.unwrap_or(wait))
                }
                Err(error) if error.kind() == ErrorKind::NotFound && lease.is_some() => {
                    self.forgotten(&mut lease);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Unsupported && lease.is_none() => {
                    self.not_announced(&error).await;
                    continue;
                }
                Err(error) => {
                    self.failed(&error);
                    self.pulse.ask_now();
                    backoff.next()
                }
            };
            self.wait(wait, told.as_ref()).await;
        }
        self.withdraw(lease).await;
    }

    /// Announces or renews. Not raced against anything: a call that is dropped half way may leave an announcement
    /// behind that nobody can withdraw.
    async fn tell(&mut self, lease: &mut Option<Lease>, instance: &ServiceInstance) -> Result<()> {
        let asked = Instant::now();
        match lease {
            Some(lease) => {
                self.within(self.registry.renew(lease, instance)).await?;
            }
            None => {
                let registering = self.registry.register(instance.clone(), self.ttl);
                *lease = Some(self.within(registering).await?);
                let times = *self.shared.announced.borrow() + 1;
                self.shared.announced.send_replace(times);
                self.metrics.announced(times > 1);
                self.detail();
                tracing::info!(
                    target: "trunkline::discovery",
                    service = %instance.name, instance = %instance.authority(), times,
                    "instance registered"
                );
            }
        }
        // Counted from the question on: the registry cannot have begun earlier.
        self.stands_until = asked.checked_add(self.ttl);
        self.shared.state.send_if_modified(|state| {
            let changed = *state != RegistrationState::Registered;
            *state = RegistrationState::Registered;
            changed
        });
        self.shared.told.send_replace(Some(instance.status));
        match self.alarm_until.filter(|until| Instant::now() < *until) {
            Some(_) => {
                let told = format!(
                    "the registry had forgotten the {}; it was registered again ({} times so far)",
                    self.who, self.losses
                );
                let told = Error::new(ErrorKind::NotFound, told);
                self.reporter.failed(&self.who, Weight::Degraded, told);
            }
            None => {
                self.alarm_until = None;
                self.reporter.works(&self.who);
            }
        }
        Ok(())
    }

    /// Tells in health how often it was announced and lost.
    fn detail(&self) {
        let announced = *self.shared.announced.borrow();
        let stands = serde_json::json!({ "announced": announced, "lost": self.losses });
        self.reporter.registration(&self.id, Some(stands));
    }

    /// The announcement is gone, as far as is known.
    fn lost(&mut self, why: String) {
        let before = self.shared.state.send_replace(RegistrationState::Lost(why));
        self.shared.told.send_replace(None);
        // That time ran out and that it was forgotten meanwhile is one loss.
        if !matches!(before, RegistrationState::Lost(_)) {
            self.losses += 1;
            self.metrics.lost();
            self.detail();
        }
    }

    async fn within<T>(&self, question: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = timeout(self.request_timeout, question).await;
        answer.unwrap_or_else(|_| {
            let span = trunkline_core::duration::format(self.request_timeout);
            Err(Error::timeout(format!(
                "the registry did not answer within {span}"
            )))
        })
    }

    /// The registry does not know the announcement any more: it is made again.
    fn forgotten(&mut self, lease: &mut Option<Lease>) {
        *lease = None;
        self.stands_until = None;
        tracing::warn!(
            target: "trunkline::discovery",
            registration = self.who, times = *self.shared.announced.borrow(),
            "the registry has forgotten the registration; it is registered again"
        );
        self.lost("the registry has forgotten it".to_owned());
        self.alarm_until = Instant::now().checked_add(self.ttl);
    }

    /// Nothing is announced there: others say where this instance is. That is no failure, and asking again changes nothing.
    async fn not_announced(&self, error: &Error) {
        let why = error.report().to_string();
        tracing::info!(
            target: "trunkline::discovery",
            registration = self.who, why,
            "the registry announces nothing; the instance is not registered"
        );
        self.shared
            .state
            .send_replace(RegistrationState::Pending(Some(why)));
        self.reporter.works(&self.who);
        self.shared.stop.cancelled().await;
    }

    fn failed(&mut self, error: &Error) {
        let why = error.report().to_string();
        let stands = self
            .stands_until
            .is_some_and(|until| Instant::now() < until);
        let ever = *self.shared.announced.borrow() > 0;
        tracing::warn!(
            target: "trunkline::discovery",
            registration = self.who, stands, error = why,
            "the registration cannot be kept up; trying again"
        );
        if !stands && ever {
            self.lost(why);
        } else if !stands {
            let state = RegistrationState::Pending(Some(why));
            self.shared.state.send_replace(state);
        }
        let weight = if ever {
            Weight::Degraded
        } else {
            Weight::Unhealthy
        };
        let told = Error::new(
            error.kind(),
            format!("cannot keep the {}: {error}", self.who),
        );
        self.reporter.failed(&self.who, weight, told);
    }

    /// What should be announced now.
    fn present(&self) -> ServiceInstance {
        let mut wanted = self.shared.wanted();
        if wanted.draining {
            wanted.instance.status = InstanceStatus::Draining;
        } else if let Some(health) = &self.health {
            wanted.instance.status = if health.readiness().ready {
                InstanceStatus::Up
            } else {
                InstanceStatus::Down
            };
        }
        wanted.instance.clone()
    }

    /// Waits for the time of the next renewal, or for something else to tell.
    async fn wait(&mut self, span: Duration, told: Option<&ServiceInstance>) {
        let until = Instant::now() + span;
        let stop = self.shared.stop.clone();
        loop {
            let look_again = if self.health.is_some() {
                until.min(Instant::now() + LOOK_AT_READINESS)
            } else {
                until
            };
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                () = stop.cancelled() => return,
                () = shared.changed.notified() => {}
                () = changed(&mut self.changes) => {}
                // It may have forgotten the announcement, or let it run out.
                () = self.pulse.back() => return,
                () = sleep_until(look_again) => {}
            }
            if Instant::now() >= until {
                return;
            }
            // While the registry is away it is not asked more often because there is more to tell.
            let news = told.is_some_and(|told| *told != self.present());
            if news && self.is_registered() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(SETTLE) => {}
                }
                return;
            }
        }
    }

    fn is_registered(&self) -> bool {
        *self.shared.state.borrow() == RegistrationState::Registered
    }

    async fn withdraw(&self, lease: Option<Lease>) {
        if let Some(lease) = lease
            && let Err(error) = self.within(self.registry.deregister(&lease)).await
        {
            tracing::warn!(
                target: "trunkline::discovery",
                registration = self.who, error = %error.report(),
                "the registration could not be withdrawn; it goes when its time is over"
            );
        }
        self.reporter.forget(&self.who);
        self.reporter.registration(&self.id, None);
        self.shared.told.send_replace(None);
        self.shared.state.send_replace(RegistrationState::Withdrawn);
    }
}

/// Waits for a report of health; for ever where there is none to wait for.
async fn changed(changes: &mut Option<broadcast::Receiver<HealthChange>>) {
    use broadcast::error::RecvError;
    let Some(receiver) = changes else {
        return std::future::pending().await;
    };
    match receiver.recv().await {
        // Whoever missed some has reason to look all the more.
        Ok(_) | Err(RecvError::Lagged(_)) => {}
        Err(RecvError::Closed) => {
            *changes = None;
            std::future::pending().await
        }
    }
}
