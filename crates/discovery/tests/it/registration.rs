//! Instances stay announced for as long as somebody wants them to be.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_core::{Error, ErrorKind, Health, Status};
use trunkline_discovery::{
    Discovery, InstanceStatus, MemoryRegistry, Registration, RegistrationState, Resolver,
    ServiceInstance,
};
use trunkline_telemetry::{Format, Metrics};

use crate::balance::{instance, name};
use crate::scripted::{Asked, Recording};

const TTL: Duration = Duration::from_secs(9);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(2)
}

fn over(registry: &Recording) -> Discovery {
    Discovery::builder()
        .registry(registry.clone())
        .lease_ttl(TTL)
        .build()
}

async fn registered(discovery: &Discovery) -> Registration {
    let registration = discovery.register(instance("a")).unwrap();
    registration.registered(soon()).await.unwrap();
    registration
}

fn renewals(asked: &[Asked]) -> usize {
    asked
        .iter()
        .filter(|asked| matches!(asked, Asked::Renew(_)))
        .count()
}

fn last_status(registry: &Recording) -> InstanceStatus {
    let told = |asked: &Asked| match asked {
        Asked::Register(instance) | Asked::Renew(instance) => Some(instance.status),
        Asked::Deregister(_) => None,
    };
    registry.asked().iter().rev().find_map(told).unwrap()
}

#[tokio::test(start_paused = true)]
async fn is_renewed_three_times_in_its_time_until_it_is_withdrawn() {
    let registry = Recording::default();
    let discovery = over(&registry);
    let registration = registered(&discovery).await;
    assert_eq!(registry.take(), [Asked::Register(instance("a"))]);
    sleep(TTL * 10).await;
    let times = renewals(&registry.take());
    assert!(
        (30..=38).contains(&times),
        "{times} renewals in ten times its time"
    );
    registration.deregister(soon()).await.unwrap();
    assert_eq!(registry.take(), [Asked::Deregister("a".into())]);
    assert_eq!(registration.state(), RegistrationState::Withdrawn);
    sleep(TTL * 2).await;
    assert!(registry.take().is_empty());
    assert_eq!(registration.announcements(), 1);
    registration.deregister(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_announced_again_at_once() {
    let registry = Recording::default();
    let discovery = over(&registry);
    let registration = registered(&discovery).await;
    registry.take();
    registry.answer_next(Err(Error::not_found("no such lease")));
    sleep(TTL / 3).await;
    let asked = registry.take();
    assert_eq!(
        asked,
        [Asked::Renew(instance("a")), Asked::Register(instance("a"))]
    );
    assert_eq!(registration.announcements(), 2);
    assert_eq!(registration.state(), RegistrationState::Registered);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_told_though_it_is_announced_again_at_once() {
    let registry = Recording::default();
    let (health, metrics) = (Health::default(), Metrics::new());
    let component = health.register("service_discovery", "x", "service_discovery_x", true);
    let discovery = Discovery::builder()
        .registry(registry.clone())
        .lease_ttl(TTL)
        .component(component)
        .metrics(metrics.clone())
        .build();
    let status = || health.component_status("service_discovery").unwrap();
    let counted = |outcome: &str| {
        let text = metrics.render(Format::Prometheus).unwrap();
        let line = format!("trunkline_discovery_registrations_total{{outcome=\"{outcome}\"}} ");
        let count = text.lines().find_map(|it| it.strip_prefix(&line));
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let registration = registered(&discovery).await;
    let other = discovery.register(instance("b")).unwrap();
    other.registered(soon()).await.unwrap();
    assert_eq!(status().status, Status::Healthy);

    registry.answer_next(Err(Error::not_found("no such lease")));
    sleep(TTL / 3).await;
    let (lost, kept) = match registration.announcements() {
        2 => ("a", "b"),
        _ => ("b", "a"),
    };
    let told = status();
    assert_eq!(told.status, Status::Degraded);
    let why = told.last_error.unwrap();
    assert!(why.contains("had forgotten the registration"), "{why}");
    assert_eq!(
        told.metadata["registrations"],
        serde_json::json!({lost: {"announced": 2, "lost": 1}, kept: {"announced": 1, "lost": 0}})
    );
    assert_eq!(
        ["new", "lost", "again"].map(counted),
        [2, 1, 1],
        "{:?}",
        metrics.render(Format::Prometheus)
    );
    sleep(TTL - TTL / 3 - Duration::from_secs(1)).await;
    assert_eq!(status().status, Status::Degraded, "for its time");
    sleep(TTL / 3 + Duration::from_secs(1)).await;
    assert_eq!(status().status, Status::Healthy);
    registration.deregister(soon()).await.unwrap();
    other.deregister(soon()).await.unwrap();
    assert_eq!(status().metadata["registrations"], serde_json::json!({}));

    // An announcement whose time ran out while nobody could renew it is one as well, and one alone.
    let registration = registered(&discovery).await;
    registry.set_away(true);
    sleep(TTL * 3).await;
    assert_eq!(counted("lost"), 2);
    registry.answer_next(Err(Error::not_found("no such lease")));
    registry.set_away(false);
    sleep(TTL / 3).await;
    assert_eq!(registration.announcements(), 2);
    assert_eq!(["new", "lost", "again"].map(counted), [3, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn that_it_drains_is_known_when_the_registry_has_heard_it() {
    let registry = Recording::default();
    let discovery = over(&registry);
    let registration = registered(&discovery).await;
    registry.set_hanging(true);
    registration.set_draining();
    let error = registration.draining_told(soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    registry.set_hanging(false);
    let later = Instant::now() + TTL;
    registration.draining_told(later).await.unwrap();
    assert_eq!(last_status(&registry), InstanceStatus::Draining);
    registration.deregister(soon()).await.unwrap();
    registration.draining_told(soon()).await.unwrap();
    // Nobody has heard of one that was never announced.
    let registry = Recording::default();
    registry.set_away(true);
    let discovery = over(&registry);
    let registration = discovery.register(instance("a")).unwrap();
    registration.set_draining();
    let began = Instant::now();
    registration.draining_told(soon()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn starts_while_the_registry_is_away_and_is_announced_when_it_comes() {
    let registry = Recording::default();
    registry.set_away(true);
    let health = Health::default();
    let component = health.register("service_discovery", "x", "service_discovery_x", true);
    let discovery = Discovery::builder()
        .registry(registry.clone())
        .lease_ttl(TTL)
        .component(component)
        .build();
    let registration = discovery.register(instance("a")).unwrap();
    let error = registration.registered(soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.to_string().contains("the registry is away"),
        "{error}"
    );
    let status = || health.component_status("service_discovery").unwrap();
    assert_eq!(status().status, Status::Unhealthy);

    sleep(Duration::from_secs(300)).await;
    let asked = registry.take().len();
    assert!((95..=220).contains(&asked), "{asked} times in five minutes");
    registry.set_away(false);
    registration
        .registered(Instant::now() + TTL / 3)
        .await
        .unwrap();
    assert_eq!(status().status, Status::Healthy);
    let told = &status().metadata["registrations"];
    assert_eq!(*told, serde_json::json!({"a": {"announced": 1, "lost": 0}}));
}

#[tokio::test(start_paused = true)]
async fn a_short_absence_costs_nothing_and_a_long_one_is_told() {
    let registry = Recording::default();
    let health = Health::default();
    let component = health.register("service_discovery", "x", "service_discovery_x", true);
    let discovery = Discovery::builder()
        .registry(registry.clone())
        .lease_ttl(TTL)
        .component(component)
        .build();
    let registration = registered(&discovery).await;
    registry.set_away(true);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        registration.state(),
        RegistrationState::Registered,
        "it stands still"
    );
    let status = || health.component_status("service_discovery").unwrap().status;
    assert_eq!(status(), Status::Degraded);
    sleep(TTL + Duration::from_secs(3)).await;
    assert!(matches!(registration.state(), RegistrationState::Lost(_)));
    assert_eq!(
        status(),
        Status::Degraded,
        "who is found by others' last known good is not down"
    );
    registry.set_away(false);
    sleep(TTL / 3).await;
    assert_eq!(registration.state(), RegistrationState::Registered);
    assert_eq!(status(), Status::Healthy);
}

#[tokio::test(start_paused = true)]
async fn the_status_follows_readiness() {
    let registry = Recording::default();
    let discovery = over(&registry);
    let health = Health::default();
    let gate = health.gate("start", "starting");
    let registration = discovery
        .register_current_service(instance("a"), &health)
        .unwrap();
    registration.registered(soon()).await.unwrap();
    assert_eq!(last_status(&registry), InstanceStatus::Down);

    gate.open();
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(last_status(&registry), InstanceStatus::Up);

    let database = health.register("database", "main", "database", true);
    database.mark_unhealthy(&Error::unavailable("gone"));
    sleep(Duration::from_millis(200)).await;
    assert_eq!(last_status(&registry), InstanceStatus::Down);
    database.mark_healthy();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(last_status(&registry), InstanceStatus::Up);

    registration.set_draining();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(last_status(&registry), InstanceStatus::Draining);
    database.mark_unhealthy(&Error::unavailable("gone"));
    sleep(TTL).await;
    assert_eq!(
        last_status(&registry),
        InstanceStatus::Draining,
        "that is final"
    );
}

#[tokio::test(start_paused = true)]
async fn readiness_that_flaps_does_not_flood_the_registry() {
    let registry = Recording::default();
    let discovery = over(&registry);
    let health = Health::default();
    let database = health.register("database", "main", "database", true);
    let registration = discovery
        .register_current_service(instance("a"), &health)
        .unwrap();
    registration.registered(soon()).await.unwrap();
    registry.take();
    for _ in 0..1000 {
        database.mark_healthy();
        sleep(Duration::from_millis(5)).await;
        database.mark_unhealthy(&Error::unavailable("gone"));
        sleep(Duration::from_millis(5)).await;
    }
    let asked = registry.take().len();
    assert!(asked <= 110, "{asked} renewals in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn an_update_is_told_at_once_and_unsound_ones_are_refused() {
    let registry = Recording::default();
    let discovery = over(&registry);
    let registration = registered(&discovery).await;
    registration.update(|instance| instance.weight = 5).unwrap();
    sleep(Duration::from_millis(200)).await;
    let heavier = instance("a").with_weight(5);
    assert_eq!(
        registry.asked().last(),
        Some(&Asked::Renew(heavier.clone()))
    );
    let moved = registration
        .update(|instance| instance.port = 1)
        .unwrap_err();
    assert_eq!(moved.kind(), ErrorKind::Invalid);
    let unsound = registration
        .update(|instance| instance.health_check_path = "health".to_owned())
        .unwrap_err();
    assert_eq!(unsound.kind(), ErrorKind::Invalid);
    assert_eq!(registration.instance(), heavier);
}

#[tokio::test(start_paused = true)]
async fn shutdown_withdraws_every_registration() {
    let registry = MemoryRegistry::new();
    let discovery = Discovery::builder().registry(registry.clone()).build();
    let registrations: Vec<_> = ["a", "b", "c"]
        .map(|id| discovery.register(instance(id)).unwrap())
        .into();
    for registration in &registrations {
        registration.registered(soon()).await.unwrap();
    }
    assert_eq!(registry.resolve(&name()).await.unwrap().instances.len(), 3);
    discovery.shutdown(soon()).await.unwrap();
    assert!(
        registry
            .resolve(&name())
            .await
            .unwrap()
            .instances
            .is_empty()
    );
    let error = discovery.register(instance("d")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let error = registrations[0].registered(soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn withdrawing_from_a_registry_that_is_away_ends_in_time() {
    let registry = Recording::default();
    let discovery = over(&registry);
    let registration = registered(&discovery).await;
    registry.set_away(true);
    registration.deregister(soon()).await.unwrap();
    assert_eq!(registration.state(), RegistrationState::Withdrawn);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_registered_is_refused_at_once() {
    let without = Discovery::builder().resolver(MemoryRegistry::new()).build();
    let error = without.register(instance("a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let registry = Recording::default();
    let unsound = ServiceInstance::new(name(), "", 80);
    let error = over(&registry).register(unsound).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(registry.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_keeps_refusing_is_asked_ever_more_rarely() {
    let registry = Recording::default();
    for _ in 0..1000 {
        registry.answer_next(Err(Error::new(ErrorKind::Denied, "not yours")));
    }
    let discovery = over(&registry);
    let registration = discovery.register(instance("a")).unwrap();
    sleep(Duration::from_secs(60)).await;
    let asked = registry.take().len();
    assert!((18..=60).contains(&asked), "{asked} times in a minute");
    assert!(
        matches!(registration.state(), RegistrationState::Pending(Some(why)) if why.contains("not yours"))
    );
}
