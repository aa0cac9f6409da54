//! Names and short ways that cases share.

use std::time::Duration;

use trunkline_core::{Error, ErrorKind};
use trunkline_discovery::{
    InstanceList, InstanceWatch, Lease, Registry, Resolver, ServiceInstance, ServiceName,
};

use super::RegistryUnderTest;
use crate::Scope;

/// A time that no case outlives.
pub(super) const LONG: Duration = Duration::from_secs(600);

pub(super) fn service(scope: &Scope, what: &str) -> ServiceName {
    ServiceName::new(scope.name(what)).expect("a sound name")
}

/// An instance whose id is unique, and sorts by `id` within a case.
pub(super) fn instance(scope: &Scope, service: &ServiceName, id: &str) -> ServiceInstance {
    ServiceInstance::new(service.clone(), "10.0.0.1", 8000)
        .with_id(format!("{id}-{}", scope.unique()))
}

pub(super) fn assert_kind<T>(result: Result<T, Error>, kind: ErrorKind, what: &str) {
    match result {
        Ok(_) => panic!("{what} succeeded, it should fail as {kind}"),
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {}", error.report()),
    }
}

pub(super) fn ids(list: &InstanceList) -> Vec<&str> {
    list.instances
        .iter()
        .map(|instance| instance.id.as_str())
        .collect()
}

/// The first part of the ids, as `instance` was given them.
pub(super) fn short_ids(list: &InstanceList) -> Vec<&str> {
    let short = |id: &'_ str| id.find('-').map_or(id.len(), |at| at);
    ids(list)
        .into_iter()
        .map(|id| id.get(..short(id)).unwrap_or(id))
        .collect()
}

impl RegistryUnderTest<'_> {
    pub(super) async fn register(&self, instance: &ServiceInstance, ttl: Duration) -> Lease {
        let lease = self.registry.register(instance.clone(), ttl).await;
        lease.expect("an instance can be registered")
    }

    pub(super) async fn renew(&self, lease: &Lease, instance: &ServiceInstance) {
        let renewed = self.registry.renew(lease, instance).await;
        renewed.expect("a lease that stands can be renewed");
    }

    pub(super) async fn deregister(&self, lease: &Lease) {
        let gone = self.registry.deregister(lease).await;
        gone.expect("a registration can be withdrawn");
    }

    pub(super) async fn list(&self, service: &ServiceName) -> InstanceList {
        let list = self.resolver.resolve(service).await;
        list.expect("a service can be resolved")
    }

    pub(super) async fn watch(&self, service: &ServiceName) -> InstanceWatch {
        let watch = self.resolver.watch(service).await;
        watch.expect("a service can be watched")
    }
}

/// The next list of a watch.
pub(super) async fn next(scope: &Scope, watch: &mut InstanceWatch) -> InstanceList {
    let next = scope.within("a list of the watch", watch.next()).await;
    next.expect("a watch does not end")
        .expect("a watch does not fail")
}

/// Follows a watch until a list is as wanted; lists in between may be skipped or not.
pub(super) async fn until(
    scope: &Scope,
    watch: &mut InstanceWatch,
    wanted: impl Fn(&InstanceList) -> bool,
) -> InstanceList {
    loop {
        let list = next(scope, watch).await;
        if wanted(&list) {
            return list;
        }
    }
}

/// Leases to try with, each longer, until one could be kept: on a busy machine a renewal may come later than a short lease
/// lasts, which says nothing about the registry.
pub(super) fn ever_longer(ttl: Duration) -> [Duration; 3] {
    [ttl, ttl * 2, ttl * 4]
}

/// None of them could be kept.
pub(super) fn too_busy() -> ! {
    panic!("this machine is too busy to keep a lease")
}

/// Looks until a list is as wanted.
pub(super) async fn eventually(
    scope: &Scope,
    subject: &RegistryUnderTest<'_>,
    service: &ServiceName,
    wanted: &[&str],
) {
    let look = async {
        while short_ids(&subject.list(service).await) != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    scope.within("the list as wanted", look).await;
}
