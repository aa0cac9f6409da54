//! Watches begin with the list and miss nothing.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use trunkline_discovery::{InstanceStatus, Registry, Resolver};

use crate::Scope;
use crate::registry::RegistryUnderTest;
use crate::registry::fixture::{
    LONG, ever_longer, ids, instance, next, service, short_ids, too_busy, until,
};

/// The first list comes at once and is complete.
pub async fn a_watch_begins_with_the_list(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject
        .register(&instance(scope, &service, "a"), LONG)
        .await;
    subject
        .register(&instance(scope, &service, "b"), LONG)
        .await;
    let mut watch = subject.watch(&service).await;
    assert_eq!(short_ids(&next(scope, &mut watch).await), ["a", "b"]);
}

/// The first list comes even when there is nothing to list.
pub async fn a_watch_of_nobody_begins_with_an_empty_list(
    subject: &RegistryUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    assert!(next(scope, &mut watch).await.instances.is_empty());
    subject
        .register(&instance(scope, &service, "a"), LONG)
        .await;
    assert_eq!(short_ids(&next(scope, &mut watch).await), ["a"]);
}

/// Announcing and withdrawing are seen, each as a whole list.
pub async fn a_watch_sees_instances_come_and_go(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    next(scope, &mut watch).await;
    let lease = subject
        .register(&instance(scope, &service, "a"), LONG)
        .await;
    assert_eq!(short_ids(&next(scope, &mut watch).await), ["a"]);
    subject
        .register(&instance(scope, &service, "b"), LONG)
        .await;
    assert_eq!(short_ids(&next(scope, &mut watch).await), ["a", "b"]);
    subject.deregister(&lease).await;
    assert_eq!(short_ids(&next(scope, &mut watch).await), ["b"]);
}

/// What a renewal changes is seen; a renewal that changes nothing is not.
pub async fn a_watch_sees_what_renewals_change(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let lease = subject.register(&users, LONG).await;
    let mut watch = subject.watch(&service).await;
    next(scope, &mut watch).await;
    subject.renew(&lease, &users).await;
    scope.never("a list without a change", watch.next()).await;
    let draining = users.with_status(InstanceStatus::Draining);
    subject.renew(&lease, &draining).await;
    assert_eq!(next(scope, &mut watch).await.instances, [draining]);
}

/// An instance whose lease runs out is seen to go, without anybody asking.
pub async fn a_watch_sees_a_lease_run_out(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject
        .register(&instance(scope, &service, "stays"), LONG)
        .await;
    subject
        .register(&instance(scope, &service, "goes"), subject.short)
        .await;
    let mut watch = subject.watch(&service).await;
    until(scope, &mut watch, |list| list.instances.len() == 2).await;
    assert_eq!(short_ids(&next(scope, &mut watch).await), ["stays"]);
}

/// An instance that is renewed never blinks.
pub async fn a_renewed_instance_is_never_seen_to_go(
    subject: &RegistryUnderTest<'_>,
    scope: &Scope,
) {
    for ttl in ever_longer(subject.short * 3) {
        if never_goes(subject, scope, ttl).await {
            return;
        }
    }
    too_busy();
}

/// Says whether it came in time.
async fn never_goes(subject: &RegistryUnderTest<'_>, scope: &Scope, ttl: Duration) -> bool {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let last = Mutex::new(Instant::now());
    let lease = subject.register(&users, ttl).await;
    let mut watch = subject.watch(&service).await;
    let first = next(scope, &mut watch).await;
    if since(&last) >= ttl {
        return false;
    }
    assert_eq!(first.instances.len(), 1);
    let renewing = async {
        for _ in 0..12 {
            tokio::time::sleep(ttl / 4).await;
            let asked = Instant::now();
            let renewed = subject.registry.renew(&lease, &users).await;
            if since(&last) >= ttl {
                return false;
            }
            renewed.expect("a lease that stands is renewed");
            *last.lock().expect("no panic") = asked;
        }
        true
    };
    tokio::select! {
        came_in_time = renewing => came_in_time,
        list = watch.next() => {
            assert!(since(&last) >= ttl, "nothing changed, and yet: {list:?}");
            false
        }
    }
}

fn since(last: &Mutex<Instant>) -> Duration {
    last.lock().expect("no panic").elapsed()
}

/// Several watches of one service all see every change.
pub async fn every_watch_sees_every_change(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watches = Vec::new();
    for _ in 0..8 {
        let mut watch = subject.watch(&service).await;
        next(scope, &mut watch).await;
        watches.push(watch);
    }
    subject
        .register(&instance(scope, &service, "a"), LONG)
        .await;
    for watch in &mut watches {
        assert_eq!(short_ids(&next(scope, watch).await), ["a"]);
    }
    // Those that remain do not mind that some are dropped.
    watches.truncate(3);
    subject
        .register(&instance(scope, &service, "b"), LONG)
        .await;
    for watch in &mut watches {
        assert_eq!(short_ids(&next(scope, watch).await), ["a", "b"]);
    }
}

/// A watch hears nothing of other services.
pub async fn a_watch_hears_of_its_own_service_only(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let (users, admins) = (service(scope, "users"), service(scope, "users-admin"));
    let mut watch = subject.watch(&users).await;
    next(scope, &mut watch).await;
    let lease = subject.register(&instance(scope, &admins, "a"), LONG).await;
    scope.never("a list of another service", watch.next()).await;
    subject.deregister(&lease).await;
    scope.never("a list of another service", watch.next()).await;
}

/// However quickly things change, the last list is the truth.
pub async fn a_watch_ends_up_with_the_truth(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    let users = instance(scope, &service, "a");
    let lease = subject.register(&users, LONG).await;
    for round in 1..=50 {
        let passing = subject
            .register(&instance(scope, &service, "b"), LONG)
            .await;
        subject
            .renew(&lease, &users.clone().with_weight(round))
            .await;
        subject.deregister(&passing).await;
    }
    let truth = subject.list(&service).await;
    assert_eq!(truth.instances, [users.with_weight(50)]);
    until(scope, &mut watch, |list| list.instances == truth.instances).await;
    scope.never("a list after the truth", watch.next()).await;
}

/// A watch that begins amid changes misses none of them.
pub async fn a_watch_that_begins_amid_changes_misses_nothing(
    subject: &RegistryUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let changing = async {
        for n in 0..100 {
            let id = format!("{n:03}");
            subject
                .register(&instance(scope, &service, &id), LONG)
                .await;
        }
    };
    let watching = async {
        let mut watches = Vec::new();
        for _ in 0..20 {
            watches.push(subject.watch(&service).await);
            tokio::task::yield_now().await;
        }
        watches
    };
    let ((), watches) = tokio::join!(changing, watching);
    for mut watch in watches {
        until(scope, &mut watch, |list| list.instances.len() == 100).await;
    }
}

/// Giving up waiting for the next list, at any moment, loses nothing.
pub async fn waiting_for_a_list_is_cancel_safe(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    let lease = subject
        .register(&instance(scope, &service, "a"), LONG)
        .await;
    let mut last = None;
    for round in 0..200_u64 {
        let heavier = instance(scope, &service, "a").with_weight(round as u32 + 1);
        subject.renew(&lease, &heavier).await;
        let patience = Duration::from_micros(round * 7 % 300);
        if let Ok(list) = timeout(patience, watch.next()).await {
            last = Some(list.expect("a watch does not end").expect("nor fail"));
        }
    }
    let truth = subject.list(&service).await;
    if last.is_none_or(|last| last.instances != truth.instances) {
        until(scope, &mut watch, |list| list.instances == truth.instances).await;
    }
}

/// Revisions never go back, and a change has a higher one, where the registry counts.
pub async fn revisions_grow(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    let mut last = next(scope, &mut watch).await;
    for n in 0..10 {
        let id = format!("{n}");
        subject
            .register(&instance(scope, &service, &id), LONG)
            .await;
        let list = next(scope, &mut watch).await;
        assert!(
            list.revision == 0 || list.revision > last.revision,
            "{list:?} after {last:?}"
        );
        let resolved = subject.list(&service).await;
        assert!(
            resolved.revision >= list.revision,
            "a question is not behind a watch"
        );
        last = list;
    }
    assert_eq!(ids(&subject.list(&service).await), ids(&last));
}

/// Erasing what is erased changes nothing.
pub async fn erasing_twice_is_erasing_once(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    use trunkline_discovery::Registry;
    let service = service(scope, "users");
    subject
        .register(&instance(scope, &service, "a"), LONG)
        .await;
    let resolver = subject.resolver.clone().erase().erase();
    let found = resolver
        .resolve(&service)
        .await
        .expect("a service can be resolved");
    assert_eq!(found.instances.len(), 1);
    let registry = subject.registry.clone().erase();
    assert_eq!(Registry::kind(&registry), Registry::kind(&subject.registry));
    assert_eq!(Resolver::kind(&resolver), Resolver::kind(&subject.resolver));
}
