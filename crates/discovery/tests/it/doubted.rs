//! A failed call brings the next check forward, and an instance that says that it is not well is believed at once.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_discovery::{HealthCheckConfig, Instances, PickRequest, Picked};
use trunkline_resilience::Outcome;

use crate::balance::name;
use crate::check::{Setup, three};

const A_MOMENT: Duration = Duration::from_millis(5);

async fn checked(config: HealthCheckConfig) -> Setup {
    let setup = Setup::with(three(), |it| it.health_check(config)).await;
    // Each was asked once: the next checks are far away.
    sleep(Duration::from_secs(10)).await;
    setup
}

fn b() -> String {
    "b".to_owned()
}

/// Picks this one.
fn pick(users: &Instances, id: &str) -> Picked {
    let set = users.snapshot();
    let others: Vec<_> = set.instances().filter(|it| it.id != id).cloned().collect();
    let picked = users.pick(&PickRequest::excluding(&others)).unwrap();
    assert_eq!(picked.instance().id, id);
    picked
}

/// One call to `b` that ends so.
fn call(users: &Instances, outcome: Outcome) {
    pick(users, "b").finish(outcome, Duration::from_millis(1));
}

/// How long it takes from now on until `b` gets no more requests; none if that does not happen soon.
async fn leaves(setup: &Setup) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        if !setup.in_rotation().contains(&b()) {
            return Some(begun.elapsed());
        }
        sleep(A_MOMENT).await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn one_failed_call_and_one_check_take_an_instance_out() {
    let setup = checked(HealthCheckConfig::default()).await;
    let users = setup.discovery.instances(&name());
    setup.probe.tell(|told| told.ill.extend([b()]));
    call(&users, Outcome::Failure);
    let span = leaves(&setup).await.unwrap();
    assert!(span < Duration::from_millis(100), "{span:?}");
    assert_eq!(setup.probe.asked("a"), 1, "nobody else was asked again");
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_leaves_when_the_check_after_a_failed_call_is_over() {
    let setup = checked(HealthCheckConfig::default()).await;
    let users = setup.discovery.instances(&name());
    setup.probe.tell(|told| told.hangs.extend([b()]));
    call(&users, Outcome::Failure);
    let span = leaves(&setup).await.unwrap();
    assert!(span >= Duration::from_secs(5), "{span:?}");
    assert!(span < Duration::from_millis(5100), "{span:?}");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_be_connected_to_is_checked_at_once() {
    let setup = checked(HealthCheckConfig::default()).await;
    let users = setup.discovery.instances(&name());
    setup.probe.tell(|told| told.ill.extend([b()]));
    pick(&users, "b").unreachable();
    sleep(Duration::from_millis(100)).await;
    let failing = |health: &trunkline_discovery::InstanceHealth| {
        health.check.as_ref().is_some_and(|it| it.failures > 0)
    };
    let health = setup.discovery.service_health(&name()).await.unwrap();
    assert!(failing(&health.instances[1]));
    // The time for which calls leave it out is over: nobody is sent there to find out.
    sleep(Duration::from_secs(15)).await;
    assert_eq!(setup.in_rotation(), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn who_passes_the_check_stays_and_is_not_asked_at_every_failed_call() {
    let setup = checked(HealthCheckConfig::default()).await;
    let users = setup.discovery.instances(&name());
    call(&users, Outcome::Failure);
    assert_eq!(leaves(&setup).await, None);
    assert_eq!(setup.probe.asked("b"), 2);
    // Now and then one fails, for as long as a hundred seconds: never enough in a row to take it out.
    let before = setup.probe.asked("b");
    for _ in 0..1000 {
        sleep(Duration::from_millis(100)).await;
        call(&users, Outcome::Failure);
        call(&users, Outcome::Success);
    }
    let asked = setup.probe.asked("b") - before;
    assert!((5..=20).contains(&asked), "{asked} in 100 s");
    assert_eq!(setup.in_rotation().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failure_while_a_check_is_under_way_is_followed_by_another_one() {
    let setup = checked(HealthCheckConfig::default()).await;
    let users = setup.discovery.instances(&name());
    call(&users, Outcome::Failure);
    sleep(Duration::from_millis(5)).await;
    // What is under way began before this: it says nothing of it.
    setup.probe.tell(|told| told.ill.extend([b()]));
    assert_eq!(setup.probe.asked("b"), 2);
    call(&users, Outcome::Failure);
    let span = leaves(&setup).await.unwrap();
    assert!(span < Duration::from_secs(2), "{span:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_of_most_instances_takes_no_more_out_than_ejection_would() {
    let setup = checked(HealthCheckConfig::default()).await;
    let users = setup.discovery.instances(&name());
    setup
        .probe
        .tell(|told| told.hangs.extend(["a", "b", "c"].map(str::to_owned)));
    for id in ["a", "b", "c"] {
        pick(&users, id).finish(Outcome::Failure, Duration::from_millis(1));
    }
    sleep(Duration::from_millis(5500)).await;
    assert_eq!(setup.in_rotation().len(), 2, "the others need three checks");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_says_itself_that_it_is_not_well_leaves_by_one_check() {
    let setup = checked(HealthCheckConfig::default()).await;
    setup.probe.tell(|told| told.says_so.extend([b()]));
    let before = setup.probe.asked("b");
    while setup.probe.asked("b") == before {
        sleep(A_MOMENT).await;
    }
    let span = leaves(&setup).await.unwrap();
    assert!(span < Duration::from_millis(100), "{span:?}");
    // It is asked again soon: that may be over.
    setup.probe.tell(|told| told.says_so.clear());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.in_rotation().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_was_away_for_a_moment_is_not_waited_for_a_whole_interval() {
    let setup = checked(HealthCheckConfig::default()).await;
    let users = setup.discovery.instances(&name());
    setup.probe.tell(|told| told.ill.extend([b()]));
    call(&users, Outcome::Failure);
    leaves(&setup).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    setup.probe.tell(|told| told.ill.clear());
    sleep(Duration::from_secs(7)).await;
    assert_eq!(setup.in_rotation().len(), 3);
}
