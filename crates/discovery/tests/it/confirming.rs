//! A first check that says otherwise than before is confirmed soon.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_discovery::HealthCheckConfig;

use crate::balance::{instance, name};
use crate::check::{Setup, three};

const A_MOMENT: Duration = Duration::from_millis(50);

fn b() -> String {
    "b".to_owned()
}

/// How long it takes from the next check of `b` on until it is in rotation, or is not.
async fn takes(setup: &Setup, is_in: bool) -> Duration {
    let before = setup.probe.asked("b");
    while setup.probe.asked("b") == before {
        sleep(A_MOMENT).await;
    }
    let first = Instant::now();
    while setup.in_rotation().contains(&b()) != is_in {
        sleep(A_MOMENT).await;
    }
    first.elapsed()
}

async fn checked(config: HealthCheckConfig) -> Setup {
    let setup = Setup::with(three(), |it| it.health_check(config)).await;
    sleep(Duration::from_secs(100)).await;
    setup
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_down_leaves_seconds_after_its_first_failed_check() {
    let setup = checked(HealthCheckConfig::default()).await;
    setup.probe.tell(|told| told.ill.extend([b()]));
    let span = takes(&setup, false).await;
    assert!(span > Duration::from_millis(1500), "{span:?}: three checks");
    assert!(span < Duration::from_secs(3), "{span:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_leaves_after_the_time_of_its_checks() {
    let setup = checked(HealthCheckConfig::default()).await;
    setup.probe.tell(|told| told.hangs.extend([b()]));
    let span = takes(&setup, false).await;
    assert!(span < Duration::from_secs(3 * 5 + 3), "{span:?}");
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_is_confirmed_soon_as_well() {
    let setup = checked(HealthCheckConfig::default().with_success_threshold(3)).await;
    setup.probe.tell(|told| told.ill.extend([b()]));
    takes(&setup, false).await;
    setup.probe.tell(|told| told.ill.clear());
    let span = takes(&setup, true).await;
    assert!(span > Duration::from_millis(1500), "{span:?}: three checks");
    assert!(span < Duration::from_secs(3), "{span:?}");
}

#[tokio::test(start_paused = true)]
async fn confirming_checks_are_never_farther_apart_than_others() {
    let config = HealthCheckConfig::default()
        .with_interval(Duration::from_millis(400))
        .with_confirm_interval(Duration::from_secs(60));
    let setup = checked(config).await;
    setup.probe.tell(|told| told.ill.extend([b()]));
    assert!(takes(&setup, false).await < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn when_that_is_settled_checks_come_in_the_interval_again() {
    let setup = checked(HealthCheckConfig::default()).await;
    setup.probe.tell(|told| told.ill.extend([b()]));
    takes(&setup, false).await;
    let before = setup.probe.asked("b");
    sleep(Duration::from_secs(100)).await;
    let asked = setup.probe.asked("b") - before;
    // Ever farther apart, up to the interval.
    assert!(
        (4..=7).contains(&asked),
        "{asked} while it is known to fail"
    );
    let before = setup.probe.asked("b");
    sleep(Duration::from_secs(100)).await;
    let asked = setup.probe.asked("b") - before;
    assert!((2..=4).contains(&asked), "{asked} later");
    setup.probe.tell(|told| told.ill.clear());
    takes(&setup, true).await;
    let before = setup.probe.asked("b");
    sleep(Duration::from_secs(100)).await;
    let asked = setup.probe.asked("b") - before;
    assert!(
        (2..=4).contains(&asked),
        "{asked} while it is known to work"
    );
}

#[tokio::test(start_paused = true)]
async fn what_failed_at_another_place_is_not_counted_where_it_is_now() {
    let config = HealthCheckConfig::default().with_confirm_interval(Duration::from_secs(10));
    let setup = checked(config).await;
    setup.probe.tell(|told| {
        told.ill_places
            .extend(["b.test", "moved.test"].map(str::to_owned))
    });
    let before = setup.probe.asked("b");
    while setup.probe.asked("b") < before + 2 {
        sleep(A_MOMENT).await;
    }
    let mut moved = instance("b");
    moved.host = "moved.test".to_owned();
    setup
        .registry
        .change(vec![instance("a"), moved, instance("c")]);
    for failures in 1..=3 {
        let before = setup.probe.asked("b");
        assert_eq!(setup.in_rotation().len(), 3, "{failures}");
        while setup.probe.asked("b") == before {
            sleep(A_MOMENT).await;
        }
        sleep(A_MOMENT).await;
        let health = setup.discovery.service_health(&name()).await.unwrap();
        let check = health.instances[1].check.as_ref().unwrap();
        assert_eq!(check.failures, failures);
    }
    assert_eq!(setup.in_rotation(), ["a", "c"]);
}
