//! Services are watched, and what is known survives a registry that is away.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use trunkline_core::{Context, ErrorKind, Health, Status};
use trunkline_discovery::{
    Discovery, DiscoveryCacheConfig, MemoryRegistry, NoInstance, NoInstanceReason, PickRequest,
    Registry, ServiceConfig, ServiceName,
};
use trunkline_telemetry::{Format, Metrics};

use crate::balance::{instance, name};
use crate::scripted::{Recording, Scripted};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// Lets every task do what it can do without time passing.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

fn over(scripted: &Scripted) -> Discovery {
    Discovery::builder().resolver(scripted.clone()).build()
}

fn ids(discovery: &Discovery) -> Vec<String> {
    let set = discovery.instances(&name()).snapshot();
    set.instances()
        .map(|instance| instance.id.clone())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_reaches_every_user_through_one_watch() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = over(&scripted);
    let users: Vec<_> = (0..50).map(|_| discovery.instances(&name())).collect();
    for user in &users {
        user.ready(soon()).await.unwrap();
    }
    assert_eq!(scripted.watches_opened(), 1);
    scripted.change(vec![instance("b"), instance("c")]);
    settle().await;
    for user in &users {
        assert_eq!(user.snapshot().len(), 2);
        assert_ne!(user.pick(&PickRequest::any()).unwrap().instance().id, "a");
    }
    assert_eq!(scripted.watches_opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_goes_away_empties_nothing() {
    let scripted = Scripted::with(vec![instance("a"), instance("b")]);
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    assert!(!users.snapshot().is_stale());
    assert_eq!(users.snapshot().age(), Duration::ZERO);

    scripted.set_away(true);
    scripted.break_watches();
    settle().await;
    sleep(Duration::from_secs(60)).await;
    let set = users.snapshot();
    assert_eq!(set.len(), 2);
    assert!(set.is_stale());
    assert!(set.age() >= Duration::from_secs(60), "{:?}", set.age());
    assert!(set.last_error().unwrap().contains("the registry is away"));
    assert!(users.pick(&PickRequest::any()).is_ok());
    assert_eq!(discovery.discover_services(&name()).await.unwrap().len(), 2);

    // What changed meanwhile is seen when it is back, without anybody telling.
    scripted.change_unnoticed(vec![instance("c")]);
    scripted.set_away(false);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(ids(&discovery), ["c"]);
    assert!(!users.snapshot().is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_is_opened_again() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = over(&scripted);
    discovery.instances(&name()).ready(soon()).await.unwrap();
    scripted.change_unnoticed(vec![instance("b")]);
    scripted.end_watches();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(ids(&discovery), ["b"]);
    assert_eq!(scripted.watches_open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_watch_missed_is_found() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = over(&scripted);
    discovery.instances(&name()).ready(soon()).await.unwrap();
    scripted.change_unnoticed(vec![instance("b")]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(ids(&discovery), ["a"]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ids(&discovery), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_dead_without_saying_so_is_found() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    scripted.set_hanging(true);
    sleep(Duration::from_secs(75)).await;
    assert!(users.snapshot().is_stale());
    assert_eq!(users.snapshot().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_takes_its_time_neither_holds_news_up_nor_takes_them_back() {
    let scripted = Scripted::with(vec![instance("0")]);
    scripted.count_nothing();
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    // Slower than news come, and not too slow to be believed.
    scripted.set_taking(Duration::from_secs(4));
    for n in 1..300 {
        sleep(Duration::from_millis(500)).await;
        let id = n.to_string();
        scripted.change(vec![instance(&id)]);
        settle().await;
        assert_eq!(ids(&discovery), [id]);
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(ids(&discovery), ["299"]);
}

#[tokio::test(start_paused = true)]
async fn health_tells_how_old_it_is_what_is_known_and_of_all_that_is_known() {
    let health = Health::default();
    let part = health.register("service_discovery", "service_discovery", "scripted", true);
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .component(part.clone())
        .build();
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    assert!(!users.health().stale);
    scripted.set_away(true);
    scripted.break_watches();
    sleep(Duration::from_secs(90)).await;
    discovery.health_check().await.unwrap_err();
    let told = part.status().unwrap().metadata["stale"].clone();
    assert_eq!(told, serde_json::json!({"users": "1m30s"}));
    // The registry cannot say which services there are; one is known.
    let all = discovery.all_service_health().await.unwrap();
    let known = &all[&name()];
    assert!(known.is_healthy() && known.stale && known.age >= Duration::from_secs(90));
    scripted.set_away(false);
    sleep(Duration::from_secs(11)).await;
    let told = part.status().unwrap().metadata["stale"].clone();
    assert_eq!(told, serde_json::json!({}));
    assert!(!users.health().stale);
    // Where nothing is known, that is an error.
    scripted.set_away(true);
    let nobody = over(&scripted);
    nobody.all_service_health().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_is_noticed_while_a_question_waits_for_it() {
    let scripted = Scripted::with(vec![instance("a")]);
    let registry = Recording::default();
    let mut cache = DiscoveryCacheConfig::default();
    // There is always a question under way.
    cache.resync_interval = Duration::from_secs(1);
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .registry(registry.clone())
        .cache(cache)
        .build();
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    scripted.set_hanging(true);
    registry.set_hanging(true);
    sleep(Duration::from_millis(4600)).await;
    assert!(users.snapshot().is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_again_is_noticed_again() {
    let scripted = Scripted::with(vec![instance("a")]);
    let registry = Recording::default();
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .registry(registry.clone())
        .build();
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    registry.set_hanging(true);
    scripted.set_away(true);
    scripted.break_watches();
    sleep(Duration::from_secs(5)).await;
    assert!(users.snapshot().is_stale());
    // It answers for so short a time that one question is answered, and the one whether it works is not.
    scripted.set_away(false);
    while users.snapshot().is_stale() {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_secs(5)).await;
    assert!(users.snapshot().is_stale());
    // Nor is it forgotten that it is back.
    registry.set_hanging(false);
    sleep(Duration::from_secs(3)).await;
    assert!(!users.snapshot().is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_is_asked_ever_more_rarely() {
    let scripted = Scripted::default();
    scripted.set_away(true);
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    sleep(Duration::from_secs(600)).await;
    let asked = scripted.watches_opened();
    assert!((60..=140).contains(&asked), "{asked} times in ten minutes");
    scripted.change_unnoticed(vec![instance("a")]);
    scripted.set_away(false);
    users
        .ready(Instant::now() + Duration::from_secs(10))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_at_once_again_and_again_is_slowed_down() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = over(&scripted);
    discovery.instances(&name()).ready(soon()).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(120) {
        scripted.break_watches();
        sleep(Duration::from_millis(50)).await;
    }
    assert!(
        scripted.watches_opened() < 40,
        "{}",
        scripted.watches_opened()
    );
}

#[tokio::test(start_paused = true)]
async fn starting_while_the_registry_is_away_says_so_and_recovers() {
    let scripted = Scripted::default();
    scripted.set_away(true);
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    settle().await;
    let error = users.pick(&PickRequest::any()).unwrap_err();
    assert!(
        matches!(error.reason, NoInstanceReason::NotResolved(Some(_))),
        "{error}"
    );

    let error = users
        .ready(Instant::now() + Duration::from_secs(3))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.find::<NoInstance>().is_some());
    let error = discovery.discover_services(&name()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("the registry is away"),
        "{error}"
    );

    scripted.change_unnoticed(vec![instance("a")]);
    scripted.set_away(false);
    users
        .ready(Instant::now() + Duration::from_secs(11))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_is_given_up_on_in_time() {
    let scripted = Scripted::default();
    scripted.set_hanging(true);
    let discovery = over(&scripted);
    let begun = Instant::now();
    let error = discovery.discover_services(&name()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert_eq!(
        discovery.services().await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_bounds_the_wait() {
    let scripted = Scripted::default();
    scripted.set_hanging(true);
    let discovery = over(&scripted);
    let begun = Instant::now();
    let context = Context::new().with_timeout(Duration::from_millis(300));
    let result = context.scope(discovery.discover_services(&name())).await;
    assert!(result.is_err());
    assert_eq!(begun.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_first_instance_comes() {
    let scripted = Scripted::default();
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    users.resolved(soon()).await.unwrap();
    let waits = users.ready(Instant::now() + Duration::from_secs(60));
    let comes = async {
        sleep(Duration::from_secs(7)).await;
        scripted.change(vec![instance("a")]);
    };
    let begun = Instant::now();
    let (ready, ()) = tokio::join!(waits, comes);
    ready.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn load_survives_a_change_of_what_is_known() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    let held = users.pick(&PickRequest::any()).unwrap();
    scripted.change(vec![instance("a").with_weight(7)]);
    settle().await;
    let other = users.pick(&PickRequest::any()).unwrap();
    assert_eq!((other.instance().weight, other.active()), (7, 2));
    drop(other);
    // The same id at another place is another process: nothing of it is under way.
    let moved = trunkline_discovery::ServiceInstance::new(name(), "elsewhere", 80).with_id("a");
    scripted.change(vec![moved]);
    settle().await;
    assert_eq!(users.pick(&PickRequest::any()).unwrap().active(), 1);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn services_of_the_configuration_are_not_looked_up() {
    let scripted = Scripted::with(vec![instance("registry")]);
    let services = [("users", ServiceConfig::at("fixed.test", 9000))];
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .services(services)
        .unwrap()
        .build();
    let found = discovery.service_instance(&name()).await.unwrap();
    assert_eq!(found.authority(), "fixed.test:9000");
    assert_eq!(scripted.watches_opened(), 0);
    assert_eq!(discovery.services().await.unwrap(), [name()]);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_service_in_the_configuration_is_named() {
    let services = [("not a name", ServiceConfig::at("fixed.test", 9000))];
    let error = Discovery::builder().services(services).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().starts_with("services.not a name: "),
        "{error}"
    );
    let services = [("users", ServiceConfig::at("http://fixed.test", 9000))];
    let error = Discovery::builder().services(services).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("host must be a name or an address alone"),
        "{error}"
    );
}

#[test]
fn x14_two_spellings_of_one_service_are_an_error() {
    for (one, other) in [("user_service", "user-service"), ("users", "Users")] {
        let services = [
            (one, ServiceConfig::at("one.test", 80)),
            (other, ServiceConfig::default()),
        ];
        let error = Discovery::builder().services(services).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let told = format!("services.{other} names the same as services.{one}");
        assert!(error.to_string().contains(&told), "{error}");
    }
    let one = [("user_service", ServiceConfig::at("one.test", 80))];
    let _alone = Discovery::builder().services(one).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_external_service_takes_the_place_of_the_registry_and_gives_it_back() {
    let scripted = Scripted::with(vec![instance("registry")]);
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    discovery
        .register_external_service(instance("one"))
        .unwrap();
    discovery
        .register_external_service(instance("two"))
        .unwrap();
    settle().await;
    assert_eq!(ids(&discovery), ["one", "two"]);
    scripted.change(vec![instance("registry-2")]);
    settle().await;
    assert_eq!(ids(&discovery), ["one", "two"]);
    assert_eq!(scripted.watches_open(), 0);
    assert!(discovery.deregister_external_service(&name()));
    assert!(!discovery.deregister_external_service(&name()));
    settle().await;
    assert_eq!(ids(&discovery), ["registry-2"]);
    assert_eq!(users.snapshot().len(), 1, "handles stay good");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_given_back_is_not_known_until_the_registry_answers() {
    let scripted = Scripted::with(vec![instance("registry")]);
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    discovery
        .register_external_service(instance("outside"))
        .unwrap();
    scripted.set_hanging(true);
    discovery.deregister_external_service(&name());
    settle().await;
    let none = users.pick(&PickRequest::any()).unwrap_err();
    assert_eq!(none.reason, NoInstanceReason::NotResolved(None));
    let deadline = Instant::now() + Duration::from_secs(30);
    let waiting = users.ready(deadline);
    let answers = async {
        sleep(Duration::from_secs(2)).await;
        scripted.set_hanging(false);
    };
    let (waited, ()) = tokio::join!(waiting, answers);
    waited.unwrap();
    assert_eq!(ids(&discovery), ["registry"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_nobody_holds_or_uses_is_forgotten() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = over(&scripted);
    discovery.service_instance(&name()).await.unwrap();
    assert_eq!(
        (discovery.cached_services(), scripted.watches_open()),
        (1, 1)
    );
    sleep(Duration::from_secs(1201)).await;
    assert_eq!(
        (discovery.cached_services(), scripted.watches_open()),
        (0, 0)
    );
    discovery.service_instance(&name()).await.unwrap();
    assert_eq!(scripted.watches_opened(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_held_but_not_used_sleeps_and_wakes() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    sleep(Duration::from_secs(1201)).await;
    assert_eq!(
        (discovery.cached_services(), scripted.watches_open()),
        (1, 0)
    );
    scripted.change_unnoticed(vec![instance("b")]);
    // The first use gets the last known good and wakes the watch.
    assert_eq!(users.pick(&PickRequest::any()).unwrap().instance().id, "a");
    settle().await;
    assert_eq!(users.pick(&PickRequest::any()).unwrap().instance().id, "b");
    assert_eq!(scripted.watches_open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_used_is_never_put_to_sleep() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    for _ in 0..40 {
        sleep(Duration::from_secs(300)).await;
        drop(users.pick(&PickRequest::any()).unwrap());
    }
    assert_eq!((scripted.watches_opened(), scripted.watches_open()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_bounded() {
    let registry = MemoryRegistry::new();
    let mut config = DiscoveryCacheConfig::default();
    config.capacity = 3;
    let discovery = Discovery::builder()
        .resolver(registry)
        .cache(config)
        .build();
    let service = |n: usize| ServiceName::new(format!("s{n}")).unwrap();
    let held = discovery.instances(&service(0));
    for n in 1..20 {
        discovery.discover_services(&service(n)).await.unwrap();
        assert!(discovery.cached_services() <= 3);
    }
    // The one that is held is still there, and shares the entry.
    assert_eq!(discovery.cached_services(), 3);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_everything_and_keeps_what_is_known() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = over(&scripted);
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    discovery.shutdown(soon()).await.unwrap();
    assert_eq!(scripted.watches_open(), 0);
    assert!(
        users.pick(&PickRequest::any()).is_ok(),
        "egress outlives intake"
    );
    assert_eq!(
        discovery.services().await.unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    assert_eq!(
        discovery.health_check().await.unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    // Whoever waits for what will not come is told at once.
    let begun = Instant::now();
    let other = discovery.instances(&ServiceName::new("orders").unwrap());
    assert!(
        other
            .ready(Instant::now() + Duration::from_secs(60))
            .await
            .is_err()
    );
    assert_eq!(begun.elapsed(), Duration::ZERO);
    discovery.shutdown(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn health_tells_how_the_registry_is() {
    let health = Health::default();
    let component = health.register(
        "service_discovery",
        "scripted",
        "service_discovery_scripted",
        true,
    );
    let status = || health.component_status("service_discovery").unwrap();
    let scripted = Scripted::default();
    scripted.set_away(true);
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .component(component)
        .build();
    let users = discovery.instances(&name());
    settle().await;
    assert_eq!(
        status().status,
        Status::Unhealthy,
        "there is nothing to go by"
    );
    assert!(discovery.health_check().await.is_err());

    scripted.change_unnoticed(vec![instance("a")]);
    scripted.set_away(false);
    users
        .ready(Instant::now() + Duration::from_secs(10))
        .await
        .unwrap();
    discovery.health_check().await.unwrap();
    assert_eq!(status().status, Status::Healthy);
    assert_eq!(status().last_error, None);

    scripted.set_away(true);
    scripted.break_watches();
    settle().await;
    assert_eq!(
        status().status,
        Status::Degraded,
        "the last known good is used"
    );
    assert!(status().last_error.unwrap().contains("users"));

    let _new = discovery.instances(&ServiceName::new("orders").unwrap());
    settle().await;
    assert_eq!(
        status().status,
        Status::Degraded,
        "one that is not known yet takes nothing from the others"
    );
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_panics_is_asked_again() {
    let scripted = Scripted::with(vec![instance("a")]);
    scripted.set_panicking(true);
    let discovery = Discovery::builder().resolver(scripted.clone()).build();
    let users = discovery.instances(&name());
    settle().await;
    scripted.set_panicking(false);
    let later = || Instant::now() + Duration::from_secs(30);
    users.ready(later()).await.unwrap();

    let before = scripted.watches_opened();
    scripted.panic_in_watches();
    scripted.change_unnoticed(vec![instance("b")]);
    let mut changes = discovery.watch(&name());
    loop {
        let change = timeout_at(later(), changes.next()).await.unwrap().unwrap();
        if change.set.instances().any(|it| it.id == "b") {
            break;
        }
    }
    assert!(scripted.watches_opened() > before);
}

#[tokio::test(start_paused = true)]
async fn what_begins_in_a_call_goes_on_after_its_deadline() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = Discovery::builder().resolver(scripted.clone()).build();
    let call = Context::new().with_timeout(Duration::from_millis(100));
    let users = call.scope(async { discovery.instances(&name()) }).await;
    settle().await;
    assert_eq!(scripted.deadlines(), 0);
    drop(users);
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_instances_changes_and_age() {
    let metrics = Metrics::new();
    let scripted = Scripted::with(vec![instance("a"), instance("b")]);
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .metrics(metrics.clone())
        .build();
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    let value = |line: &str| {
        let text = metrics.render(Format::Prometheus).unwrap();
        let found = text.lines().find(|known| known.starts_with(line));
        let value = found
            .and_then(|line| line.rsplit(' ').next())
            .map(str::to_owned);
        value
            .unwrap_or_else(|| panic!("{line} not in {text}"))
            .parse::<f64>()
            .unwrap()
    };
    assert!(value(r#"trunkline_discovery_instances{service="users",status="healthy"}"#) == 2.0);
    scripted.change(vec![instance("a")]);
    settle().await;
    assert!(value(r#"trunkline_discovery_instances{service="users",status="healthy"}"#) == 1.0);
    assert!(value(r#"trunkline_discovery_changes_total{service="users"}"#) == 1.0);
    users.pick(&PickRequest::any()).unwrap().unreachable();
    scripted.set_away(true);
    scripted.break_watches();
    sleep(Duration::from_secs(60)).await;
    assert!(value(r#"trunkline_discovery_stale_age_seconds{service="users"}"#) > 40.0);
    scripted.set_away(false);
    sleep(Duration::from_secs(11)).await;
    assert!(value(r#"trunkline_discovery_stale_age_seconds{service="users"}"#) == 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_real_registry_shows_crashed_and_moved_instances() {
    let registry = MemoryRegistry::new();
    let discovery = Discovery::builder().resolver(registry.clone()).build();
    let ttl = Duration::from_secs(10);
    registry.register(instance("a"), ttl).await.unwrap();
    let stays = registry.register(instance("b"), ttl).await.unwrap();
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    assert_eq!(ids(&discovery), ["a", "b"]);
    sleep(Duration::from_secs(6)).await;
    registry.renew(&stays, &instance("b")).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(ids(&discovery), ["b"], "the one that did not renew is gone");
    registry.shutdown();
    settle().await;
    assert_eq!(ids(&discovery), ["b"], "and the last known good stays");
    assert!(users.snapshot().is_stale());
}
