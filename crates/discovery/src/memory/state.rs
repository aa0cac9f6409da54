//! What is announced, and until when.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Error, Result};

use crate::instance::{ServiceInstance, ServiceName};
use crate::registry::Lease;
use crate::resolver::InstanceList;

#[derive(Debug, Default)]
pub(super) struct State {
    services: BTreeMap<ServiceName, Service>,
    /// The service that an instance belongs to, by its id.
    owners: HashMap<String, ServiceName>,
    revision: u64,
    tokens: u64,
    pub(super) closed: bool,
}

#[derive(Debug, Default)]
struct Service {
    instances: BTreeMap<String, Entry>,
    /// The revision of the last change of this service.
    revision: u64,
}

#[derive(Debug)]
struct Entry {
    instance: ServiceInstance,
    token: u64,
    term: Option<Term>,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    ttl: Duration,
    /// `None` when it is too far away to be told.
    ends: Option<Instant>,
}

impl Term {
    fn begin(ttl: Duration) -> Self {
        let ends = Instant::now().checked_add(ttl);
        Self { ttl, ends }
    }
}

impl State {
    /// Grows with every change.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Announces an instance, in place of one with the same id; for ever without a time.
    pub(super) fn put(&mut self, instance: ServiceInstance, ttl: Option<Duration>) -> u64 {
        self.tokens += 1;
        let token = self.tokens;
        let (id, name) = (instance.id.clone(), instance.name.clone());
        let before = self.owners.insert(id.clone(), name.clone());
        if let Some(before) = before.filter(|before| *before != name) {
            self.take(&before, &id);
        }
        let term = ttl.map(Term::begin);
        let entry = Entry {
            instance,
            token,
            term,
        };
        self.changed(&name).instances.insert(id, entry);
        token
    }

    pub(super) fn renew(&mut self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        let same = instance.id == lease.instance_id;
        let Some(entry) = self.held(lease) else {
            let id = &lease.instance_id;
            return Err(Error::not_found(format!(
                "no lease stands for instance {id}"
            )));
        };
        if !same || instance.name != entry.instance.name {
            return Err(Error::invalid(
                "a renewal must be of the instance that was registered",
            ));
        }
        if let Some(term) = &mut entry.term {
            *term = Term::begin(term.ttl);
        }
        if entry.instance != *instance {
            entry.instance = instance.clone();
            self.changed(&instance.name);
        }
        Ok(())
    }

    /// Withdraws what the lease stands for; does nothing when it was withdrawn or replaced.
    pub(super) fn remove(&mut self, lease: &Lease) {
        if let Some(entry) = self.held(lease) {
            let name = entry.instance.name.clone();
            self.owners.remove(&lease.instance_id);
            self.take(&name, &lease.instance_id);
        }
    }

    /// Forgets every instance whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let over = |entry: &Entry| {
            let ends = entry.term.and_then(|term| term.ends);
            ends.is_some_and(|ends| ends <= now)
        };
        let gone: Vec<(ServiceName, String)> = self
            .services
            .values()
            .flat_map(|service| service.instances.values())
            .filter(|entry| over(entry))
            .map(|entry| (entry.instance.name.clone(), entry.instance.id.clone()))
            .collect();
        for (name, id) in gone {
            self.owners.remove(&id);
            self.take(&name, &id);
        }
    }

    pub(super) fn list(&self, name: &ServiceName) -> InstanceList {
        let Some(service) = self.services.get(name) else {
            return InstanceList::new(Vec::new(), self.revision);
        };
        let instances = service.instances.values();
        let instances = instances.map(|entry| entry.instance.clone()).collect();
        InstanceList::new(instances, service.revision)
    }

    /// The names of services that have an instance.
    pub(super) fn services(&self) -> Vec<ServiceName> {
        self.services.keys().cloned().collect()
    }

    /// When the next instance of a service goes unless it is renewed.
    pub(super) fn next_end(&self, name: &ServiceName) -> Option<Instant> {
        let entries = self.services.get(name)?.instances.values();
        entries.filter_map(|entry| entry.term?.ends).min()
    }

    fn held(&mut self, lease: &Lease) -> Option<&mut Entry> {
        let name = self.owners.get(&lease.instance_id)?;
        let service = self.services.get_mut(name)?;
        let entry = service.instances.get_mut(&lease.instance_id)?;
        (entry.token.to_string() == lease.token).then_some(entry)
    }

    fn take(&mut self, name: &ServiceName, id: &str) {
        let service = self.changed(name);
        service.instances.remove(id);
        if service.instances.is_empty() {
            self.services.remove(name);
        }
    }

    fn changed(&mut self, name: &ServiceName) -> &mut Service {
        self.revision += 1;
        let service = self.services.entry(name.clone()).or_default();
        service.revision = self.revision;
        service
    }
}
