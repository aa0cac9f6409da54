//! Several registries as one: each on its own.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_core::{Error, ErrorKind, Health, Status};
use trunkline_discovery::{
    Discovery, InstanceStatus, InstanceWatch, MemoryRegistry, RegistrationState, Registry,
    ResolveRule, Resolver, ServiceInstance, Several,
};

use crate::balance::{instance, name};
use crate::scripted::{Asked, Recording, Scripted};

const TTL: Duration = Duration::from_secs(12);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

pub(crate) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// Another place for each, so that ids alone do not tell them apart.
pub(crate) fn at(id: &str, port: u16) -> ServiceInstance {
    ServiceInstance::new(name(), "10.0.0.9", port).with_id(id)
}

pub(crate) fn finding(rule: ResolveRule, one: &Scripted, two: &Scripted) -> Several {
    Several::builder()
        .rule(rule)
        .member("one", Recording::default(), one.clone())
        .member("two", Recording::default(), two.clone())
        .build()
}

pub(crate) fn announcing(one: &Recording, two: &Recording) -> Several {
    Several::builder()
        .member("one", one.clone(), Scripted::default())
        .member("two", two.clone(), Scripted::default())
        .build()
}

pub(crate) async fn found(several: &Several) -> Vec<String> {
    let list = several.resolve(&name()).await.unwrap();
    list.instances.into_iter().map(|it| it.id).collect()
}

pub(crate) async fn next(watch: &mut InstanceWatch) -> Vec<String> {
    let list = watch.next().await.unwrap().unwrap();
    list.instances.into_iter().map(|it| it.id).collect()
}

#[tokio::test(start_paused = true)]
async fn lists_are_merged_and_one_place_is_one_instance() {
    let one = Scripted::with(vec![at("a", 1), at("b", 2)]);
    let draining = at("b", 2).with_status(InstanceStatus::Draining);
    let two = Scripted::with(vec![draining, at("pod-a", 1), at("c", 3)]);
    let several = finding(ResolveRule::Merged, &one, &two);
    assert_eq!(found(&several).await, ["a", "b", "c"]);
    let list = several.resolve(&name()).await.unwrap();
    assert_eq!(
        list.instances[1].status,
        InstanceStatus::Up,
        "the first one's word counts"
    );
    let differ = several.disagreement(&name()).unwrap();
    assert_eq!(
        differ.to_string(),
        "one has 2 of 3, two has 3 of 3; 1 has not the same status everywhere"
    );
    two.change(vec![at("a", 1), at("b", 2)]);
    assert_eq!(found(&several).await, ["a", "b"]);
    assert_eq!(several.disagreement(&name()), None);
}

#[tokio::test(start_paused = true)]
async fn by_order_the_first_that_knows_the_service_is_believed() {
    let one = Scripted::with(vec![at("a", 1)]);
    let two = Scripted::with(vec![at("b", 2)]);
    let several = finding(ResolveRule::Ordered, &one, &two);
    assert_eq!(found(&several).await, ["a"]);
    one.change(Vec::new());
    assert_eq!(found(&several).await, ["b"]);
    one.change(vec![at("a", 1)]);
    assert_eq!(found(&several).await, ["a"]);
    // One that answers is believed before one that is away.
    one.set_away(true);
    assert_eq!(found(&several).await, ["b"]);
    two.change(Vec::new());
    assert_eq!(
        found(&several).await,
        ["a"],
        "what it said last is better than nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_is_away_empties_nothing_and_keeps_no_ghosts() {
    let one = Scripted::with(vec![at("a", 1), at("both", 9)]);
    let two = Scripted::with(vec![at("b", 2), at("both", 9)]);
    let several = finding(ResolveRule::Merged, &one, &two);
    let mut watch = several.watch(&name()).await.unwrap();
    assert_eq!(next(&mut watch).await, ["a", "b", "both"]);
    one.set_away(true);
    one.break_watches();
    settle().await;
    assert_eq!(found(&several).await, ["a", "b", "both"]);
    // Gone by the word of the one that answers; the other one cannot say so.
    two.change(vec![at("b", 2)]);
    assert_eq!(next(&mut watch).await, ["a", "b"]);
    let problem = several.standing()[0].problem.clone().unwrap();
    assert!(problem.starts_with("finding: "), "{problem}");
    assert_eq!(several.standing()[1].problem, None);
    // It is back, and both is where it was.
    one.set_away(false);
    assert_eq!(next(&mut watch).await, ["a", "b", "both"]);
    assert_eq!(several.standing()[0].problem, None);
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_holds_nobody_up() {
    let one = Scripted::with(vec![at("a", 1)]);
    let two = Scripted::with(vec![at("b", 2)]);
    one.set_hanging(true);
    let several = finding(ResolveRule::Merged, &one, &two);
    let asked = Instant::now();
    assert_eq!(found(&several).await, ["b"]);
    let names = several.services().await.unwrap();
    assert_eq!(names, [name()]);
    let mut watch = several.watch(&name()).await.unwrap();
    assert_eq!(next(&mut watch).await, ["b"]);
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
    one.set_hanging(false);
    assert_eq!(next(&mut watch).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn when_none_answers_it_is_an_error_that_names_all() {
    let (one, two) = (Scripted::default(), Scripted::default());
    let several = finding(ResolveRule::Merged, &one, &two);
    let mut watch = several.watch(&name()).await.unwrap();
    assert!(next(&mut watch).await.is_empty());
    for scripted in [&one, &two] {
        scripted.set_away(true);
    }
    let error = several.resolve(&name()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.message().contains("one: ") && error.message().contains("two: "),
        "{error}"
    );
    one.break_watches();
    two.break_watches();
    assert_eq!(
        watch.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    // After an error the list is told again, though it is the same.
    two.set_away(false);
    loop {
        if let Ok(list) = watch.next().await.unwrap() {
            break assert!(list.instances.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_stands_when_one_took_it_and_the_other_is_told_until_it_does() {
    let (one, two) = (Recording::default(), Recording::default());
    one.set_away(true);
    let several = announcing(&one, &two);
    let users = instance("a");
    let lease = several.register(users.clone(), TTL).await.unwrap();
    assert_eq!(two.take(), [Asked::Register(users.clone())]);
    one.take();
    several.renew(&lease, &users).await.unwrap();
    assert_eq!(one.take(), [Asked::Register(users.clone())]);
    assert_eq!(two.take(), [Asked::Renew(users.clone())]);
    one.set_away(false);
    several.renew(&lease, &users).await.unwrap();
    assert_eq!(one.take(), [Asked::Register(users.clone())]);
    several.renew(&lease, &users).await.unwrap();
    assert_eq!(one.take(), [Asked::Renew(users.clone())]);
    several.deregister(&lease).await.unwrap();
    assert_eq!(one.take(), [Asked::Deregister("a".to_owned())]);
    let lost = several.renew(&lease, &users).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn where_it_was_forgotten_it_is_announced_again() {
    let (one, two) = (MemoryRegistry::new(), MemoryRegistry::new());
    let several = Several::builder()
        .member("one", one.clone(), one.clone())
        .member("two", two.clone(), two.clone())
        .build();
    let users = instance("a");
    let lease = several.register(users.clone(), TTL).await.unwrap();
    let any = trunkline_discovery::Lease::new("a", "", TTL);
    one.deregister(&any).await.unwrap();
    several.renew(&lease, &users).await.unwrap();
    assert_eq!(
        one.resolve(&name()).await.unwrap().instances,
        std::slice::from_ref(&users)
    );
    // Forgotten everywhere: whoever keeps it registers again.
    one.deregister(&any).await.unwrap();
    two.deregister(&any).await.unwrap();
    let lost = several.renew(&lease, &users).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_delays_no_announcement() {
    let (one, two) = (Recording::default(), Recording::default());
    one.set_hanging(true);
    let several = announcing(&one, &two);
    let discovery = Discovery::builder()
        .registry(several.clone())
        .lease_ttl(TTL)
        .build();
    let registration = discovery.register(instance("a")).unwrap();
    registration.registered(soon()).await.unwrap();
    sleep(TTL * 5).await;
    assert_eq!(registration.state(), RegistrationState::Registered);
    assert_eq!(registration.announcements(), 1);
    assert!(two.asked().len() > 10, "{:?}", two.asked());
    let withdrawing = Instant::now();
    registration.deregister(soon()).await.unwrap();
    assert!(withdrawing.elapsed() < Duration::from_secs(2));
    assert_eq!(two.asked().last(), Some(&Asked::Deregister("a".to_owned())));
    several.shutdown();
}

#[tokio::test(start_paused = true)]
async fn those_that_announce_nothing_are_left_alone() {
    let (one, two) = (Recording::default(), Recording::default());
    one.answer_next(Err(Error::unsupported("it announces nothing")));
    let several = announcing(&one, &two);
    let users = instance("a");
    let lease = several.register(users.clone(), TTL).await.unwrap();
    several.renew(&lease, &users).await.unwrap();
    assert_eq!(one.asked().len(), 1);
    assert_eq!(several.standing()[0].problem, None);
    // When none announces anything, that is what is said.
    for recording in [&one, &two] {
        recording.answer_next(Err(Error::unsupported("it announces nothing")));
    }
    let none = several.register(instance("b"), TTL).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_announces_nothing_is_asked_once_and_health_stays_good() {
    let health = Health::default();
    let part = health.register("service_discovery", "service_discovery", "dns", true);
    let recording = Recording::default();
    recording.answer_next(Err(Error::unsupported("it announces nothing")));
    let discovery = Discovery::builder()
        .registry(recording.clone())
        .component(part.clone())
        .build();
    let registration = discovery.register(instance("a")).unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(recording.asked().len(), 1);
    assert!(matches!(
        registration.state(),
        RegistrationState::Pending(Some(_))
    ));
    discovery.health_check().await.unwrap();
    assert_eq!(part.status().unwrap().status, Status::Healthy);
    registration.deregister(soon()).await.unwrap();
    assert_eq!(registration.state(), RegistrationState::Withdrawn);
}

#[tokio::test(start_paused = true)]
async fn no_registry_took_it_is_an_error() {
    let (one, two) = (Recording::default(), Recording::default());
    one.set_away(true);
    two.answer_next(Err(Error::unsupported("it announces nothing")));
    let several = announcing(&one, &two);
    let error = several.register(instance("a"), TTL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.message().contains("one: the registry is away"),
        "{error}"
    );
}

/// what is found are lists; a service is well when one of its instances is, and each tells how it is; an
/// announcement that no registry took is an error, and one that some took is `degraded`.
#[tokio::test(start_paused = true)]
async fn x_43_lists_health_of_each_and_registering_in_several() {
    struct OnlyB;
    impl trunkline_discovery::Probe for OnlyB {
        async fn probe(&self, instance: &ServiceInstance) -> trunkline_core::Result<()> {
            match instance.id.as_str() {
                "b" => Ok(()),
                _ => Err(Error::unavailable("503")),
            }
        }
    }
    let health = Health::default();
    let part = health.register("service_discovery", "service_discovery", "several", true);
    let list = Scripted::with(vec![instance("a"), instance("b")]);
    let (one, two) = (Recording::default(), Recording::default());
    let several = Several::builder()
        .member("one", one.clone(), list.clone())
        .member("two", two.clone(), Scripted::default())
        .build();
    let check = trunkline_discovery::HealthCheckConfig::default().with_failure_threshold(1);
    let discovery = Discovery::builder()
        .registry(several.clone())
        .resolver(several.clone())
        .several(&several)
        .component(part.clone())
        .probe(OnlyB)
        .health_check(check)
        .build();
    let found = discovery.discover_services(&name()).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(discovery.health_check_service(&name()).await.unwrap());
    sleep(Duration::from_secs(10)).await;
    let each = discovery.service_health(&name()).await.unwrap();
    let each: Vec<_> = each
        .instances
        .iter()
        .map(|it| (it.instance.id.as_str(), it.healthy))
        .collect();
    assert_eq!(each, [("a", false), ("b", true)]);
    list.change(vec![instance("a")]);
    settle().await;
    assert!(!discovery.health_check_service(&name()).await.unwrap());

    two.set_away(true);
    several.register(instance("c"), TTL).await.unwrap();
    settle().await;
    assert_eq!(part.status().unwrap().status, Status::Degraded);
    one.set_away(true);
    let error = several.register(instance("d"), TTL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn health_shows_the_one_that_is_away_and_how_they_differ() {
    let health = Health::default();
    let part = health.register("service_discovery", "service_discovery", "several", true);
    let one = Scripted::with(vec![instance("a"), instance("b")]);
    let two = Scripted::with(vec![instance("a")]);
    let recording = Recording::default();
    let several = Several::builder()
        .member("one", recording.clone(), one.clone())
        .member("two", Recording::default(), two.clone())
        .build();
    let discovery = Discovery::builder()
        .registry(several.clone())
        .resolver(several.clone())
        .several(&several)
        .component(part.clone())
        .build();
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    discovery.health_check().await.unwrap();
    let status = part.status().unwrap();
    assert_eq!(status.status, Status::Healthy);
    let differ = &status.metadata["disagreements"][name().as_str()];
    assert!(
        differ
            .as_str()
            .unwrap()
            .contains("one has 2 of 2, two has 1 of 2"),
        "{differ}"
    );

    one.set_away(true);
    recording.set_away(true);
    one.break_watches();
    settle().await;
    discovery.health_check().await.unwrap();
    let status = part.status().unwrap();
    assert_eq!(status.status, Status::Degraded);
    assert!(
        !users.snapshot().is_stale(),
        "the other one stands behind it"
    );
    assert_eq!(users.snapshot().len(), 2);

    one.set_away(false);
    recording.set_away(false);
    two.change(vec![instance("a"), instance("b")]);
    sleep(Duration::from_secs(3)).await;
    discovery.health_check().await.unwrap();
    let status = part.status().unwrap();
    assert_eq!(status.status, Status::Healthy);
    assert_eq!(status.metadata["disagreements"], serde_json::json!({}));
}

#[tokio::test(start_paused = true)]
async fn what_one_registry_passes_by_is_told_of_it_by_name() {
    let (one, two) = (Recording::default(), Recording::default());
    let several = announcing(&one, &two);
    let health = Health::new(trunkline_core::SystemClock::shared());
    let discovery = Discovery::builder()
        .registry(several.clone())
        .resolver(several.clone())
        .several(&several)
        .component(health.register("discovery", "discovery", "several", true))
        .build();
    let status = || health.component_status("discovery").unwrap();
    discovery.health_check().await.unwrap();
    assert_eq!(status().status, Status::Healthy);
    two.set_falling_short(Some("it may not read the namespace stock"));
    discovery.health_check().await.unwrap();
    let problems = || several.standing().into_iter().map(|it| it.problem);
    let told: Vec<_> = problems().collect();
    assert_eq!(told[0], None);
    assert!(told[1].as_ref().unwrap().contains("stock"), "{told:?}");
    assert_eq!(status().status, Status::Degraded);
    let words = format!("{:?}", status());
    assert!(words.contains("stock") && words.contains("two"), "{words}");
    two.set_falling_short(None);
    discovery.health_check().await.unwrap();
    assert!(problems().all(|it| it.is_none()));
    assert_eq!(status().status, Status::Healthy);
}
