//! What each of several registries said last, and what that makes together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ResolveRule;
use super::disagreement::{Disagreement, compare, is_same};
use crate::instance::{ServiceInstance, ServiceName};
use crate::resolver::InstanceList;

/// Services that are remembered although nobody watches them.
const REMEMBERED: usize = 1024;

/// What was said last, by service.
#[derive(Debug)]
pub(super) struct Known {
    members: usize,
    rule: ResolveRule,
    services: HashMap<ServiceName, Service>,
    /// Grows with every change of any service.
    revision: u64,
    /// Grows with every use.
    clock: u64,
    /// The services about which registries differ, in words.
    differing: BTreeMap<ServiceName, String>,
}

#[derive(Debug)]
struct Service {
    said: Vec<Said>,
    combined: Vec<ServiceInstance>,
    revision: u64,
    watches: usize,
    used: u64,
}

/// What one registry said.
#[derive(Clone, Debug, Default)]
struct Said {
    list: Option<InstanceList>,
    /// It failed since.
    away: bool,
    /// A watch has said it and stands: it knows better than a question that fails.
    watched: bool,
    /// It let somebody wait for longer than they would.
    slow: bool,
    /// From when it is, by the clock.
    at: u64,
}

/// Where a list comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It is the newest that there is.
    Watch,
    /// A watch, or who asked later, may be ahead of it.
    Question(Asked),
}

/// When a question was asked, by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked(u64);

impl Known {
    pub(super) fn new(members: usize, rule: ResolveRule) -> Self {
        Self {
            members,
            rule,
            services: HashMap::new(),
            revision: 0,
            clock: 0,
            differing: BTreeMap::new(),
        }
    }

    /// A question is asked now.
    pub(super) fn asks(&mut self, name: &ServiceName) -> Asked {
        self.service(name);
        Asked(self.clock)
    }

    /// Whether a registry is worth waiting for: neither is it known to be late, nor does a watch know anyhow what it says.
    pub(super) fn is_worth_waiting_for(&self, name: &ServiceName, at: usize) -> bool {
        let said = self.services.get(name).and_then(|it| it.said.get(at));
        said.is_none_or(|said| !(said.away || said.watched || said.slow))
    }

    /// Whether a watch stands that knows what a registry says.
    pub(super) fn is_watched(&self, name: &ServiceName, at: usize) -> bool {
        let said = self.services.get(name).and_then(|it| it.said.get(at));
        said.is_some_and(|said| said.watched && !said.away)
    }

    /// A registry has not answered in time, and may yet.
    pub(super) fn is_slow(&mut self, name: &ServiceName, at: usize) {
        if let Some(said) = self.service(name).said.get_mut(at) {
            said.slow = true;
            said.away |= !said.watched;
        }
        self.combine(name);
    }

    /// A registry has said who the instances are.
    pub(super) fn says(&mut self, name: &ServiceName, at: usize, list: InstanceList, from: Source) {
        let service = self.service(name);
        let (watches, used) = (service.watches, service.used);
        let Some(said) = service.said.get_mut(at) else {
            return;
        };
        said.away = false;
        match from {
            Source::Watch => {
                said.watched = true;
                said.slow = false;
                said.at = used;
            }
            Source::Question(Asked(asked)) => {
                if let Some(before) = &said.list {
                    let counted = list.revision > 0 && before.revision > 0;
                    let lower = list.revision < before.revision;
                    let older = asked < said.at;
                    // A registry that lost its data counts anew.
                    let behind = if counted {
                        lower && (watches > 0 || older)
                    } else {
                        older
                    };
                    if behind {
                        return self.combine(name);
                    }
                }
                said.at = said.at.max(asked);
            }
        }
        let before = said.list.take().unwrap_or_default().instances;
        let is_gone = |old: &ServiceInstance| !list.instances.iter().any(|new| is_same(old, new));
        let gone: Vec<ServiceInstance> = before.into_iter().filter(is_gone).collect();
        said.list = Some(list);
        // Who is away cannot say that they went.
        for said in service.said.iter_mut().filter(|said| said.away) {
            if let Some(list) = &mut said.list {
                let stays = |kept: &ServiceInstance| !gone.iter().any(|gone| is_same(gone, kept));
                list.instances.retain(stays);
            }
        }
        self.combine(name);
    }

    /// A registry has answered a question, and was not late.
    pub(super) fn is_in_time(&mut self, name: &ServiceName, at: usize) {
        if let Some(said) = self.service(name).said.get_mut(at) {
            said.slow = false;
        }
    }

    /// A registry cannot be asked about a service; says whether that is believed. A question that fails is not, while a
    /// watch stands: it may have been that question alone.
    pub(super) fn is_away(&mut self, name: &ServiceName, at: usize, from: Source) -> bool {
        let mut believed = false;
        if let Some(said) = self.service(name).said.get_mut(at) {
            believed = match from {
                Source::Watch => true,
                Source::Question(Asked(asked)) => !said.watched && said.at <= asked,
            };
            if believed {
                said.away = true;
                said.watched = false;
            }
        }
        self.combine(name);
        believed
    }

    /// What all of them make together.
    pub(super) fn combined(&mut self, name: &ServiceName) -> InstanceList {
        let service = self.service(name);
        InstanceList::new(service.combined.clone(), service.revision)
    }

    pub(super) fn watch_begins(&mut self, name: &ServiceName) {
        self.service(name).watches += 1;
    }

    pub(super) fn watch_ends(&mut self, name: &ServiceName) {
        if let Some(service) = self.services.get_mut(name) {
            service.watches = service.watches.saturating_sub(1);
            if service.watches == 0 {
                service
                    .said
                    .iter_mut()
                    .for_each(|said| said.watched = false);
            }
        }
    }

    pub(super) fn disagreement(
        &self,
        name: &ServiceName,
        names: &[Arc<str>],
    ) -> Option<Disagreement> {
        let said = self.services.get(name)?.said.iter().zip(names);
        let answering = said.filter(|(said, _)| !said.away);
        let lists = answering.filter_map(|(said, name)| {
            Some((name.as_ref(), said.list.as_ref()?.instances.as_slice()))
        });
        compare(&lists.collect::<Vec<_>>())
    }

    /// The services about which registries differ, when that has changed since it was asked for last.
    pub(super) fn differing_now(
        &mut self,
        name: &ServiceName,
        names: &[Arc<str>],
    ) -> Option<&BTreeMap<ServiceName, String>> {
        let now = self
            .disagreement(name, names)
            .map(|differ| differ.to_string());
        if self.differing.get(name) == now.as_ref() {
            return None;
        }
        match now {
            Some(told) => self.differing.insert(name.clone(), told),
            None => self.differing.remove(name),
        };
        Some(&self.differing)
    }

    fn service(&mut self, name: &ServiceName) -> &mut Service {
        self.clock += 1;
        if !self.services.contains_key(name) {
            self.make_room();
            self.revision += 1;
        }
        let (members, revision) = (self.members, self.revision);
        let service = self.services.entry(name.clone());
        let service = service.or_insert_with(|| Service {
            said: vec![Said::default(); members],
            combined: Vec::new(),
            revision,
            watches: 0,
            used: 0,
        });
        service.used = self.clock;
        service
    }

    /// Forgets the service that was used longest ago among those that nobody watches, when there are too many.
    fn make_room(&mut self) {
        if self.services.len() < REMEMBERED {
            return;
        }
        let unwatched = self
            .services
            .iter()
            .filter(|(_, service)| service.watches == 0);
        let oldest = unwatched.min_by_key(|(_, service)| service.used);
        if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
            self.services.remove(&oldest);
            self.differing.remove(&oldest);
        }
    }

    fn combine(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let combined = combine(self.rule, &service.said);
        if service.combined != combined {
            self.revision += 1;
            service.revision = self.revision;
            service.combined = combined;
        }
    }
}

/// Those that answer come first, then those that are away with what they said last, each in their order.
fn combine(rule: ResolveRule, said: &[Said]) -> Vec<ServiceInstance> {
    let answering = said.iter().filter(|said| !said.away);
    let away = said.iter().filter(|said| said.away);
    let lists = answering.chain(away).filter_map(|said| said.list.as_ref());
    let mut lists = lists.map(|list| &list.instances);
    let mut combined = match rule {
        ResolveRule::Ordered => lists
            .find(|list| !list.is_empty())
            .cloned()
            .unwrap_or_default(),
        ResolveRule::Merged => merge(lists),
    };
    combined.sort_by(|one, other| one.id.cmp(&other.id));
    combined
}

fn merge<'a>(lists: impl Iterator<Item = &'a Vec<ServiceInstance>>) -> Vec<ServiceInstance> {
    let mut merged: Vec<ServiceInstance> = Vec::new();
    let mut ids = std::collections::HashSet::new();
    let mut places = std::collections::HashSet::new();
    for list in lists {
        // Within one registry two at one place are two: it says so.
        let (known_ids, known_places) = (ids.clone(), places.clone());
        for instance in list {
            let place = (instance.host.clone(), instance.port);
            if known_ids.contains(&instance.id) || known_places.contains(&place) {
                continue;
            }
            if ids.insert(instance.id.clone()) {
                places.insert(place);
                merged.push(instance.clone());
            }
        }
    }
    merged
}
