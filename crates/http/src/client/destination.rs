//! Where the requests of a client go: to one place, or to whichever instance discovery picks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Result;
use trunkline_discovery::{Instances, NoInstanceReason, PickRequest, Picked, ServiceInstance};
use trunkline_resilience::breaker::{InstanceCircuits, OwnedPermit};
use trunkline_resilience::{Attempt, CircuitOpen};
use trunkline_telemetry::metrics::{AttemptMetrics, HttpClientMetrics};

use super::peers::Peers;
use crate::limits::after;
use crate::origin::Origin;

/// How long the first answer of discovery is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Instances that cannot be called by HTTP, passed over by one call at most.
const MOST_UNFIT: usize = 16;

/// One place, and what is measured about it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) origin: Origin,
    pub(crate) attempts: AttemptMetrics,
}

/// Where requests go.
pub(crate) enum Destination {
    Fixed(Arc<Peer>),
    Balanced(Balanced),
}

/// Whichever instance discovery picks.
pub(crate) struct Balanced {
    instances: Instances,
    metrics: HttpClientMetrics,
    peers: Peers,
}

/// An instance, its place, and leave of its circuit, where it has one.
pub(crate) type Chosen = (Picked, Arc<Peer>, Option<OwnedPermit>);

/// Instances that a call has tried.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    instances: Mutex<Vec<Arc<ServiceInstance>>>,
    /// The call is hedged: an instance that was picked is no choice for the next request, even before it has failed.
    hedged: bool,
    /// Whom the call is about.
    key: Option<Arc<str>>,
    /// A request was sent once more within an attempt.
    resent: AtomicBool,
    /// Attempts, one bit each, that failed at an instance which the service does without.
    dispensed_with: AtomicU64,
}

impl Peer {
    pub(crate) fn new(origin: Origin, metrics: &HttpClientMetrics) -> Arc<Self> {
        let attempts = metrics.attempts(origin.authority().as_str());
        Arc::new(Self { origin, attempts })
    }

    /// `host:port`, as its circuit is called.
    pub(crate) fn name(&self) -> &str {
        self.origin.authority().as_str()
    }
}

impl Balanced {
    pub(crate) fn new(instances: Instances, metrics: HttpClientMetrics) -> Self {
        Self {
            instances,
            metrics,
            peers: Peers::default(),
        }
    }

    pub(crate) fn instances(&self) -> &Instances {
        &self.instances
    }

    /// Picks an instance, rather one that was not tried, and none of which the circuit is open, where each has one. Waits for
    /// discovery's first answer if there was none yet, or none since the service was used last, long ago, and sets `now` to
    /// the time after it.
    pub(crate) async fn pick(
        &self,
        tried: &Tried,
        circuits: Option<&InstanceCircuits>,
        deadline: Instant,
        now: &mut Option<Instant>,
    ) -> Result<Chosen> {
        let picked = match self.pick_now(tried, &[], true) {
            Err(none) if matches!(none.reason, NoInstanceReason::NotResolved(_)) => {
                let patience = after(Instant::now(), PATIENCE).min(deadline);
                Box::pin(self.instances.resolved(patience)).await?;
                *now = Some(Instant::now());
                self.pick_now(tried, &[], false)?
            }
            picked => picked?,
        };
        let (picked, peer) = self.fit(picked, tried, &[])?;
        match circuits {
            None => Ok((picked, peer, None)),
            Some(circuits) => self.with_leave(circuits, picked, peer, tried),
        }
    }

    /// With the leave of the instance's circuit. While that is open another one is picked, as long as there is one.
    fn with_leave(
        &self,
        circuits: &InstanceCircuits,
        mut picked: Picked,
        mut peer: Arc<Peer>,
        tried: &Tried,
    ) -> Result<Chosen> {
        let mut refused: Vec<Arc<ServiceInstance>> = Vec::new();
        let mut soonest: Option<CircuitOpen> = None;
        loop {
            let mut open = match circuits.of(peer.name()).try_acquire_owned() {
                Ok(permit) => return Ok((picked, peer, Some(permit))),
                Err(open) => open,
            };
            if let Some(known) = soonest.take()
                && known.retry_after < open.retry_after
            {
                open = known;
            }
            let mut another = None;
            if !is_among(&refused, picked.instance()) {
                refused.push(Arc::clone(picked.instance()));
                let found = self.pick_now(tried, &refused, false).ok();
                another = found.and_then(|found| self.fit(found, tried, &refused).ok());
            }
            let Some(another) = another else {
                if refused.len() > 1 {
                    open.instance = None;
                }
                return Err(open.into());
            };
            (picked, peer) = another;
            soonest = Some(open);
        }
    }

    /// The place of the instance, or else another instance that has one.
    fn fit(
        &self,
        mut picked: Picked,
        tried: &Tried,
        refused: &[Arc<ServiceInstance>],
    ) -> Result<(Picked, Arc<Peer>)> {
        for _ in 0..MOST_UNFIT {
            match self.peer(picked.instance()) {
                Ok(peer) => return Ok((picked, peer)),
                Err(_) => {
                    self.pass_over(picked, tried);
                    picked = self.pick_now(tried, refused, false)?;
                }
            }
        }
        let peer = self.peer(picked.instance())?;
        Ok((picked, peer))
    }

    /// An instance that HTTP cannot call (another protocol, a host that cannot stand in a URL) would draw calls for ever, as
    /// it never answers slowly: it leaves the rotation as one that cannot be connected to does.
    fn pass_over(&self, mut unfit: Picked, tried: &Tried) {
        unfit.unreachable();
        tried.lock().push(Arc::clone(unfit.instance()));
    }

    fn pick_now(
        &self,
        tried: &Tried,
        refused: &[Arc<ServiceInstance>],
        only_current: bool,
    ) -> Result<Picked, trunkline_discovery::NoInstance> {
        let mut known = tried.lock();
        let mut request = PickRequest::excluding(&known);
        request.key = tried.key.as_deref();
        request.only_current = only_current;
        let picked = if refused.is_empty() {
            self.instances.pick(&request)?
        } else {
            let both = [known.as_slice(), refused].concat();
            request.exclude = &both;
            let picked = self.instances.pick(&request)?;
            if is_among(refused, picked.instance()) {
                // All were tried or refused: rather one that was tried.
                request.exclude = refused;
                self.instances.pick(&request)?
            } else {
                picked
            }
        };
        if tried.hedged {
            known.push(Arc::clone(picked.instance()));
        }
        Ok(picked)
    }

    fn peer(&self, instance: &Arc<ServiceInstance>) -> Result<Arc<Peer>> {
        if let Some(peer) = self.peers.find(instance) {
            return Ok(peer);
        }
        let peer = Peer::new(Origin::of_instance(instance)?, &self.metrics);
        Ok(self.peers.take_in(instance, peer))
    }
}

impl Tried {
    pub(crate) fn of(hedged: bool, key: Option<Arc<str>>) -> Self {
        Self {
            hedged,
            key,
            ..Self::default()
        }
    }

    pub(crate) fn is_hedged(&self) -> bool {
        self.hedged
    }

    /// Whether it is known whom the call is about.
    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether a request was sent once more within an attempt.
    pub(crate) fn has_resent(&self) -> bool {
        self.resent.load(Ordering::Relaxed)
    }

    /// Notes that one is; `false` where one was.
    pub(crate) fn resends(&self) -> bool {
        !self.resent.swap(true, Ordering::Relaxed)
    }

    /// The instance failed. One of a hedged call is known since it was picked.
    pub(crate) fn add(&self, instance: &Arc<ServiceInstance>) {
        if !self.hedged {
            self.lock().push(Arc::clone(instance));
        }
    }

    /// Notes whether the service does without the instance at which this attempt has failed.
    pub(crate) fn dispense_with(&self, attempt: &Attempt, dispensed: bool) {
        let bit = bit_of(attempt);
        if dispensed {
            self.dispensed_with.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.dispensed_with.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_dispensed_with(&self, attempt: &Attempt) -> bool {
        self.dispensed_with.load(Ordering::Relaxed) & bit_of(attempt) != 0
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ServiceInstance>>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn is_among(instances: &[Arc<ServiceInstance>], one: &ServiceInstance) -> bool {
    instances.iter().any(|other| other.id == one.id)
}

/// No bit for the attempts of a call that makes very many: they count as everybody's, as without any notes.
fn bit_of(attempt: &Attempt) -> u64 {
    const HEDGES: u32 = 4;
    let at = attempt.number.saturating_sub(1).saturating_mul(HEDGES);
    match attempt.hedge {
        hedge if hedge < HEDGES => 1_u64.checked_shl(at.saturating_add(hedge)).unwrap_or(0),
        _ => 0,
    }
}
