//! Where the requests of a client go: to one place, or to whichever instance discovery picks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Result;
use trunkline_discovery::{Instances, NoInstanceReason, PickRequest, Picked, ServiceInstance};
use trunkline_telemetry::metrics::{AttemptMetrics, HttpClientMetrics};

use crate::limits::after;
use crate::origin::Origin;

/// Places remembered for one service; with more than this the memory is begun anew.
const MOST_PEERS: usize = 4096;

/// How long the first answer of discovery is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

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

type Peers = HashMap<usize, (Arc<ServiceInstance>, Arc<Peer>)>;

/// Whichever instance discovery picks.
pub(crate) struct Balanced {
    instances: Instances,
    metrics: HttpClientMetrics,
    /// By the address of the instance's description, which is kept with it and so stays its own.
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

    /// Picks an instance, rather one that was not tried. Waits for discovery's first answer if there was none yet.
    pub(crate) async fn pick(
        &self,
        tried: &Tried,
        deadline: Instant,
    ) -> Result<(Picked, Arc<Peer>)> {
        let picked = match self.pick_now(tried) {
            Err(none) if matches!(none.reason, NoInstanceReason::NotResolved(_)) => {
                let patience = after(Instant::now(), PATIENCE).min(deadline);
                Box::pin(self.instances.resolved(patience)).await?;
                self.pick_now(tried)?
            }
            picked => picked?,
        };
        let peer = self.peer(picked.instance())?;
        Ok((picked, peer))
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
        if let Some((_, peer)) = peers.get(&address) {
            return Ok(Arc::clone(peer));
        }
        drop(peers);
        let peer = Peer::new(Origin::of_instance(instance)?, &self.metrics);
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= MOST_PEERS {
            peers.clear();
        }
        peers.insert(address, (Arc::clone(instance), Arc::clone(&peer)));
        Ok(peer)
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

    /// The instance failed. One of a hedged call is known since it was picked.
    pub(crate) fn add(&self, instance: &Arc<ServiceInstance>) {
        if !self.hedged {
            self.lock().push(Arc::clone(instance));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ServiceInstance>>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
