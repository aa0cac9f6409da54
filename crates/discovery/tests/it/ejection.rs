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
    // A pick alone is enough to bring it back: nobody need ask for the snapshot.
    let back = (0..3).any(|_| instances.pick(&PickRequest::any()).unwrap().instance().id == "i1");
    assert!(back);
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
    for n in 0..10 {
        pick(&instances, &format!("i{n}")).unreachable();
        if in_rotation(&instances).len() == 7 {
            break;
        }
    }
    for _ in 0..100 {
        instances.pick(&PickRequest::any()).unwrap().unreachable();
    }
    assert_eq!(in_rotation(&instances).len(), 7);
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
