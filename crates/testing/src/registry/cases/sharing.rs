//! Several processes, one registry. Skipped where registries are not shared.

use tokio::time::sleep;
use trunkline_core::ErrorKind;
use trunkline_discovery::Registry;

use crate::Scope;
use crate::registry::RegistryUnderTest;
use crate::registry::fixture::{LONG, assert_kind, instance, next, service, short_ids, until};

/// What one announces, the other finds and sees change.
pub async fn others_see_what_is_announced(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let Some(other) = subject.another(scope).await else {
        return;
    };
    let service = service(scope, "users");
    let mut watch = other.watch(&service).await;
    next(scope, &mut watch).await;
    let lease = subject
        .register(&instance(scope, &service, "a"), LONG)
        .await;
    assert_eq!(short_ids(&other.list(&service).await), ["a"]);
    assert_eq!(short_ids(&next(scope, &mut watch).await), ["a"]);
    subject.deregister(&lease).await;
    assert!(next(scope, &mut watch).await.instances.is_empty());
    drop(watch);
    other.shutdown().await;
}

/// A process that dies disappears when its time is over, and no earlier.
pub async fn a_process_that_dies_disappears(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let Some(other) = subject.another(scope).await else {
        return;
    };
    let service = service(scope, "users");
    let mut watch = subject.watch(&service).await;
    other
        .register(&instance(scope, &service, "a"), subject.short * 3)
        .await;
    other.shutdown().await;
    until(scope, &mut watch, |list| list.instances.len() == 1).await;
    until(scope, &mut watch, |list| list.instances.is_empty()).await;
    assert!(subject.list(&service).await.instances.is_empty());
}

/// Of two that announce the same id the later one stands, wherever it is.
pub async fn an_id_is_one_everywhere(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let Some(other) = subject.another(scope).await else {
        return;
    };
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let old = subject.register(&users, LONG).await;
    let newer = users.clone().with_version("2");
    other.register(&newer, LONG).await;
    let renewed = subject.registry.renew(&old, &users).await;
    assert_kind(
        renewed,
        ErrorKind::NotFound,
        "renewing what another has replaced",
    );
    subject.deregister(&old).await;
    assert_eq!(subject.list(&service).await.instances, [newer]);
    other.shutdown().await;
}

/// A registry that is opened again knows what still stands.
pub async fn what_stands_survives_a_restart(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let Some(first) = subject.another(scope).await else {
        return;
    };
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let lease = first.register(&users, LONG).await;
    let short = first
        .register(&instance(scope, &service, "b"), subject.short)
        .await;
    first.shutdown().await;
    sleep(subject.surely_over).await;
    let Some(second) = subject.another(scope).await else {
        return;
    };
    assert_eq!(short_ids(&second.list(&service).await), ["a"]);
    second.renew(&lease, &users).await;
    let lost = second
        .registry
        .renew(&short, &instance(scope, &service, "b"))
        .await;
    assert_kind(lost, ErrorKind::NotFound, "renewing what ran out meanwhile");
    second.shutdown().await;
}
