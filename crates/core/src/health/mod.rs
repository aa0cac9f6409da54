//! How every component is, in one document.
//!
//! A component holds a [`ComponentHealth`] and reports to it; the server's routes, the manager and the console read the
//! shared [`Health`]. Readiness is more than health: it also asks that every [`Gate`] is open, so that a service that is
//! starting, draining, or whose subscription is detached gets no traffic.

mod document;
mod gate;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

pub use document::HealthDocument;
pub use gate::{Gate, Readiness};
pub use status::{ComponentStatus, Status};

use crate::{Error, SharedClock, SystemClock};

/// Changes that a slow listener may fall behind before it must read the whole document again.
const CHANGES_KEPT: usize = 256;

/// One report about one component.
#[derive(Clone, Debug)]
pub struct HealthChange {
    /// The component's key in the document.
    pub key: Arc<str>,
    /// What the component is now.
    pub status: ComponentStatus,
    /// What it was before this report; equal to the present one when nothing changed.
    pub previous: Status,
    /// Whether this is a failed check, changed or not.
    pub failed: bool,
}

impl HealthChange {
    /// Whether the status is another than before.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.previous != self.status.status
    }
}

/// The health of everything in one process; clones share it.
///
/// ```
/// use trunkline_core::{Error, Health, Status};
///
/// let health = Health::default();
/// let broker = health.register("message_broker_orders", "orders", "message_broker_embedded", true);
/// broker.mark_healthy();
/// assert_eq!(health.document().overall_status, Status::Healthy);
/// broker.mark_unhealthy(&Error::unavailable("disk is full"));
/// assert_eq!(health.document().overall_status, Status::Unhealthy);
/// ```
#[derive(Clone, Debug)]
pub struct Health(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: SharedClock,
    state: Mutex<State>,
    changes: broadcast::Sender<HealthChange>,
}

#[derive(Debug, Default)]
struct State {
    components: BTreeMap<Arc<str>, Entry>,
    gates: gate::Gates,
}

#[derive(Debug)]
struct Entry {
    status: ComponentStatus,
    required: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self::new(SystemClock::shared())
    }
}

impl Health {
    /// Nothing registered yet. The clock dates the checks.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        Self(Arc::new(Shared {
            clock,
            state: Mutex::default(),
            changes,
        }))
    }

    /// Adds a component, unhealthy until it reports; one with the same key is replaced. A component that is not
    /// `required` only degrades the whole.
    #[must_use]
    pub fn register(
        &self,
        key: &str,
        name: &str,
        component_type: &str,
        required: bool,
    ) -> ComponentHealth {
        let key: Arc<str> = key.into();
        let status = ComponentStatus::new(name, component_type);
        self.lock()
            .components
            .insert(Arc::clone(&key), Entry { status, required });
        ComponentHealth {
            health: self.clone(),
            key,
        }
    }

    /// Takes a component out of the document.
    pub fn unregister(&self, key: &str) {
        self.lock().components.remove(key);
    }

    /// Everything as last reported.
    #[must_use]
    pub fn document(&self) -> HealthDocument {
        let state = self.lock();
        let parts = state
            .components
            .iter()
            .map(|(key, entry)| (key, &entry.status, entry.required));
        HealthDocument::of(parts, self.0.clock.now())
    }

    /// One component as last reported.
    #[must_use]
    pub fn component_status(&self, key: &str) -> Option<ComponentStatus> {
        self.lock()
            .components
            .get(key)
            .map(|entry| entry.status.clone())
    }

    /// Reports as they come. A listener that falls behind by more than 256 gets a lag error and should read
    /// [`Health::document`].
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<HealthChange> {
        self.0.changes.subscribe()
    }

    /// A gate that readiness asks; closed with this reason until it is opened. Dropping it removes it.
    #[must_use]
    pub fn gate(&self, name: &str, reason: &str) -> Gate {
        let id = self.lock().gates.add(name, reason);
        Gate::new(self.clone(), id)
    }

    /// Whether traffic should come here, and if not, why.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let state = self.lock();
        let mut reasons = state.gates.reasons();
        let unhealthy = state
            .components
            .iter()
            .filter(|(_, entry)| entry.required && entry.status.status == Status::Unhealthy);
        reasons.extend(unhealthy.map(|(key, entry)| {
            let why = entry
                .status
                .last_error
                .as_deref()
                .unwrap_or("not checked yet");
            format!("{key}: {why}")
        }));
        Readiness::new(reasons)
    }

    fn report(&self, key: &Arc<str>, failed: bool, change: impl FnOnce(&mut ComponentStatus)) {
        let mut state = self.lock();
        let Some(entry) = state.components.get_mut(key) else {
            return;
        };
        let previous = entry.status.status;
        change(&mut entry.status);
        entry.status.last_health_check = Some(self.0.clock.now().to_seconds());
        let report = HealthChange {
            key: Arc::clone(key),
            status: entry.status.clone(),
            previous,
            failed,
        };
        // Under the lock, so that reports arrive in the order in which they were made; it wakes listeners and runs
        // nothing of theirs. No listener is not an error.
        drop(self.0.changes.send(report));
        drop(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place where one component reports how it is; clones report for the same component.
#[derive(Clone, Debug)]
pub struct ComponentHealth {
    health: Health,
    key: Arc<str>,
}

impl ComponentHealth {
    /// The component's key in the document.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// It works. Clears the last error; the count of errors stays.
    pub fn mark_healthy(&self) {
        self.health
            .report(&self.key, false, ComponentStatus::mark_healthy);
    }

    /// It works, but less well than it should; says why.
    pub fn mark_degraded(&self, why: &str) {
        self.health
            .report(&self.key, false, |status| status.mark_degraded(why));
    }

    /// It does not work.
    pub fn mark_unhealthy(&self, error: &Error) {
        self.health
            .report(&self.key, true, |status| status.mark_unhealthy(error));
    }

    /// It does not work, as something else than a check found out: listeners who ask for every failed check are told
    /// only if that is a change.
    pub fn note_failure(&self, error: &Error) {
        self.health
            .report(&self.key, false, |status| status.mark_unhealthy(error));
    }

    /// Adds a detail to the document; never a secret.
    pub fn set_metadata(&self, name: &str, value: impl Into<serde_json::Value>) {
        if let Some(entry) = self.health.lock().components.get_mut(&self.key) {
            entry.status.metadata.insert(name.to_owned(), value.into());
        }
    }

    /// Takes a detail out of the document.
    pub fn remove_metadata(&self, name: &str) {
        if let Some(entry) = self.health.lock().components.get_mut(&self.key) {
            entry.status.metadata.shift_remove(name);
        }
    }

    /// The component as last reported, unless it was taken out.
    #[must_use]
    pub fn status(&self) -> Option<ComponentStatus> {
        self.health.component_status(&self.key)
    }

    /// The document this component is part of.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }
}
