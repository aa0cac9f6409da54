//! Instances that fail are left out for a while, never all of them.

use std::time::Duration;

use trunkline_discovery::{
    BalanceStrategy, EjectionConfig, Instances, LoadBalancerConfig, PickRequest, Picked,
};
use trunkline_resilience::Outcome;

use crate::balance::{instance, name};

const BASE: Duration = Duration::from_secs(10);

fn instances(count: usize) -> Instances {
    with(count, EjectionConfig::default().with_base_time(BASE))
}

fn with(count: usize, ejection: EjectionConfig) -> Instances {
    let all = (0..count).map(|n| instance(&format!("i{n}"))).collect();
    let config = LoadBalancerConfig::new(BalanceStrategy::RoundRobin).with_ejection(ejection);
    Instances::fixed_with(name(), all, &config)
}

/// Picks until it is this one.
fn pick(instances: &Instances, id: &str) -> Picked {
    (0..1000)
        .map(|_| instances.pick(&PickRequest::any()).unwrap())
        .find(|picked| picked.instance().id == id)
        .unwrap()
}

fn fail(instances: &Instances, id: &str) {
    pick(instances, id).finish(Outcome::Failure, Duration::from_millis(1));
}

fn in_rotation(instances: &Instances) -> Vec<String> {
    let set = instances.snapshot();
    set.in_rotation()
        .map(|instance| instance.id.clone())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_take_an_instance_out_and_time_brings_it_back() {
    let instances = instances(3);
    for _ in 0..4 {
        fail(&instances, "i1");
    }
    assert_eq!(in_rotation(&instances).len(), 3, "one failure is missing");
    fail(&instances, "i1");
    assert_eq!(in_rotation(&instances), ["i0", "i2"]);
    assert_eq!(instances.snapshot().ejected(), 1);
    for _ in 0..100 {
        assert_ne!(
            instances.pick(&PickRequest::any()).unwrap().instance().id,
            "i1"
        );
    }
    tokio::time::advance(BASE - Duration::from_millis(1)).await;
    assert_eq!(in_rotation(&instances).len(), 2);
    tokio::time::advance(Duration::from_millis(1)).await;
    // Nobody need ask for the snapshot to bring it back.
    let picked = || instances.pick(&PickRequest::any()).unwrap();
    while !(0..3).any(|_| picked().instance().id == "i1") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_in_between_begins_the_count_anew() {
    let instances = instances(3);
    for _ in 0..10 {
        for _ in 0..4 {
            fail(&instances, "i1");
        }
        pick(&instances, "i1").finish(Outcome::Success, Duration::from_millis(1));
    }
    assert_eq!(in_rotation(&instances).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_counts_for_nothing() {
    let instances = instances(3);
    for _ in 0..100 {
        pick(&instances, "i1").finish(Outcome::Ignored, Duration::from_millis(1));
        drop(pick(&instances, "i1"));
    }
    assert_eq!(in_rotation(&instances).len(), 3);
    for _ in 0..4 {
        fail(&instances, "i1");
        drop(pick(&instances, "i1"));
    }
    fail(&instances, "i1");
    assert_eq!(
        in_rotation(&instances).len(),
        2,
        "nor does it break a row of failures"
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_first_word_about_a_request_counts() {
    let instances = instances(3);
    for _ in 0..10 {
        let mut picked = pick(&instances, "i1");
        picked.record(Outcome::Success, Duration::from_millis(1));
        picked.finish(Outcome::Failure, Duration::from_millis(1));
    }
    assert_eq!(in_rotation(&instances).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_takes_it_out_at_once() {
    let instances = instances(2);
    pick(&instances, "i0").unreachable();
    assert_eq!(in_rotation(&instances), ["i1"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_one_always_stays() {
    let all = EjectionConfig::default()
        .with_base_time(BASE)
        .with_max_percent(100);
    let instances = with(3, all);
    for _ in 0..30 {
        instances.pick(&PickRequest::any()).unwrap().unreachable();
    }
    assert_eq!(in_rotation(&instances).len(), 1);
    let alone = self::instances(1);
    for _ in 0..30 {
        pick(&alone, "i0").unreachable();
    }
    assert_eq!(in_rotation(&alone), ["i0"]);
}

#[tokio::test(start_paused = true)]
async fn the_share_is_computed_as_it_will_be_afterwards() {
    let instances = with(10, EjectionConfig::default().with_max_percent(30));
    for _ in 0..100 {
        let picked = instances.pick(&PickRequest::any()).unwrap();
        picked.finish(Outcome::Failure, Duration::from_millis(1));
    }
    assert_eq!(in_rotation(&instances).len(), 7);
    let picked = instances.pick(&PickRequest::any()).unwrap();
    assert!(!picked.is_dispensable() && !picked.is_out());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_connected_to_goes_whatever_the_share() {
    let instances = instances(3);
    for id in ["i0", "i1"] {
        let mut picked = pick(&instances, id);
        assert!(!picked.is_out());
        picked.unreachable();
        assert!(picked.is_out() && picked.is_dispensable());
    }
    assert_eq!(in_rotation(&instances), ["i2"]);
    let mut last = pick(&instances, "i2");
    last.unreachable();
    assert!(!last.is_out() && !last.is_dispensable());
}

#[tokio::test(start_paused = true)]
async fn out_for_longer_each_time_in_a_row() {
    let instances = instances(2);
    for times in 1..4_u32 {
        pick(&instances, "i0").unreachable();
        tokio::time::advance(BASE * times - Duration::from_millis(1)).await;
        assert_eq!(in_rotation(&instances), ["i1"], "time {times}");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(in_rotation(&instances).len(), 2, "time {times}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_of_requests_that_were_under_way_do_not_count_after_it_is_back() {
    let instances = instances(2);
    let under_way: Vec<Picked> = (0..20).map(|_| pick(&instances, "i0")).collect();
    pick(&instances, "i0").unreachable();
    for picked in under_way {
        picked.finish(Outcome::Failure, Duration::from_secs(1));
    }
    tokio::time::advance(BASE).await;
    assert_eq!(in_rotation(&instances).len(), 2);
    for _ in 0..4 {
        fail(&instances, "i0");
    }
    assert_eq!(in_rotation(&instances).len(), 2, "the row begins anew");
}

const INTERVAL: Duration = Duration::from_secs(10);

/// So many requests to each instance; what they come to is said by instance and number.
fn requests(instances: &Instances, each: usize, outcome: impl Fn(&str, usize) -> (Outcome, u64)) {
    let set = instances.snapshot();
    let ids: Vec<String> = set.in_rotation().map(|it| it.id.clone()).collect();
    for number in 0..each {
        for id in &ids {
            let (outcome, millis) = outcome(id, number);
            // By now it may be out.
            if in_rotation(instances).contains(id) {
                pick(instances, id).finish(outcome, Duration::from_millis(millis));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_fails_more_often_than_the_others_goes_although_never_in_a_row() {
    let instances = instances(3);
    let half = |id: &str, number: usize| match (id, number % 2) {
        ("i1", 1) => (Outcome::Failure, 1),
        _ => (Outcome::Success, 1),
    };
    requests(&instances, 30, half);
    assert_eq!(in_rotation(&instances).len(), 3, "not compared yet");
    tokio::time::advance(INTERVAL).await;
    requests(&instances, 1, |_, _| (Outcome::Success, 1));
    assert_eq!(in_rotation(&instances), ["i0", "i2"]);
    tokio::time::advance(BASE).await;
    assert_eq!(in_rotation(&instances).len(), 3, "its time is over");
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_alike_nobody_is_an_outlier() {
    let instances = instances(3);
    for _ in 0..3 {
        requests(&instances, 30, |_, number| match number % 2 {
            0 => (Outcome::Failure, 1),
            _ => (Outcome::Success, 1),
        });
        tokio::time::advance(INTERVAL).await;
    }
    assert_eq!(in_rotation(&instances).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_is_much_slower_than_the_others_goes_where_that_is_asked_for() {
    let slow = |id: &str, _| (Outcome::Success, if id == "i2" { 800 } else { 20 });
    for (factor, left) in [(0, 3), (5, 2)] {
        let mut config = EjectionConfig::default().with_base_time(BASE);
        config.latency.factor = factor;
        let instances = with(3, config);
        requests(&instances, 30, slow);
        tokio::time::advance(INTERVAL).await;
        requests(&instances, 1, slow);
        assert_eq!(in_rotation(&instances).len(), left, "factor {factor}");
    }
}

#[tokio::test(start_paused = true)]
async fn outliers_too_leave_the_share_and_the_last_one_in() {
    let instances = instances(4);
    // Three of four fail half of their requests; no more than half of them may go, the worst ones first.
    let bad = |id: &str, number: usize| match id {
        "i0" => (Outcome::Success, 1),
        _ if number.is_multiple_of(2) => (Outcome::Failure, 1),
        _ => (Outcome::Success, 1),
    };
    for _ in 0..3 {
        requests(&instances, 40, bad);
        tokio::time::advance(INTERVAL - Duration::from_secs(1)).await;
        requests(&instances, 1, |_, _| (Outcome::Success, 1));
        assert!(in_rotation(&instances).len() >= 2);
        assert!(in_rotation(&instances).contains(&"i0".to_owned()));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_too_few_left_all_are_asked() {
    let mut config = EjectionConfig::default()
        .with_base_time(BASE)
        .with_max_percent(100);
    config.panic_percent = 40;
    let instances = with(5, config);
    for id in ["i0", "i1", "i2"] {
        for _ in 0..5 {
            fail(&instances, id);
        }
    }
    assert_eq!(in_rotation(&instances), ["i3", "i4"], "40 % are left");
    for _ in 0..5 {
        fail(&instances, "i3");
    }
    let set = instances.snapshot();
    assert!(set.is_panicking() && set.is_healthy());
    assert_eq!(in_rotation(&instances).len(), 5);
    tokio::time::advance(BASE).await;
    drop(pick(&instances, "i0"));
    assert!(!instances.snapshot().is_panicking());
}
