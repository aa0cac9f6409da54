//! Asking for an instance, and the guard that says how the request went.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Error, Retry};
use trunkline_resilience::Outcome;

use super::load::Member;
use crate::instance::{ServiceInstance, ServiceName};

/// What to consider when picking an instance.
///
/// ```
/// use trunkline_discovery::{Instances, PickRequest, ServiceInstance, ServiceName};
///
/// let name = ServiceName::new("users")?;
/// let two = (1..=2).map(|n| ServiceInstance::new(name.clone(), format!("10.0.0.{n}"), 80)).collect();
/// let instances = Instances::fixed(name, two);
///
/// let first = instances.pick(&PickRequest::any())?;
/// let tried = [first.instance().clone()];
/// let second = instances.pick(&PickRequest::excluding(&tried))?;
/// assert_ne!(first.instance().id, second.instance().id);
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct PickRequest<'a> {
    /// Instances that were tried already: picked again only when there is nothing else.
    pub exclude: &'a [Arc<ServiceInstance>],
    /// Whom the request is about, such as a user or a session: by
    /// [`ConsistentHash`](crate::BalanceStrategy::ConsistentHash) requests with the same key go to the same instance.
    pub key: Option<&'a str>,
    /// Nobody by a list from before nobody used the service for long, while the registry is asked for a newer one: that is
    /// [`NotResolved`](NoInstanceReason::NotResolved), and [`Instances::resolved`](crate::Instances::resolved) waits for it.
    pub only_current: bool,
}

impl<'a> PickRequest<'a> {
    /// Any instance will do.
    #[must_use]
    pub const fn any() -> Self {
        Self {
            exclude: &[],
            key: None,
            only_current: false,
        }
    }

    /// Rather not one of these.
    #[must_use]
    pub const fn excluding(tried: &'a [Arc<ServiceInstance>]) -> Self {
        Self {
            exclude: tried,
            key: None,
            only_current: false,
        }
    }

    /// Says whom the request is about.
    #[must_use]
    pub const fn with_key(self, key: &'a str) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }

    /// Nobody by a list that is as old as the last use of the service: see [`PickRequest::only_current`].
    #[must_use]
    pub const fn by_a_current_list(self) -> Self {
        Self {
            only_current: true,
            ..self
        }
    }
}

/// An instance that was picked for one request. It counts as under way until the guard is dropped.
///
/// Say how it went with [`Picked::finish`], [`Picked::record`] or [`Picked::unreachable`]; a guard that is dropped
/// without a word counts as neither success nor failure.
#[must_use = "the request counts as under way until this is dropped"]
pub struct Picked {
    member: Arc<Member>,
    recorded: bool,
}

impl Picked {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        member.load.begin();
        Self {
            member,
            recorded: false,
        }
    }

    /// The instance to ask.
    #[must_use]
    pub fn instance(&self) -> &Arc<ServiceInstance> {
        &self.member.instance
    }

    /// Requests from here that are under way at this instance, this one included.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.member.load.active()
    }

    /// Says how the request went and ends it. `latency` is the time until the answer's head; it tells the fast
    /// instances from the slow ones.
    pub fn finish(mut self, outcome: Outcome, latency: Duration) {
        self.record(outcome, latency);
    }

    /// Says how the request went while it goes on, such as a body that is still being read. Only the first word counts.
    pub fn record(&mut self, outcome: Outcome, latency: Duration) {
        self.record_at(outcome, latency, Instant::now());
    }

    /// [`Picked::record`], for whoever knows what time it is.
    pub fn record_at(&mut self, outcome: Outcome, latency: Duration, now: Instant) {
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        match outcome {
            Outcome::Ignored => {}
            Outcome::Success => {
                self.member.load.succeeded(latency, now);
                self.compare(now);
            }
            Outcome::Failure => {
                let failures = self.member.load.failed(latency, now);
                if let Some(pool) = self.member.pool.upgrade() {
                    pool.doubt(&self.member, now);
                    pool.failed(&self.member, failures);
                }
                self.compare(now);
            }
        }
    }

    /// Compares the instances with each other when it is time.
    fn compare(&self, now: Instant) {
        if self.member.load.is_time_to_compare(now)
            && let Some(pool) = self.member.pool.upgrade()
        {
            pool.compare_soon();
        }
    }

    /// The request was given up after so long because another one was faster: that is neither a success nor a failure,
    /// and it took at least so long.
    pub fn overtaken(&mut self, after: Duration) {
        if !std::mem::replace(&mut self.recorded, true) {
            self.member.load.overtaken(after, Instant::now());
        }
    }

    /// The instance has said that it is too busy and for how long, such as by `Retry-After`: it is left out for as long,
    /// `ejection.max_time` at the most and unless it is the last one. Comes beside [`Picked::record`].
    pub fn busy(&self, span: Duration) {
        if let Some(pool) = self.member.pool.upgrade() {
            pool.busy(&self.member, span);
        }
    }

    /// Whether the instance gets no more requests from here while others do: what still fails there says nothing about the
    /// service.
    #[must_use]
    pub fn is_out(&self) -> bool {
        let pool = self.member.pool.upgrade();
        pool.is_some_and(|pool| pool.is_out(&self.member))
    }

    /// Whether the service can do without the instance: it [is out](Self::is_out), or may be taken out for failing by the
    /// rules of ejection, which keep enough of the others.
    #[must_use]
    pub fn is_dispensable(&self) -> bool {
        let pool = self.member.pool.upgrade();
        pool.is_some_and(|pool| pool.is_dispensable(&self.member))
    }

    /// No connection could be made: the instance is taken out at once, unless it is the last one.
    pub fn unreachable(&mut self) {
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        let now = Instant::now();
        self.member.load.failed(Duration::ZERO, now);
        if let Some(pool) = self.member.pool.upgrade() {
            pool.doubt(&self.member, now);
            pool.unreachable(&self.member);
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.member.load.end();
    }
}

impl fmt::Debug for Picked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picked")
            .field("instance", &self.member.instance.id)
            .field("active", &self.active())
            .finish_non_exhaustive()
    }
}

/// Why there is nothing to pick.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoInstanceReason {
    /// Nobody has answered yet who the instances are, or not since the service was used last, long ago. Holds the last error of the registry, if there was one.
    NotResolved(Option<Arc<str>>),
    /// The service has no instance.
    None,
    /// It has some, and none takes requests: they are down, draining, or have weight 0.
    NoneUsable {
        /// How many there are.
        known: usize,
    },
}

/// No instance of a service can be asked: the cause of an error of kind `Rejected`. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoInstance {
    /// The service.
    pub service: ServiceName,
    /// Why.
    pub reason: NoInstanceReason,
}

impl NoInstance {
    pub(crate) fn new(service: ServiceName, reason: NoInstanceReason) -> Self {
        Self { service, reason }
    }
}

impl fmt::Display for NoInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = &self.service;
        match &self.reason {
            NoInstanceReason::NotResolved(None) => {
                write!(f, "the instances of service {service} are not known yet")
            }
            NoInstanceReason::NotResolved(Some(error)) => {
                write!(
                    f,
                    "the instances of service {service} are not known: {error}"
                )
            }
            NoInstanceReason::None => write!(f, "service {service} has no instance"),
            NoInstanceReason::NoneUsable { known } => {
                write!(
                    f,
                    "none of the {known} instances of service {service} takes requests"
                )
            }
        }
    }
}

impl std::error::Error for NoInstance {}

impl From<NoInstance> for Error {
    fn from(error: NoInstance) -> Self {
        Self::rejected(error.to_string())
            .with_operation("pick")
            .with_retry(Retry::Safe)
            .with_source(error)
    }
}
