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
    /// How far those that were forgotten had counted their changes. New ones go on from there: whoever has heard of the
    /// changes of an earlier one at the same address would take theirs for older.
    forgotten: u32,
}

impl Kept {
    /// Calls that run already no longer change a circuit that is forgotten. The change is still to be told.
    fn end(&mut self, gone: &Breaker) -> Option<Change> {
        let change = gone.force_untold(Control::Disabled);
        self.forgotten = self.forgotten.max(gone.generation());
        change
    }
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
                forgotten: 0,
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
        let mut gone_changes = Vec::new();
        let mut kept = self.write();
        // Somebody may have been faster.
        if let Some(known) = kept.by_instance.get(instance) {
            return Arc::clone(known);
        }
        if kept.by_instance.len() >= MOST {
            let closed = |_: &Arc<str>, it: &mut Arc<Breaker>| it.state() == State::Closed;
            let closed: Vec<_> = kept.by_instance.extract_if(closed).collect();
            for (_, gone) in closed {
                // Unless it has opened since, there is nothing to tell.
                gone_changes.extend(kept.end(&gone).map(|change| (gone, change)));
            }
        }
        let instance: Arc<str> = instance.into();
        let target = self.target.clone().with_instance(Arc::clone(&instance));
        let (observers, clock) = (self.observers.clone(), Arc::clone(&self.clock));
        let (breaker, change) =
            Breaker::build_after(kept.forgotten, target, kept.settings, observers, clock);
        let breaker = Arc::new(breaker);
        kept.by_instance.insert(instance, Arc::clone(&breaker));
        drop(kept);
        for (gone, change) in gone_changes {
            gone.tell(Some(change));
        }
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
        let mut kept = self.write();
        let Some(gone) = kept.by_instance.remove(instance) else {
            return;
        };
        let change = kept.end(&gone);
        drop(kept);
        gone.tell(change);
    }

    pub(crate) fn forget_all_untold(&self) -> Vec<(Arc<Breaker>, Change)> {
        let mut kept = self.write();
        let gone = std::mem::take(&mut kept.by_instance);
        let end = |gone: Arc<Breaker>| {
            let change = kept.end(&gone)?;
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use trunkline_core::SystemClock;

    use super::*;
    use crate::observe::{CircuitChange, Observer};

    #[derive(Default)]
    struct Heard(Mutex<Vec<(State, u32)>>);

    impl Observer for Heard {
        fn circuit_changed(&self, change: &CircuitChange) {
            let mut heard = self.0.lock().unwrap();
            heard.push((change.to, change.sequence));
        }
    }

    /// Who takes the change with the highest number for the latest one.
    #[tokio::test]
    async fn changes_of_one_that_comes_anew_are_later_than_those_of_the_one_that_was_forgotten() {
        let heard = Arc::new(Heard::default());
        let mut observers = Observers::default();
        observers.add(Arc::clone(&heard) as Arc<dyn Observer>);
        let settings = BreakerSettings {
            failure_threshold: 1,
            ..BreakerSettings::default()
        };
        let target = Target::service("users");
        let circuits = InstanceCircuits::new(target, settings, observers, SystemClock::shared());
        for _ in 0..3 {
            circuits.of("a:1").try_acquire().unwrap().failure();
            circuits.forget("a:1");
        }
        let late = circuits.of("a:1").try_acquire_owned().unwrap();
        circuits.forget("a:1");
        late.failure();
        let heard = heard.0.lock().unwrap();
        let states: Vec<_> = heard.iter().map(|it| it.0).collect();
        assert_eq!(states, [State::Open, State::Closed].repeat(3));
        assert!(heard.is_sorted_by(|one, next| one.1 < next.1), "{heard:?}");
    }
}
