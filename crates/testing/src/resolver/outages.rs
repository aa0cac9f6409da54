//! Cases about a way to the directory that fails, at the resolver and above it.
#![allow(clippy::missing_panics_doc, reason = "a case fails by panicking")]

use std::time::Duration;

use tokio::time::sleep;
use trunkline_core::ErrorKind;
use trunkline_discovery::{
    Discovery, DiscoveryCacheConfig, InstanceWatch, PickRequest, Registry, Resolver, ServiceName,
};

use super::cases::{numbers, service, until};
use super::changing::{discovery, known, known_to_be};
use super::harness::{Place, ResolverUnderTest, places};
use crate::Scope;

/// Follows a watch through its errors until it says so.
async fn sometime(scope: &Scope, watch: &mut InstanceWatch, wanted: &[Place]) {
    let following = async {
        loop {
            let next = watch.next().await.expect("a watch does not end");
            if next.is_ok_and(|list| places(&list) == wanted) {
                return;
            }
        }
    };
    scope.within("what is true is told", following).await;
}

async fn stale(scope: &Scope, discovery: &Discovery, service: &ServiceName) {
    let instances = discovery.instances(service);
    let looking = async {
        while !instances.snapshot().is_stale() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    scope.within("the outage is noticed", looking).await;
}

async fn end(scope: &Scope, discovery: &Discovery) {
    let ended = discovery.shutdown(scope.deadline());
    let ended = scope.within("the end", ended).await;
    ended.expect("everything ends");
}

/// A directory that is not reached is no directory without instances.
pub async fn nobody_there_is_an_error_and_no_empty_list(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, [1]).await;
    subject.link.cut(true);
    let asked = scope.within("an answer", subject.resolver.resolve(&service));
    let error = asked.await.expect_err("nobody can answer");
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
        "{}",
        error.report()
    );
    let asked = scope.within("an answer", subject.registry.health_check());
    asked.await.expect_err("nobody can answer");
    subject.link.cut(false);
    let asking = async {
        while subject.resolver.resolve(&service).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    scope.within("it answers again", asking).await;
    assert_eq!(subject.places(&service).await, numbers([1]));
}

/// However often connections end under a watch, it ends up with the truth.
pub async fn connections_that_are_reset_lose_nothing(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    for n in 1..8 {
        subject.link.reset();
        subject.write(&service, [n]).await;
        subject.link.reset();
        sometime(scope, &mut watch, &numbers([n])).await;
    }
}

/// A watch goes on where it was once the way is there again, and has missed nothing.
pub async fn what_changes_behind_a_cut_is_seen_afterwards(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2]).await;
    let mut watch = subject.watch(&service).await;
    until(scope, &mut watch, &numbers([1, 2])).await;
    subject.link.cut(true);
    subject.write(&service, [2, 3]).await;
    subject.write(&service, [3, 4]).await;
    subject.link.cut(false);
    sometime(scope, &mut watch, &numbers([3, 4])).await;
    subject.write(&service, [5]).await;
    sometime(scope, &mut watch, &numbers([5])).await;
}

/// The same when no connection ends.
pub async fn what_changes_behind_a_silent_link_is_seen_afterwards(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, [1]).await;
    let discovery = discovery(subject);
    known_to_be(scope, &discovery, &service, &numbers([1])).await;
    subject.link.stall(true);
    subject.write(&service, [2]).await;
    stale(scope, &discovery, &service).await;
    subject.link.stall(false);
    known_to_be(scope, &discovery, &service, &numbers([2])).await;
    subject.write(&service, [3]).await;
    known_to_be(scope, &discovery, &service, &numbers([3])).await;
    end(scope, &discovery).await;
}

/// All that was taken out while nobody could say so is gone afterwards.
pub async fn what_is_wiped_behind_a_cut_leaves_no_ghosts(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, 0..20).await;
    let mut watch = subject.watch(&service).await;
    until(scope, &mut watch, &numbers(0..20)).await;
    subject.link.cut(true);
    subject.write(&service, []).await;
    subject.link.cut(false);
    sometime(scope, &mut watch, &[]).await;
    subject.write(&service, [7]).await;
    sometime(scope, &mut watch, &numbers([7])).await;
}

/// An outage empties nothing: calls go where they went, and it is said how old that is.
pub async fn what_was_known_is_used_while_cut_off(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2]).await;
    let discovery = discovery(subject);
    known_to_be(scope, &discovery, &service, &numbers([1, 2])).await;
    subject.link.cut(true);
    stale(scope, &discovery, &service).await;
    let instances = discovery.instances(&service);
    let set = instances.snapshot();
    assert_eq!(known(&set), numbers([1, 2]));
    assert!(set.last_error().is_some());
    let picked = instances.pick(&PickRequest::any());
    drop(picked.expect("somebody to go to"));
    subject.link.cut(false);
    known_to_be(scope, &discovery, &service, &numbers([1, 2])).await;
    end(scope, &discovery).await;
}

/// Who asks for the first time while nobody answers is told as soon as somebody does.
pub async fn a_watch_that_begins_while_cut_off_comes_to_know(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, [1]).await;
    subject.link.cut(true);
    let discovery = discovery(subject);
    let instances = discovery.instances(&service);
    let looking = async {
        while instances.snapshot().last_error().is_none() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    scope.within("the outage is noticed", looking).await;
    assert!(!instances.snapshot().is_resolved());
    subject.link.cut(false);
    known_to_be(scope, &discovery, &service, &numbers([1])).await;
    end(scope, &discovery).await;
}

/// The snapshot on disk stands in for a directory that is away at the start.
pub async fn a_process_that_starts_while_cut_off_knows_what_an_earlier_one_did(
    subject: &ResolverUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    subject.write(&service, [1, 2]).await;
    let file = format!("{}.json", scope.name("known"));
    let file = std::env::temp_dir().join(file);
    let build = || {
        let mut cache = DiscoveryCacheConfig::default();
        cache.snapshot_file = Some(file.clone());
        Discovery::builder()
            .resolver(subject.resolver.clone())
            .registry(subject.registry.clone())
            .cache(cache)
            .build()
    };
    let earlier = build();
    known_to_be(scope, &earlier, &service, &numbers([1, 2])).await;
    end(scope, &earlier).await;
    subject.link.cut(true);
    let discovery = build();
    let instances = discovery.instances(&service);
    let ready = scope.within("a first list", instances.ready(scope.deadline()));
    ready.await.expect("somebody to go to");
    let set = instances.snapshot();
    assert!(set.is_stale());
    assert_eq!(known(&set), numbers([1, 2]));
    subject.write(&service, [3]).await;
    subject.link.cut(false);
    known_to_be(scope, &discovery, &service, &numbers([3])).await;
    end(scope, &discovery).await;
    std::fs::remove_file(&file).expect("it was written");
}

/// Ending it asks nobody who does not answer.
pub async fn shutdown_waits_for_no_link(subject: &ResolverUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    until(scope, &mut watch, &[]).await;
    subject.link.stall(true);
    let (resolver, asked) = (subject.resolver.clone(), service.clone());
    let asking = trunkline_core::task::spawn("question", async move {
        resolver
            .resolve(&asked)
            .await
            .map(|list| list.instances.len())
    });
    scope.within("the end", subject.shutdown()).await;
    let ended = scope.within("the end of a watch", watch.next()).await;
    assert!(ended.is_none(), "{ended:?}");
    let answer = scope.within("an answer", asking).await;
    let error = answer
        .expect("no task panics")
        .expect_err("nobody answered");
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{}", error.report());
    subject.link.stall(false);
}
