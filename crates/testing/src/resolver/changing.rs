//! Cases about how instances come, go and move, at the resolver and above it.
#![allow(clippy::missing_panics_doc, reason = "a case fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use trunkline_discovery::{Discovery, InstanceSet, PickRequest, Resolver, ServiceName};

use super::cases::{next, numbers, service, until};
use super::harness::{Place, ResolverUnderTest};
use crate::Scope;

fn at(host: u16, port: u16) -> Place {
    Place {
        port,
        ..Place::number(host)
    }
}

pub(super) fn discovery(subject: &ResolverUnderTest<'_>) -> Discovery {
    Discovery::builder()
        .resolver(subject.resolver.clone())
        .registry(subject.registry.clone())
        .build()
}

/// Where the instances are that discovery knows.
pub(super) fn known(set: &InstanceSet) -> Vec<Place> {
    let mut places: Vec<Place> = set
        .instances()
        .map(|instance| Place {
            host: instance.host.clone(),
            port: instance.port,
        })
        .collect();
    places.sort();
    places
}

/// Waits until discovery knows it so, and the directory stands behind it.
pub(super) async fn known_to_be(
    scope: &Scope,
    discovery: &Discovery,
    service: &ServiceName,
    wanted: &[Place],
) {
    let instances = discovery.instances(service);
    let looking = async {
        loop {
            let set = instances.snapshot();
            if !set.is_stale() && set.is_resolved() && known(&set) == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    scope.within("what is true is known", looking).await;
}

async fn ids(subject: &ResolverUnderTest<'_>, service: &ServiceName) -> Vec<String> {
    let list = subject.resolver.resolve(service).await;
    let list = list.expect("it can be resolved");
    list.instances.into_iter().map(|it| it.id).collect()
}

/// Two at one address are two.
pub async fn instances_of_one_host_are_told_apart_by_their_ports(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let places = [at(1, 8000), at(1, 8001), at(2, 8000)];
    subject.write_places(&service, &places).await;
    assert_eq!(subject.places(&service).await, places);
    assert_eq!(ids(subject, &service).await.len(), 3);
}

/// An instance at another port is found there alone.
pub async fn an_instance_that_moves_is_found_where_it_is(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    assert!(next(scope, &mut watch).await.is_empty());
    for port in [8000, 9000, 8000] {
        subject.write_places(&service, &[at(1, port)]).await;
        assert_eq!(subject.places(&service).await, [at(1, port)]);
        until(scope, &mut watch, &[at(1, port)]).await;
    }
}

/// One that was gone for a while has the id that it had.
pub async fn an_instance_that_comes_back_is_the_same(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2]).await;
    let before = ids(subject, &service).await;
    subject.write(&service, []).await;
    assert!(subject.places(&service).await.is_empty());
    subject.write(&service, [2, 1]).await;
    assert_eq!(ids(subject, &service).await, before);
}

/// No two have one id, and every process knows them by the same: what is pinned to one stays with it.
pub async fn ids_are_unlike_each_other_and_the_same_everywhere(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, 0..60).await;
    let here = ids(subject, &service).await;
    assert_eq!(here.iter().collect::<BTreeSet<_>>().len(), 60);
    let another = subject.another(scope).await;
    assert_eq!(ids(&another, &service).await, here);
    another.shutdown().await;
}

/// However many ask at once, all are told the same.
pub async fn questions_at_once_agree(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2, 3]).await;
    let asking = (0..40).map(|_| subject.places(&service));
    for places in scope.within("the answers", join_all(asking)).await {
        assert_eq!(places, numbers([1, 2, 3]));
    }
}

/// Whoever gives up waiting for an answer, at any moment, takes nothing from others.
pub async fn a_question_that_is_given_up_harms_nobody(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2]).await;
    for round in 0..60 {
        let patience = Duration::from_micros(round * 130 % 4_000);
        if let Ok(list) = timeout(patience, subject.resolver.resolve(&service)).await {
            assert_eq!(list.expect("it can be resolved").instances.len(), 2);
        }
    }
    assert_eq!(subject.places(&service).await, numbers([1, 2]));
}

/// Nobody left is no end: who comes next is seen.
pub async fn a_service_that_is_emptied_is_followed_on(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, [1]).await;
    let mut watch = subject.watch(&service).await;
    for round in 2..6 {
        subject.write(&service, []).await;
        until(scope, &mut watch, &[]).await;
        subject.write(&service, [round]).await;
        until(scope, &mut watch, &numbers([round])).await;
    }
}

/// A large change is one list, not one that is half of each.
pub async fn many_come_and_go_at_once(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    assert!(next(scope, &mut watch).await.is_empty());
    for wanted in [0..200, 190..210, 0..5, 5..150] {
        subject.write(&service, wanted.clone()).await;
        until(scope, &mut watch, &numbers(wanted)).await;
    }
}

/// Where changes are counted, the count does not go back while the directory stands.
pub async fn revisions_do_not_go_back(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    let mut last = 0;
    for n in 1..15 {
        subject.write(&service, 0..n).await;
        loop {
            let list = scope.within("a list", watch.next()).await;
            let list = list.expect("a watch does not end").expect("nor fail");
            assert!(list.revision >= last, "{} after {last}", list.revision);
            last = list.revision;
            if list.instances.len() == usize::from(n) {
                break;
            }
        }
        let asked = subject.resolver.resolve(&service).await;
        let asked = asked.expect("it can be resolved").revision;
        assert!(asked == 0 || asked >= last, "{asked} after {last}");
    }
}

/// Each watch is of its own service, however many there are.
pub async fn many_services_are_watched_at_once(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let services: Vec<ServiceName> = (0..20)
        .map(|n| service(scope, &format!("users-{n}")))
        .collect();
    let mut watches = Vec::new();
    for service in &services {
        let mut watch = subject.watch(service).await;
        assert!(next(scope, &mut watch).await.is_empty());
        watches.push(watch);
    }
    for (n, service) in (0..).zip(&services) {
        subject.write(service, [n, n + 30]).await;
    }
    for (n, watch) in (0..).zip(&mut watches) {
        until(scope, watch, &numbers([n, n + 30])).await;
    }
}

/// Watches that nobody wants any more disturb neither those that stay nor those that come.
pub async fn a_watch_that_is_dropped_ends(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut stays = subject.watch(&service).await;
    for n in 1..30 {
        let mut watch = subject.watch(&service).await;
        // Some before they said anything.
        if n % 3 > 0 {
            next(scope, &mut watch).await;
        }
        drop(watch);
    }
    subject.write(&service, [7]).await;
    until(scope, &mut stays, &numbers([7])).await;
    let mut comes = subject.watch(&service).await;
    until(scope, &mut comes, &numbers([7])).await;
}

/// Whatever the balancing, calls go to all that stand, and to none that does not.
pub async fn discovery_picks_what_stands_and_nothing_else(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let discovery = discovery(subject);
    for wanted in [vec![1, 2, 3], vec![3, 4], vec![5]] {
        subject.write(&service, wanted.clone()).await;
        let wanted = numbers(wanted);
        known_to_be(scope, &discovery, &service, &wanted).await;
        let instances = discovery.instances(&service);
        let mut picked = BTreeSet::new();
        for _ in 0..200 {
            let one = instances.pick(&PickRequest::any());
            let one = one.expect("somebody to go to");
            picked.insert((one.instance().host.clone(), one.instance().port));
        }
        let wanted: BTreeSet<_> = wanted.into_iter().map(|it| (it.host, it.port)).collect();
        assert_eq!(picked, wanted);
    }
    scope
        .within("the end", discovery.shutdown(scope.deadline()))
        .await
        .expect("everything ends");
}

/// Every change says who came and who went; together they make what is there.
pub async fn discovery_tells_what_changed(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let discovery = discovery(subject);
    let mut watch = discovery.watch(&service);
    let mut there: BTreeSet<String> = BTreeSet::new();
    for wanted in [vec![], vec![1, 2], vec![2, 3, 4], vec![4]] {
        subject.write(&service, wanted.clone()).await;
        loop {
            let change = scope.within("a change", watch.next()).await;
            let change = change.expect("it does not end");
            for gone in &change.removed {
                assert!(there.remove(&gone.id), "{gone:?} was not there");
            }
            for come in &change.added {
                assert!(there.insert(come.id.clone()), "{come:?} was there");
            }
            let told: BTreeSet<String> = change.set.instances().map(|it| it.id.clone()).collect();
            assert_eq!(told, there);
            if known(&change.set) == numbers(wanted.clone()) {
                break;
            }
        }
    }
    drop(watch);
    scope
        .within("the end", discovery.shutdown(scope.deadline()))
        .await
        .expect("everything ends");
}

/// What many want to know at once, all know, without any of them asking wrongly.
pub async fn discovery_asks_once_for_all_who_want_it(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2]).await;
    let discovery = discovery(subject);
    let asking = (0..40).map(|_| discovery.discover_services(&service));
    for found in scope.within("the answers", join_all(asking)).await {
        assert_eq!(found.expect("it can be asked").len(), 2);
    }
    assert_eq!(discovery.cached_services(), 1);
    scope
        .within("the end", discovery.shutdown(scope.deadline()))
        .await
        .expect("everything ends");
}
