//! Announcements stand for as long as they are renewed, and nobody else can touch them.

use std::slice;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};
use trunkline_core::ErrorKind;
use trunkline_discovery::{InstanceStatus, Registry};

use crate::Scope;
use crate::registry::RegistryUnderTest;
use crate::registry::fixture::{
    LONG, assert_kind, eventually, ever_longer, instance, service, short_ids, too_busy,
};

/// What is withdrawn is gone at once.
pub async fn a_deregistered_instance_is_gone(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let lease = subject
        .register(&instance(scope, &service, "a"), LONG)
        .await;
    subject
        .register(&instance(scope, &service, "b"), LONG)
        .await;
    subject.deregister(&lease).await;
    assert_eq!(short_ids(&subject.list(&service).await), ["b"]);
}

/// Withdrawing what is gone already does nothing.
pub async fn deregistering_again_does_nothing(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let lease = subject
        .register(&instance(scope, &service, "a"), LONG)
        .await;
    subject.deregister(&lease).await;
    subject.deregister(&lease).await;
    let short = subject
        .register(&instance(scope, &service, "b"), subject.short)
        .await;
    sleep(subject.surely_over).await;
    subject.deregister(&short).await;
}

/// An instance that is not renewed disappears, from lists and from the names of services, and its siblings stay.
pub async fn a_lease_that_is_not_renewed_runs_out(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let (users, orders) = (service(scope, "users"), service(scope, "orders"));
    let began = Instant::now();
    subject
        .register(&instance(scope, &users, "gone"), subject.short)
        .await;
    subject
        .register(&instance(scope, &users, "stays"), LONG)
        .await;
    subject
        .register(&instance(scope, &orders, "gone-too"), subject.short)
        .await;
    let before = subject.list(&users).await.instances.len();
    // On a busy machine its time may be over before it is looked at.
    assert!(before == 2 || began.elapsed() >= subject.short, "{before}");
    eventually(scope, subject, &users, &["stays"]).await;
    eventually(scope, subject, &orders, &[]).await;
    let names = trunkline_discovery::Resolver::services(&subject.resolver).await;
    assert!(!names.expect("services can be listed").contains(&orders));
}

/// A lease stands at least for its time.
pub async fn a_lease_stands_for_its_time(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    for ttl in ever_longer(subject.short * 4) {
        if stands_for(subject, scope, ttl).await {
            return;
        }
    }
    too_busy();
}

/// Says whether it came in time.
async fn stands_for(subject: &RegistryUnderTest<'_>, scope: &Scope, ttl: Duration) -> bool {
    let service = service(scope, "users");
    // The registry begins to count after this.
    let began = Instant::now();
    subject.register(&instance(scope, &service, "a"), ttl).await;
    sleep(ttl / 2).await;
    let known = subject.list(&service).await.instances.len();
    assert!(known == 1 || began.elapsed() >= ttl, "{known}");
    known == 1
}

/// Renewing keeps an announcement for several times its time.
pub async fn a_renewed_lease_stands(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    for ttl in ever_longer(subject.short * 3) {
        if stands_while_renewed(subject, scope, ttl).await {
            return;
        }
    }
    too_busy();
}

/// Says whether it came in time.
async fn stands_while_renewed(
    subject: &RegistryUnderTest<'_>,
    scope: &Scope,
    ttl: Duration,
) -> bool {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let mut last = Instant::now();
    let lease = subject.register(&users, ttl).await;
    let until = Instant::now() + subject.surely_over + ttl * 3;
    while Instant::now() < until {
        sleep(ttl / 4).await;
        let asked = Instant::now();
        let renewed = subject.registry.renew(&lease, &users).await;
        if last.elapsed() >= ttl {
            return false;
        }
        renewed.expect("a lease that stands is renewed");
        last = asked;
        let known = subject.list(&service).await.instances.len();
        if last.elapsed() >= ttl {
            return false;
        }
        assert_eq!(known, 1);
    }
    true
}

/// A renewal is as long as the time that was asked for when registering, whatever was left.
pub async fn a_renewal_counts_from_now(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    for ttl in ever_longer(subject.short * 4) {
        if counts_from_now(subject, scope, ttl).await {
            return;
        }
    }
    too_busy();
}

/// Says whether it came in time.
async fn counts_from_now(subject: &RegistryUnderTest<'_>, scope: &Scope, ttl: Duration) -> bool {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let began = Instant::now();
    let lease = subject.register(&users, ttl).await;
    sleep_until(began + ttl / 2).await;
    let asked = Instant::now();
    let renewed = subject.registry.renew(&lease, &users).await;
    if began.elapsed() >= ttl {
        return false;
    }
    renewed.expect("a lease that stands is renewed");
    sleep_until(began + ttl + ttl / 8).await;
    let known = subject.list(&service).await.instances.len();
    assert!(known == 1 || asked.elapsed() >= ttl, "{known}");
    known == 1
}

/// What a renewal says takes the place of what was announced.
pub async fn a_renewal_changes_what_is_known(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let before = instance(scope, &service, "a").with_metadata("old", "1");
    let lease = subject.register(&before, LONG).await;
    let mut after = before
        .with_status(InstanceStatus::Draining)
        .with_weight(7)
        .with_metadata("new", "2")
        .with_version("2");
    after.metadata.remove("old");
    subject.renew(&lease, &after).await;
    assert_eq!(subject.list(&service).await.instances, [after]);
}

/// A lease that ran out cannot be renewed, and the instance can be announced again.
pub async fn a_lost_lease_is_not_found(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let lease = subject.register(&users, subject.short).await;
    eventually(scope, subject, &service, &[]).await;
    let renewed = subject.registry.renew(&lease, &users).await;
    assert_kind(renewed, ErrorKind::NotFound, "renewing a lost lease");
    assert!(subject.list(&service).await.instances.is_empty());
    let lease = subject.register(&users, LONG).await;
    subject.renew(&lease, &users).await;
    assert_eq!(subject.list(&service).await.instances, [users]);
}

/// A lease that was withdrawn cannot be renewed.
pub async fn a_withdrawn_lease_is_not_found(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let lease = subject.register(&users, LONG).await;
    subject.deregister(&lease).await;
    let renewed = subject.registry.renew(&lease, &users).await;
    assert_kind(renewed, ErrorKind::NotFound, "renewing a withdrawn lease");
    assert!(subject.list(&service).await.instances.is_empty());
}

/// Announcing an id again takes the place of the older announcement.
pub async fn an_id_that_registers_again_is_replaced(
    subject: &RegistryUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let before = instance(scope, &service, "a");
    subject.register(&before, subject.short).await;
    let after = before.with_version("2").with_weight(5);
    subject.register(&after, LONG).await;
    assert_eq!(
        subject.list(&service).await.instances,
        slice::from_ref(&after)
    );
    // The time of the older announcement is over and means nothing.
    sleep(subject.surely_over).await;
    assert_eq!(subject.list(&service).await.instances, [after]);
}

/// The lease of an announcement that was replaced neither renews nor withdraws the new one.
pub async fn an_old_lease_cannot_touch_the_new_one(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let old = subject.register(&users, LONG).await;
    let newer = users.clone().with_version("2");
    let new = subject.register(&newer, LONG).await;
    let renewed = subject.registry.renew(&old, &users).await;
    assert_kind(
        renewed,
        ErrorKind::NotFound,
        "renewing a lease that was replaced",
    );
    subject.deregister(&old).await;
    assert_eq!(
        subject.list(&service).await.instances,
        slice::from_ref(&newer)
    );
    subject.renew(&new, &newer).await;
    subject.deregister(&new).await;
    assert!(subject.list(&service).await.instances.is_empty());
}

/// A lease renews its own instance only.
pub async fn a_renewal_of_another_instance_is_refused(
    subject: &RegistryUnderTest<'_>,
    scope: &Scope,
) {
    let (users, orders) = (service(scope, "users"), service(scope, "orders"));
    let mine = instance(scope, &users, "a");
    let lease = subject.register(&mine, LONG).await;
    let other = subject
        .registry
        .renew(&lease, &instance(scope, &users, "b"))
        .await;
    assert_kind(other, ErrorKind::Invalid, "renewing another instance");
    let mut moved = mine.clone();
    moved.name = orders.clone();
    let moved = subject.registry.renew(&lease, &moved).await;
    assert_kind(moved, ErrorKind::Invalid, "renewing under another service");
    assert_eq!(subject.list(&users).await.instances, [mine]);
    assert!(subject.list(&orders).await.instances.is_empty());
}

/// An id that is announced under another service leaves the first one.
pub async fn an_id_moves_between_services(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let (users, orders) = (service(scope, "users"), service(scope, "orders"));
    let mut moving = instance(scope, &users, "a");
    subject.register(&moving, LONG).await;
    moving.name = orders.clone();
    subject.register(&moving, LONG).await;
    assert!(subject.list(&users).await.instances.is_empty());
    assert_eq!(subject.list(&orders).await.instances, [moving]);
}

/// A lease without time is refused.
pub async fn a_lease_of_no_time_is_refused(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let result = subject.registry.register(users, Duration::ZERO).await;
    assert_kind(result, ErrorKind::Invalid, "a lease of no time");
    assert!(subject.list(&service).await.instances.is_empty());
}

/// A lease for ever, or nearly, is no reason to fail.
pub async fn a_lease_of_all_time_stands(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let lease = subject.register(&users, Duration::MAX).await;
    subject.renew(&lease, &users).await;
    assert_eq!(subject.list(&service).await.instances, [users]);
}

/// Renewals of one lease from many tasks all succeed.
pub async fn concurrent_renewals_all_succeed(subject: &RegistryUnderTest<'_>, scope: &Scope) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let lease = subject.register(&users, LONG).await;
    let renewals = (1..=64).map(|weight| {
        let (registry, lease) = (subject.registry.clone(), lease.clone());
        let instance = users.clone().with_weight(weight);
        trunkline_core::task::spawn(
            "renew",
            async move { registry.renew(&lease, &instance).await },
        )
    });
    for outcome in join_all(renewals).await {
        outcome
            .expect("no task panics")
            .expect("every renewal succeeds");
    }
    let list = subject.list(&service).await;
    assert_eq!(list.instances.len(), 1);
    assert!((1..=64).contains(&list.instances[0].weight));
}

/// Of many that announce one id at once exactly one stands, with the lease of its own.
pub async fn concurrent_registrations_of_one_id_leave_one(
    subject: &RegistryUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    let registrations = (1..=32).map(|weight| {
        let registry = subject.registry.clone();
        let instance = users.clone().with_weight(weight);
        trunkline_core::task::spawn("register", async move {
            let lease = registry.register(instance.clone(), LONG).await?;
            Ok::<_, trunkline_core::Error>((lease, instance))
        })
    });
    let mut standing = Vec::new();
    for outcome in join_all(registrations).await {
        let (lease, instance) = outcome
            .expect("no task panics")
            .expect("every one succeeds");
        match subject.registry.renew(&lease, &instance).await {
            Ok(()) => standing.push(instance),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
        }
    }
    assert_eq!(standing.len(), 1, "one lease stands");
    assert_eq!(subject.list(&service).await.instances, standing);
}

/// An announcement that was given up half way does not stand for ever, and can be made again.
pub async fn a_cancelled_registration_leaves_nothing_for_ever(
    subject: &RegistryUnderTest<'_>,
    scope: &Scope,
) {
    let service = service(scope, "users");
    let users = instance(scope, &service, "a");
    for micros in 0..20 {
        let registering = subject.registry.register(users.clone(), subject.short);
        // Given up at whatever await it has come to by then.
        drop(tokio::time::timeout(Duration::from_micros(micros * 20), registering).await);
    }
    let lease = subject.register(&users, subject.short * 4).await;
    subject.renew(&lease, &users).await;
    assert_eq!(subject.list(&service).await.instances, [users]);
    subject.deregister(&lease).await;
    sleep(subject.surely_over).await;
    assert!(subject.list(&service).await.instances.is_empty());
}
