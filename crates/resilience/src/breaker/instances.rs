//! A circuit for each instance, in place of one for all.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use trunkline_core::SharedClock;

use super::{Breaker, BreakerSettings, Change, Control, State};
use crate::observe::Observers;
use crate::target::Target;

/// With so many, circuits that are closed are forgotten: what leaves is told, and this is for where nobody tells.
const MOST: usize = 4096;

/// The circuits of the instances that one policy's calls go to: whoever has chosen an instance asks [its
/// circuit](Self::of), and chooses another one where that is open. From
/// [`Current::instance_circuits`](crate::Current::instance_circuits).
pub struct InstanceCircuits {
    target: Target,
    observers: Observers,
    clock: SharedClock,
    kept: RwLock<Kept>,
}

struct Kept {
    settings: BreakerSettings,
    by_instance: HashMap<Arc<str>, Arc<Breaker>>,
}

impl InstanceCircuits {
    pub(crate) fn new(
        target: Target,
        settings: BreakerSettings,
        observers: Observers,
        clock: SharedClock,
    ) -> Self {
        Self {
            target,
            observers,
            clock,
            kept: RwLock::new(Kept {
                settings,
                by_instance: HashMap::new(),
            }),
        }
    }

    /// Whose calls go to the instances.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The circuit of an instance (`host:port`): the one that is there, else a new one.
    #[must_use]
    pub fn of(&self, instance: &str) -> Arc<Breaker> {
        if let Some(known) = self.known(instance) {
            return known;
        }
        let mut kept = self.write();
        // Somebody may have been faster.
        if let Some(known) = kept.by_instance.get(instance) {
            return Arc::clone(known);
        }
        if kept.by_instance.len() >= MOST {
            let by_instance = &mut kept.by_instance;
            by_instance.retain(|_, breaker| breaker.state() != State::Closed);
        }
        let instance: Arc<str> = instance.into();
        let target = self.target.clone().with_instance(Arc::clone(&instance));
        let (observers, clock) = (self.observers.clone(), Arc::clone(&self.clock));
        let (breaker, change) = Breaker::build(target, kept.settings, observers, clock);
        let breaker = Arc::new(breaker);
        kept.by_instance.insert(instance, Arc::clone(&breaker));
        drop(kept);
        breaker.tell(change);
        breaker
    }

    /// The circuit of an instance, where it has one already.
    #[must_use]
    pub fn known(&self, instance: &str) -> Option<Arc<Breaker>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.by_instance.get(instance).map(Arc::clone)
    }

    /// All that there are.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Breaker>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.by_instance.values().map(Arc::clone).collect()
    }

    /// Forgets the circuit of an instance that has left. One that was open counts as closed from now on.
    pub fn forget(&self, instance: &str) {
        let gone = self.write().by_instance.remove(instance);
        if let Some(gone) = gone {
            // Calls that run already no longer change it.
            gone.force(Control::Disabled);
        }
    }

    pub(crate) fn forget_all_untold(&self) -> Vec<(Arc<Breaker>, Change)> {
        let gone = std::mem::take(&mut self.write().by_instance);
        let end = |gone: Arc<Breaker>| {
            let change = gone.force_untold(Control::Disabled)?;
            Some((gone, change))
        };
        gone.into_values().filter_map(end).collect()
    }

    pub(crate) fn reconfigure_untold(
        &self,
        settings: BreakerSettings,
    ) -> Vec<(Arc<Breaker>, Change)> {
        let mut kept = self.write();
        kept.settings = settings;
        let renew = |breaker: &Arc<Breaker>| {
            let change = breaker.reconfigure_untold(settings)?;
            Some((Arc::clone(breaker), change))
        };
        kept.by_instance.values().filter_map(renew).collect()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Kept> {
        self.kept.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for InstanceCircuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceCircuits")
            .field("target", &self.target)
            .field("circuits", &self.all())
            .finish_non_exhaustive()
    }
}
