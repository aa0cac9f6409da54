//! How registries differ about a service.

use std::fmt;

use crate::instance::ServiceInstance;

/// How the registries that answer differ about a service. Shown in one line:
/// `consul://one:8500 has 2 of 3, etcd://one:2379 has 3 of 3; 1 has not the same status everywhere`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disagreement {
    /// How many instances there are in all.
    pub instances: usize,
    /// How many of them each registry has, by its name, in their order.
    pub known: Vec<(String, usize)>,
    /// How many have not the same status everywhere where they are known.
    pub other_status: usize,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, count)) in self.known.iter().enumerate() {
            let between = if at > 0 { ", " } else { "" };
            write!(f, "{between}{name} has {count} of {}", self.instances)?;
        }
        match self.other_status {
            0 => Ok(()),
            1 => f.write_str("; 1 has not the same status everywhere"),
            more => write!(f, "; {more} have not the same status everywhere"),
        }
    }
}

/// Whether two registries mean one instance: it has the same id, or the same place.
pub(super) fn is_same(one: &ServiceInstance, other: &ServiceInstance) -> bool {
    one.id == other.id || (one.port == other.port && one.host == other.host)
}

/// How lists differ; nothing when they do not.
pub(super) fn compare(lists: &[(&str, &[ServiceInstance])]) -> Option<Disagreement> {
    let mut all: Vec<&ServiceInstance> = Vec::new();
    for (_, list) in lists {
        let new = list
            .iter()
            .filter(|new| !all.iter().any(|old| is_same(old, new)));
        let new: Vec<&ServiceInstance> = new.collect();
        all.extend(new);
    }
    let known: Vec<(String, usize)> = lists
        .iter()
        .map(|(name, list)| {
            let has = |one: &&&ServiceInstance| list.iter().any(|other| is_same(one, other));
            ((*name).to_owned(), all.iter().filter(has).count())
        })
        .collect();
    let differs = |one: &&&ServiceInstance| {
        let views = lists.iter().flat_map(|(_, list)| list.iter());
        let mut views = views.filter(|other| is_same(one, other));
        views.any(|other| other.status != one.status)
    };
    let other_status = all.iter().filter(differs).count();
    let agree = other_status == 0 && known.iter().all(|(_, count)| *count == all.len());
    (!agree).then_some(Disagreement {
        instances: all.len(),
        known,
        other_status,
    })
}
