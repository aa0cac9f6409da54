//! What is announced, and until when.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Error, ErrorKind, Result};

use crate::instance::{ServiceInstance, ServiceName};
use crate::registry::Lease;
use crate::resolver::InstanceList;

#[derive(Debug, Default)]
pub(super) struct State {
    services: BTreeMap<ServiceName, Service>,
    /// The service that an instance belongs to, by its id.
    owners: HashMap<String, ServiceName>,
    /// Instances by the moment when they go unless they are renewed.
    ends: BTreeSet<(Instant, String)>,
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
        self.take(&id);
        self.owners.insert(id.clone(), name.clone());
        let term = ttl.map(Term::begin);
        self.plan(term, &id);
        let entry = Entry {
            instance,
            token,
            term,
        };
        self.changed(&name).instances.insert(id, entry);
        token
    }

    pub(super) fn renew(&mut self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        let id = &lease.instance_id;
        let Some(entry) = self.held(lease) else {
            return Err(Error::not_found(format!(
                "no lease stands for instance {id}"
            )));
        };
        if instance.id != *id || instance.name != entry.instance.name {
            return Err(Error::invalid(
                "a renewal must be of the instance that was registered",
            ));
        }
        let before = entry.term;
        entry.term = before.map(|term| Term::begin(term.ttl));
        let after = entry.term;
        let news = entry.instance != *instance;
        if news {
            entry.instance = instance.clone();
            self.changed(&instance.name);
        }
        self.unplan(before, id);
        self.plan(after, id);
        Ok(())
    }

    /// Withdraws what the lease stands for; does nothing when it was withdrawn or replaced. An empty token stands for
    /// whatever was announced.
    pub(super) fn remove(&mut self, lease: &Lease) {
        let is_free = self.check_free(&lease.instance_id).is_ok();
        if self.held(lease).is_some() || (lease.token.is_empty() && is_free) {
            self.take(&lease.instance_id);
        }
    }

    /// Whether an announcement may take this id: what stands for ever is nobody's to replace.
    pub(super) fn check_free(&self, id: &str) -> Result<()> {
        let service = self.owners.get(id).and_then(|name| self.services.get(name));
        let entry = service.and_then(|service| service.instances.get(id));
        match entry {
            Some(Entry { term: None, .. }) => Err(Error::new(
                ErrorKind::Conflict,
                format!("instance {id} is named by the configuration; announce another id"),
            )),
            _ => Ok(()),
        }
    }

    /// Forgets every instance whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((ends, id)) = self.ends.first()
            && *ends <= now
        {
            let id = id.clone();
            self.take(&id);
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

    /// Takes an instance out, wherever it is.
    fn take(&mut self, id: &str) {
        let Some(name) = self.owners.remove(id) else {
            return;
        };
        let service = self.changed(&name);
        let entry = service.instances.remove(id);
        if service.instances.is_empty() {
            self.services.remove(&name);
        }
        self.unplan(entry.and_then(|entry| entry.term), id);
    }

    fn plan(&mut self, term: Option<Term>, id: &str) {
        if let Some(ends) = term.and_then(|term| term.ends) {
            self.ends.insert((ends, id.to_owned()));
        }
    }

    fn unplan(&mut self, term: Option<Term>, id: &str) {
        if let Some(ends) = term.and_then(|term| term.ends) {
            self.ends.remove(&(ends, id.to_owned()));
        }
    }

    fn changed(&mut self, name: &ServiceName) -> &mut Service {
        self.revision += 1;
        let service = self.services.entry(name.clone()).or_default();
        service.revision = self.revision;
        service
    }
}
