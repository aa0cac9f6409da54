//! Where the requests of a client go: to one place, or to whichever instance discovery picks.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Result;
use trunkline_discovery::{Instances, NoInstanceReason, PickRequest, Picked, ServiceInstance};
use trunkline_resilience::Attempt;
use trunkline_telemetry::metrics::{AttemptMetrics, HttpClientMetrics};

use crate::limits::after;
use crate::origin::Origin;

/// With more places than this, and than twice those that were left the last time, those of instances that have gone are
/// forgotten.
const MANY_PEERS: usize = 1024;

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

/// What is known of places, by the address of the instance's description, which is kept with it and so stays its own.
#[derive(Default)]
struct Peers {
    known: HashMap<usize, (Arc<ServiceInstance>, Arc<Peer>), BuildHasherDefault<OfAddress>>,
    /// How many were left when those that have gone were forgotten.
    left: usize,
}

/// Mixes an address of ours, which nobody chooses from outside: one multiplication for each attempt.
#[derive(Default)]
struct OfAddress(u64);

impl Hasher for OfAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        // The map takes the low bits for the place and the high ones for a first look: the middle of the product is
        // what every bit of the address has a part in.
        let product = (self.0 ^ address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ (product >> 32);
    }
}

/// Whichever instance discovery picks.
pub(crate) struct Balanced {
    instances: Instances,
    metrics: HttpClientMetrics,
    peers: RwLock<Peers>,
}

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
}

impl Balanced {
    pub(crate) fn new(instances: Instances, metrics: HttpClientMetrics) -> Self {
        Self {
            instances,
            metrics,
            peers: RwLock::default(),
        }
    }

    pub(crate) fn instances(&self) -> &Instances {
        &self.instances
    }

    /// Picks an instance, rather one that was not tried. Waits for discovery's first answer if there was none yet, and sets
    /// `now` to the time after it.
    pub(crate) async fn pick(
        &self,
        tried: &Tried,
        deadline: Instant,
        now: &mut Option<Instant>,
    ) -> Result<(Picked, Arc<Peer>)> {
        let mut picked = match self.pick_now(tried) {
            Err(none) if matches!(none.reason, NoInstanceReason::NotResolved(_)) => {
                let patience = after(Instant::now(), PATIENCE).min(deadline);
                Box::pin(self.instances.resolved(patience)).await?;
                *now = Some(Instant::now());
                self.pick_now(tried)?
            }
            picked => picked?,
        };
        for _ in 0..MOST_UNFIT {
            match self.peer(picked.instance()) {
                Ok(peer) => return Ok((picked, peer)),
                Err(_) => {
                    self.pass_over(picked, tried);
                    picked = self.pick_now(tried)?;
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

    fn pick_now(&self, tried: &Tried) -> Result<Picked, trunkline_discovery::NoInstance> {
        let mut known = tried.lock();
        let mut request = PickRequest::excluding(&known);
        request.key = tried.key.as_deref();
        let picked = self.instances.pick(&request)?;
        if tried.hedged {
            known.push(Arc::clone(picked.instance()));
        }
        Ok(picked)
    }

    fn peer(&self, instance: &Arc<ServiceInstance>) -> Result<Arc<Peer>> {
        let address = Arc::as_ptr(instance).addr();
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, peer)) = peers.known.get(&address) {
            return Ok(Arc::clone(peer));
        }
        drop(peers);
        let peer = Peer::new(Origin::of_instance(instance)?, &self.metrics);
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        peers.insert(address, (Arc::clone(instance), Arc::clone(&peer)));
        Ok(peer)
    }
}

impl Peers {
    fn insert(&mut self, address: usize, peer: (Arc<ServiceInstance>, Arc<Peer>)) {
        if self.known.len() >= MANY_PEERS.max(self.left.saturating_mul(2)) {
            // What nobody else holds is in no list any more.
            self.known
                .retain(|_, (instance, _)| Arc::strong_count(instance) > 1);
            self.left = self.known.len();
        }
        self.known.insert(address, peer);
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

/// No bit for the attempts of a call that makes very many: they count as everybody's, as without any notes.
fn bit_of(attempt: &Attempt) -> u64 {
    const HEDGES: u32 = 4;
    let at = attempt.number.saturating_sub(1).saturating_mul(HEDGES);
    match attempt.hedge {
        hedge if hedge < HEDGES => 1_u64.checked_shl(at.saturating_add(hedge)).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use trunkline_discovery::ServiceName;
    use trunkline_telemetry::Metrics;

    use super::*;

    #[test]
    fn places_are_known_as_long_as_their_instances_are() {
        let name = ServiceName::new("users").unwrap();
        let instance = || Arc::new(ServiceInstance::new(name.clone(), "127.0.0.1", 80));
        let known: Vec<_> = (0..MANY_PEERS * 3).map(|_| instance()).collect();
        let origin = Origin::of_instance(&known[0]).unwrap();
        let peer = Peer::new(origin, &Metrics::disabled().http_client("users"));
        let mut peers = Peers::default();
        let mut note = |instance: &Arc<ServiceInstance>| {
            let address = Arc::as_ptr(instance).addr();
            peers.insert(address, (Arc::clone(instance), Arc::clone(&peer)));
            peers.known.len()
        };
        let most = known.iter().map(&mut note).max();
        assert_eq!(most, Some(known.len()), "all of them are in use");
        drop(known);
        let most = (0..MANY_PEERS * 10).map(|_| note(&instance())).max();
        assert!(most.unwrap() <= MANY_PEERS * 6);
        assert!(note(&instance()) <= MANY_PEERS);
    }
}
