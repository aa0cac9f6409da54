//! The cases. Each is a plain function over any resolver.
#![allow(clippy::missing_panics_doc, reason = "a case fails by panicking")]

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use trunkline_core::{Error, ErrorKind};
use trunkline_discovery::{InstanceWatch, Lease, Registry, Resolver, ServiceInstance, ServiceName};

use super::harness::{Place, ResolverUnderTest, places};
use crate::Scope;

pub(super) fn service(scope: &Scope, what: &str) -> ServiceName {
    ServiceName::new(scope.name(what)).expect("a sound name")
}

pub(super) fn numbers(numbers: impl IntoIterator<Item = u16>) -> Vec<Place> {
    let mut places: Vec<Place> = numbers.into_iter().map(Place::number).collect();
    places.sort();
    places
}

pub(super) fn assert_kind<T>(result: Result<T, Error>, kind: ErrorKind, what: &str) {
    match result {
        Ok(_) => panic!("{what} succeeded, it should fail as {kind}"),
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {}", error.report()),
    }
}

pub(super) async fn next(scope: &Scope, watch: &mut InstanceWatch) -> Vec<Place> {
    let next = scope.within("a list of the watch", watch.next()).await;
    let list = next.expect("a watch does not end").expect("nor fail");
    places(&list)
}

/// Follows a watch until it says so; lists in between may be skipped or not.
pub(super) async fn until(scope: &Scope, watch: &mut InstanceWatch, wanted: &[Place]) {
    while next(scope, watch).await != wanted {}
}

/// What stands in the directory is found.
pub async fn what_is_written_is_found(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2]).await;
    assert_eq!(subject.places(&service).await, numbers([1, 2]));
}

/// Nobody is an answer, not an error.
pub async fn an_unknown_service_has_no_instances(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    assert!(subject.places(&service(scope, "nobody")).await.is_empty());
}

/// Instances are as if they had been announced: sound, of the service, usable, and ordered by id.
pub async fn instances_are_sound_and_in_order(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, [3, 1, 2]).await;
    let list = subject
        .resolver
        .resolve(&service)
        .await
        .expect("it can be resolved");
    assert_eq!(list.instances.len(), 3);
    assert!(list.instances.is_sorted_by(|one, other| one.id < other.id));
    for instance in &list.instances {
        instance.validate().expect("a sound instance");
        assert_eq!(instance.name, service);
        assert!(instance.is_usable(), "{instance:?}");
    }
}

/// An instance that stays keeps its id and everything else, whatever comes and goes beside it.
pub async fn an_instance_is_the_same_every_time(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, [1]).await;
    let first = subject
        .resolver
        .resolve(&service)
        .await
        .expect("it can be resolved");
    subject.write(&service, [1, 2]).await;
    let second = subject
        .resolver
        .resolve(&service)
        .await
        .expect("it can be resolved");
    assert!(
        second.instances.contains(&first.instances[0]),
        "{first:?} {second:?}"
    );
}

/// Nobody finds the instances of another service.
pub async fn services_are_apart(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let (users, admins) = (service(scope, "users"), service(scope, "users-admin"));
    subject.write(&users, [1]).await;
    subject.write(&admins, [2]).await;
    assert_eq!(subject.places(&users).await, numbers([1]));
    assert_eq!(subject.places(&admins).await, numbers([2]));
}

/// Upper case and `_` mean lower case and `-`.
pub async fn spellings_of_a_name_are_one(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "user-service");
    subject.write(&service, [1]).await;
    let spelled = service.as_str().replace("user-service", "User_Service");
    let spelled = ServiceName::new(spelled).expect("a sound name");
    assert_eq!(subject.places(&spelled).await, numbers([1]));
}

/// A list that no single small answer holds is complete.
pub async fn many_instances_are_found(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, 0..250).await;
    assert_eq!(subject.places(&service).await, numbers(0..250));
}

/// The services that have an instance are listed; where they cannot be, that is said.
pub async fn services_are_those_with_an_instance(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let (users, gone) = (service(scope, "users"), service(scope, "gone"));
    subject.write(&users, [1]).await;
    subject.write(&gone, [2]).await;
    subject.write(&gone, []).await;
    let services = subject.resolver.services().await;
    if !subject.lists_services {
        return assert_kind(services, ErrorKind::Unsupported, "listing services");
    }
    let services = services.expect("services can be listed");
    assert!(
        services.contains(&users) && !services.contains(&gone),
        "{services:?}"
    );
}

/// What is taken out is not found any more.
pub async fn what_is_taken_out_is_gone(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2]).await;
    subject.write(&service, [2]).await;
    assert_eq!(subject.places(&service).await, numbers([2]));
    subject.write(&service, []).await;
    assert!(subject.places(&service).await.is_empty());
}

/// Announcing is refused by its kind, and changes nothing.
pub async fn nothing_can_be_announced(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let instance = ServiceInstance::new(service.clone(), "10.0.0.1", 8000);
    let ttl = Duration::from_secs(10);
    let lease = Lease::new(&instance.id, "1", ttl);
    let registry = &subject.registry;
    assert_kind(
        registry.register(instance.clone(), ttl).await,
        ErrorKind::Unsupported,
        "registering",
    );
    let renewed = registry.renew(&lease, &instance).await;
    assert_kind(renewed, ErrorKind::Unsupported, "renewing");
    let withdrawn = registry.deregister(&lease).await;
    assert_kind(withdrawn, ErrorKind::Unsupported, "deregistering");
    assert!(subject.places(&service).await.is_empty());
}

/// A directory that works says so.
pub async fn a_health_check_passes(subject: &ResolverUnderTest<'_>, _: &Scope) {
    let health = subject.registry.health_check().await;
    health.expect("a directory that works");
}

/// The first list comes at once and is complete.
pub async fn a_watch_begins_with_the_list(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2]).await;
    let mut watch = subject.watch(&service).await;
    assert_eq!(next(scope, &mut watch).await, numbers([1, 2]));
}

/// The first list comes even when there is nothing to list.
pub async fn a_watch_of_nobody_begins_with_an_empty_list(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    assert!(next(scope, &mut watch).await.is_empty());
    subject.write(&service, [1]).await;
    until(scope, &mut watch, &numbers([1])).await;
}

/// Coming and going is seen, each as a whole list.
pub async fn a_watch_sees_instances_come_and_go(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    assert!(next(scope, &mut watch).await.is_empty());
    for wanted in [vec![1], vec![1, 2], vec![2], vec![2, 3], vec![]] {
        subject.write(&service, wanted.clone()).await;
        until(scope, &mut watch, &numbers(wanted)).await;
    }
}

/// What has not changed is not told.
pub async fn a_watch_tells_nothing_twice(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2]).await;
    let mut watch = subject.watch(&service).await;
    next(scope, &mut watch).await;
    scope.never("a list without a change", watch.next()).await;
    subject.write(&service, [1, 2]).await;
    scope.never("a list without a change", watch.next()).await;
}

/// Several watches of one service all see every change.
pub async fn every_watch_sees_every_change(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watches = Vec::new();
    for _ in 0..8 {
        let mut watch = subject.watch(&service).await;
        next(scope, &mut watch).await;
        watches.push(watch);
    }
    subject.write(&service, [1]).await;
    for watch in &mut watches {
        until(scope, watch, &numbers([1])).await;
    }
    // Those that remain do not mind that some are dropped.
    watches.truncate(3);
    subject.write(&service, [1, 2]).await;
    for watch in &mut watches {
        until(scope, watch, &numbers([1, 2])).await;
    }
}

/// A watch hears nothing of other services.
pub async fn a_watch_hears_of_its_own_service_only(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let (users, admins) = (service(scope, "users"), service(scope, "users-admin"));
    let mut watch = subject.watch(&users).await;
    next(scope, &mut watch).await;
    subject.write(&admins, [1]).await;
    scope.never("a list of another service", watch.next()).await;
    subject.write(&admins, []).await;
    scope.never("a list of another service", watch.next()).await;
}

/// However quickly things change, the last list is the truth.
pub async fn a_watch_ends_up_with_the_truth(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    for round in 0..40 {
        subject.write(&service, [round, round + 1]).await;
    }
    subject.write(&service, [7, 9]).await;
    assert_eq!(subject.places(&service).await, numbers([7, 9]));
    until(scope, &mut watch, &numbers([7, 9])).await;
    scope.never("a list after the truth", watch.next()).await;
}

/// A watch that begins amid changes misses none of them.
pub async fn a_watch_that_begins_amid_changes_misses_nothing(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let changing = async {
        for n in 1..=40 {
            subject.write(&service, 0..n).await;
        }
    };
    let watching = async {
        let mut watches = Vec::new();
        for _ in 0..10 {
            watches.push(subject.watch(&service).await);
            tokio::task::yield_now().await;
        }
        watches
    };
    let ((), watches) = tokio::join!(changing, watching);
    for mut watch in watches {
        until(scope, &mut watch, &numbers(0..40)).await;
    }
}

/// Giving up waiting for the next list, at any moment, loses nothing.
pub async fn waiting_for_a_list_is_cancel_safe(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    let mut last = None;
    for round in 0..40_u16 {
        subject.write(&service, [round]).await;
        let patience = Duration::from_micros(u64::from(round) * 70 % 3_000);
        if let Ok(list) = timeout(patience, watch.next()).await {
            let list = list.expect("a watch does not end").expect("nor fail");
            last = Some(places(&list));
        }
    }
    if last != Some(numbers([39])) {
        until(scope, &mut watch, &numbers([39])).await;
    }
}

/// Erasing what is erased changes nothing.
pub async fn erasing_twice_is_erasing_once(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, [1]).await;
    let resolver = subject.resolver.clone().erase().erase();
    let found = resolver
        .resolve(&service)
        .await
        .expect("it can be resolved");
    assert_eq!(found.instances.len(), 1);
    assert_eq!(Resolver::kind(&resolver), Resolver::kind(&subject.resolver));
    assert_eq!(Registry::kind(&subject.registry), Resolver::kind(&resolver));
}

/// After shutdown every question fails as cancelled.
pub async fn calls_after_shutdown_are_cancelled(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.shutdown().await;
    let resolved = subject.resolver.resolve(&service).await;
    assert_kind(resolved, ErrorKind::Cancelled, "resolving");
    let watched = subject.resolver.watch(&service).await;
    assert_kind(watched, ErrorKind::Cancelled, "watching");
    let health = subject.registry.health_check().await;
    assert_kind(health, ErrorKind::Cancelled, "a health check");
    subject.shutdown().await;
}

/// Watches end at shutdown, and stay ended.
pub async fn watches_end_at_shutdown(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watches = Vec::new();
    for _ in 0..4 {
        let mut watch = subject.watch(&service).await;
        next(scope, &mut watch).await;
        watches.push(watch);
    }
    subject.shutdown().await;
    for watch in &mut watches {
        let ended = scope.within("the end of a watch", watch.next()).await;
        assert!(ended.is_none(), "{ended:?}");
        assert!(watch.next().await.is_none());
    }
}

/// Questions that are under way at shutdown are answered or cancelled.
pub async fn calls_under_way_end_at_shutdown(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, [1]).await;
    let asking = (0..20).map(|_| {
        let (resolver, service) = (subject.resolver.clone(), service.clone());
        trunkline_core::task::spawn("question", async move { resolver.resolve(&service).await })
    });
    let asking: Vec<_> = asking.collect();
    subject.shutdown().await;
    for answer in scope.within("the answers", join_all(asking)).await {
        match answer.expect("no task panics") {
            Ok(list) => assert_eq!(places(&list), numbers([1])),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{}", error.report()),
        }
    }
}
