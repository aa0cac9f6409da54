//! Reasons not to be ready although every component works.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Health;

/// Something that must be so before traffic may come: started, not draining, subscription attached.
#[derive(Debug)]
pub struct Gate {
    health: Health,
    id: u64,
}

impl Gate {
    pub(super) fn new(health: Health, id: u64) -> Self {
        Self { health, id }
    }

    /// It is so.
    pub fn open(&self) {
        self.health.lock().gates.set(self.id, None);
    }

    /// It is not so; says why.
    pub fn close(&self, reason: &str) {
        self.health
            .lock()
            .gates
            .set(self.id, Some(reason.to_owned()));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.health.lock().gates.remove(self.id);
    }
}

#[derive(Debug, Default)]
pub(super) struct Gates {
    next: u64,
    /// Name, and the reason why it is closed.
    gates: BTreeMap<u64, (String, Option<String>)>,
}

impl Gates {
    pub(super) fn add(&mut self, name: &str, reason: &str) -> u64 {
        let id = self.next;
        self.next += 1;
        self.gates
            .insert(id, (name.to_owned(), Some(reason.to_owned())));
        id
    }

    fn set(&mut self, id: u64, reason: Option<String>) {
        if let Some(gate) = self.gates.get_mut(&id) {
            gate.1 = reason;
        }
    }

    fn remove(&mut self, id: u64) {
        self.gates.remove(&id);
    }

    pub(super) fn reasons(&self) -> Vec<String> {
        let closed = |(name, reason): &(String, Option<String>)| {
            reason.as_ref().map(|reason| format!("{name}: {reason}"))
        };
        self.gates.values().filter_map(closed).collect()
    }
}

/// Whether traffic should come, as `/health/ready` answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether it should.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
}

impl Readiness {
    pub(super) fn new(reasons: Vec<String>) -> Self {
        Self {
            ready: reasons.is_empty(),
            reasons,
        }
    }
}
