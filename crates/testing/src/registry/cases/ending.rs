//! What happens after shutdown.

use trunkline_core::ErrorKind;
use trunkline_discovery::{Registry, Resolver};

use crate::Scope;
use crate::registry::RegistryUnderTest;
use crate::registry::fixture::{LONG, assert_kind, instance, next, service};

/// After shutdown every call fails as cancelled.
pub async fn calls_after_shutdown_are_cancelled(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let lease = subject.register(&users, LONG).await;
    subject.shutdown().await;
    let (registry, resolver) = (&subject.registry, &subject.resolver);
    let cancelled = ErrorKind::Cancelled;
    assert_kind(
        registry.register(users.clone(), LONG).await,
        cancelled,
        "register",
    );
    assert_kind(registry.renew(&lease, &users).await, cancelled, "renew");
    assert_kind(registry.deregister(&lease).await, cancelled, "deregister");
    assert_kind(registry.health_check().await, cancelled, "health_check");
    assert_kind(resolver.resolve(&service).await, cancelled, "resolve");
    assert_kind(resolver.services().await, cancelled, "services");
    assert_kind(resolver.watch(&service).await, cancelled, "watch");
}

/// Watches end at shutdown, those that wait at that moment included.
pub async fn watches_end_at_shutdown(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut waiting = subject.watch(&service).await;
    next(scope, &mut waiting).await;
    let mut idle = subject.watch(&service).await;
    next(scope, &mut idle).await;
    let (ended, ()) = tokio::join!(
        scope.within("the end of a watch", waiting.next()),
        subject.shutdown()
    );
    assert!(ended.is_none(), "{ended:?}");
    let ended = scope.within("the end of a watch", idle.next()).await;
    assert!(ended.is_none(), "{ended:?}");
    assert!(idle.next().await.is_none(), "and stay so");
}

/// Shutting down with calls under way ends them, one way or the other.
pub async fn calls_under_way_end_at_shutdown(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let calls = (0..50).map(|n| {
        let (registry, instance) = (
            subject.registry.clone(),
            instance(scope, &service, &format!("{n:02}")),
        );
        trunkline_core::task::spawn("register", async move {
            registry.register(instance, LONG).await
        })
    });
    let calls: Vec<_> = calls.collect();
    subject.shutdown().await;
    for call in calls {
        match scope
            .within("a call under way", call)
            .await
            .expect("no task panics")
        {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{}", error.report()),
        }
    }
}
