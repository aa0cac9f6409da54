//! Puts what several tasks see of the registry into one status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trunkline_core::Error;
use trunkline_core::health::ComponentHealth;

/// Registrations that are told one by one.
const MOST_TOLD: usize = 100;

/// Reports to one component: healthy while nobody complains. Clones report for the same component.
#[derive(Clone, Debug)]
pub(crate) struct Reporter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    component: Option<ComponentHealth>,
    complaints: Mutex<BTreeMap<Arc<str>, Complaint>>,
    /// What is told of each registration.
    registrations: Mutex<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug)]
struct Complaint {
    error: Error,
    weight: Weight,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// Last known answers are used, or an announcement still stands.
    Degraded,
    /// There is nothing to go by.
    Unhealthy,
}

impl Reporter {
    pub(crate) fn new(component: Option<ComponentHealth>) -> Self {
        Self(Arc::new(Inner {
            component,
            complaints: Mutex::default(),
            registrations: Mutex::default(),
        }))
    }

    /// A task cannot do its work.
    pub(crate) fn failed(&self, who: &str, weight: Weight, error: Error) {
        self.change(|complaints| {
            complaints.insert(who.into(), Complaint { error, weight });
        });
    }

    /// A task can do its work.
    pub(crate) fn works(&self, who: &str) {
        self.change(|complaints| {
            complaints.remove(who);
        });
    }

    /// A task has no work any more: it says nothing about the registry, and no longer complains.
    pub(crate) fn forget(&self, who: &str) {
        let complained = self.lock().contains_key(who);
        if complained {
            self.works(who);
        }
    }

    /// Adds a detail to the document.
    pub(crate) fn detail(&self, name: &str, value: impl Into<serde_json::Value>) {
        if let Some(component) = &self.0.component {
            component.set_metadata(name, value);
        }
    }

    /// Tells in the document how a registration stands; nothing of one that is withdrawn. Of very many some are told.
    pub(crate) fn registration(&self, id: &str, stands: Option<serde_json::Value>) {
        let all = &self.0.registrations;
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        match stands {
            Some(stands) if all.len() < MOST_TOLD || all.contains_key(id) => {
                all.insert(id.to_owned(), stands);
            }
            Some(_) => return,
            None => drop(all.remove(id)),
        }
        // Under the lock, so that the last word is the last one told.
        self.detail("registrations", all.clone());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Complaint>> {
        let complaints = &self.0.complaints;
        complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, with: impl FnOnce(&mut BTreeMap<Arc<str>, Complaint>)) {
        let mut complaints = self.lock();
        with(&mut complaints);
        let Some(component) = &self.0.component else {
            return;
        };
        // Reported under the lock, so that reports come in the order of what they tell.
        match complaints.values().max_by_key(|complaint| complaint.weight) {
            None => component.mark_healthy(),
            Some(worst) if worst.weight == Weight::Unhealthy => {
                component.mark_unhealthy(&worst.error);
            }
            Some(worst) => component.mark_degraded(&worst.error.report().to_string()),
        }
    }
}
