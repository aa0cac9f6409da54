//! What is announced is found, whole.

use std::slice;

use futures_util::future::join_all;
use trunkline_core::ErrorKind;
use trunkline_discovery::{InstanceStatus, Registry, Resolver, ServiceInstance, ServiceName};

use crate::Scope;
use crate::registry::RegistryUnderTest;
use crate::registry::fixture::{LONG, assert_kind, instance, service, short_ids};

/// An announced instance is found under its service.
pub async fn a_registered_instance_is_resolved(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let lease = subject.register(&users, LONG).await;
    assert_eq!(lease.instance_id, users.id);
    assert_eq!(lease.ttl, LONG);
    assert_eq!(subject.list(&service).await.instances, [users]);
}

/// Nothing of an instance is lost or changed.
pub async fn every_field_is_kept(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let mut full = ServiceInstance::new(service.clone(), "2001:db8::7", 65535)
        .with_id(scope.name("full"))
        .with_protocol("https")
        .with_version("2.0-rc.1+build 7")
        .with_metadata("region", "us-west-2")
        .with_metadata("empty", "")
        .with_zone("b")
        .with_weight(u32::MAX)
        .with_status(InstanceStatus::Draining)
        .with_health_check_path("/health/live?verbose=1");
    subject.register(&full, LONG).await;
    assert_eq!(
        subject.list(&service).await.instances,
        slice::from_ref(&full)
    );

    full.zone = None;
    full.weight = 0;
    full.version.clear();
    full.health_check_path.clear();
    full.metadata.clear();
    subject.register(&full, LONG).await;
    assert_eq!(subject.list(&service).await.instances, [full]);
}

/// Metadata is text of any language, quotes, line ends and zero bytes included.
pub async fn any_text_in_metadata_is_kept(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let texts = [
        "Zürich ☂ 東京 🚂",
        "'; DROP TABLE x; --",
        "line\nline\r\n\ttab",
        "\"{}\\",
        "a\0b",
    ];
    let told = texts.iter().enumerate();
    let told = told.fold(instance(scope, &service, "a"), |it, (n, text)| {
        it.with_metadata(format!("{text}{n}"), *text)
    });
    subject.register(&told, LONG).await;
    assert_eq!(subject.list(&service).await.instances, [told]);
}

/// As much metadata as is allowed is kept; more is refused.
pub async fn metadata_is_kept_up_to_its_limit(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let full = (0..64).fold(instance(scope, &service, "a"), |it, n| {
        it.with_metadata(format!("key-{n:04}"), "x".repeat(248))
    });
    subject.register(&full, LONG).await;
    assert_eq!(
        subject.list(&service).await.instances,
        slice::from_ref(&full)
    );
    let over = full.with_metadata("key-0000", "x".repeat(249));
    assert_kind(
        subject.registry.register(over, LONG).await,
        ErrorKind::Invalid,
        "more metadata",
    );
}

/// A service that nobody has announced has no instances, which is no error.
pub async fn an_unknown_service_has_no_instances(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let list = subject.list(&service(scope, "nobody")).await;
    assert!(list.instances.is_empty());
}

/// Lists are in the order of ids, however they came to be.
pub async fn instances_are_listed_by_id(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    for id in ["c", "a", "d", "b"] {
        subject.register(&instance(scope, &service, id), LONG).await;
    }
    assert_eq!(
        short_ids(&subject.list(&service).await),
        ["a", "b", "c", "d"]
    );
}

/// Instances that take no requests are listed too, with what they say of themselves.
pub async fn every_status_is_listed(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let all = [
        InstanceStatus::Up,
        InstanceStatus::Draining,
        InstanceStatus::Down,
    ];
    for (status, id) in all.into_iter().zip(["a", "b", "c"]) {
        let instance = instance(scope, &service, id).with_status(status);
        subject.register(&instance, LONG).await;
    }
    let list = subject.list(&service).await;
    assert!(
        list.instances
            .iter()
            .map(|instance| instance.status)
            .eq(all)
    );
}

/// A service shows its own instances only.
pub async fn services_are_apart(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    // One name begins with the other.
    let (users, admins) = (service(scope, "users"), service(scope, "users-admin"));
    subject.register(&instance(scope, &users, "a"), LONG).await;
    subject.register(&instance(scope, &admins, "b"), LONG).await;
    assert_eq!(short_ids(&subject.list(&users).await), ["a"]);
    assert_eq!(short_ids(&subject.list(&admins).await), ["b"]);
}

/// Spellings that mean the same name find the same instances.
pub async fn spellings_of_a_name_are_one(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let written = format!("User_Service_{}", scope.unique().to_uppercase());
    let written = ServiceName::new(written).expect("a sound name");
    subject
        .register(&instance(scope, &written, "a"), LONG)
        .await;
    assert_eq!(
        short_ids(&subject.list(&service(scope, "user-service")).await),
        ["a"]
    );
}

/// The names of services are those that have an instance.
pub async fn services_are_those_with_an_instance(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let (users, orders) = (service(scope, "users"), service(scope, "orders"));
    let one = subject.register(&instance(scope, &users, "a"), LONG).await;
    let two = subject.register(&instance(scope, &users, "b"), LONG).await;
    subject.register(&instance(scope, &orders, "c"), LONG).await;
    let names = async || {
        subject
            .resolver
            .services()
            .await
            .expect("services can be listed")
    };
    let listed = names().await;
    assert_eq!(
        listed.iter().filter(|name| **name == users).count(),
        1,
        "{listed:?}"
    );
    assert!(listed.contains(&orders), "{listed:?}");
    subject.deregister(&one).await;
    assert!(names().await.contains(&users));
    subject.deregister(&two).await;
    assert!(!names().await.contains(&users));
    assert!(names().await.contains(&orders));
}

/// An instance that is not sound is refused, and nothing of it is seen.
pub async fn an_unsound_instance_is_refused(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let sound = instance(scope, &service, "a");
    let unsound = [
        ServiceInstance::new(service.clone(), "", 80),
        ServiceInstance::new(service.clone(), "x", 0),
        sound.clone().with_id(""),
        sound.clone().with_health_check_path("health"),
    ];
    for instance in unsound {
        let what = format!("{instance:?}");
        let result = subject.registry.register(instance, LONG).await;
        assert_kind(result, ErrorKind::Invalid, &what);
    }
    assert!(subject.list(&service).await.instances.is_empty());
    let lease = subject.register(&sound, LONG).await;
    let broken = sound.clone().with_protocol("");
    let result = subject.registry.renew(&lease, &broken).await;
    assert_kind(result, ErrorKind::Invalid, "an unsound renewal");
    assert_eq!(subject.list(&service).await.instances, [sound]);
}

/// Five hundred instances of one service are all found.
pub async fn many_instances_are_found(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    for n in 0..500 {
        let id = format!("{n:03}");
        subject
            .register(&instance(scope, &service, &id), LONG)
            .await;
    }
    let list = subject.list(&service).await;
    assert_eq!(list.instances.len(), 500);
    assert!(
        list.instances
            .windows(2)
            .all(|pair| pair[0].id < pair[1].id)
    );
}

/// Announcements from many tasks at once are all seen.
pub async fn concurrent_registrations_all_stand(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let tasks = (0..64).map(|n| {
        let (registry, instance) = (
            subject.registry.clone(),
            instance(scope, &service, &format!("{n:02}")),
        );
        trunkline_core::task::spawn("register", async move {
            let lease = registry.register(instance.clone(), LONG).await?;
            registry
                .renew(&lease, &instance.clone().with_weight(n + 1))
                .await?;
            if n % 2 == 1 {
                registry.deregister(&lease).await?;
            }
            Ok::<(), trunkline_core::Error>(())
        })
    });
    for outcome in join_all(tasks).await {
        outcome
            .expect("no task panics")
            .expect("every call succeeds");
    }
    let list = subject.list(&service).await;
    assert_eq!(list.instances.len(), 32);
    for instance in list.instances {
        let number = instance.id.get(..2).and_then(|id| id.parse::<u32>().ok());
        assert_eq!(Some(instance.weight), number.map(|n| n + 1));
    }
}

/// The registry says that it works.
pub async fn a_health_check_passes(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let check = scope
        .within("a health check", subject.registry.health_check())
        .await;
    check.expect("a registry that works says so");
}
