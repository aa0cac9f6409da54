//! Who is picked, by which rule, and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use trunkline_core::ErrorKind;
use trunkline_discovery::{
    BalanceStrategy, EjectionConfig, InstanceStatus, Instances, LoadBalancerConfig, NoInstance,
    NoInstanceReason, PickRequest, Picked, ServiceInstance, ServiceName,
};
use trunkline_resilience::Outcome;

const EVERY_RULE: [BalanceStrategy; 5] = [
    BalanceStrategy::RoundRobin,
    BalanceStrategy::Random,
    BalanceStrategy::LeastRequests,
    BalanceStrategy::PowerOfTwoChoices,
    BalanceStrategy::ConsistentHash,
];

pub(crate) fn name() -> ServiceName {
    ServiceName::new("users").unwrap()
}

pub(crate) fn instance(id: &str) -> ServiceInstance {
    ServiceInstance::new(name(), format!("{id}.test"), 80).with_id(id)
}

fn weighted(id: &str, weight: u32) -> ServiceInstance {
    instance(id).with_weight(weight)
}

fn with_status(id: &str, status: InstanceStatus) -> ServiceInstance {
    instance(id).with_status(status)
}

fn many(count: usize) -> Vec<ServiceInstance> {
    (0..count).map(|n| instance(&format!("i{n:05}"))).collect()
}

fn by(strategy: BalanceStrategy, instances: Vec<ServiceInstance>) -> Instances {
    Instances::fixed_with(name(), instances, &LoadBalancerConfig::new(strategy))
}

fn pick(instances: &Instances) -> Picked {
    instances.pick(&PickRequest::any()).unwrap()
}

/// How often each was picked in so many rounds, each request ending before the next begins.
fn hits(instances: &Instances, rounds: u32) -> BTreeMap<String, u32> {
    let mut hits = BTreeMap::new();
    for _ in 0..rounds {
        *hits
            .entry(pick(instances).instance().id.clone())
            .or_default() += 1;
    }
    hits
}

#[test]
fn round_robin_goes_one_after_the_other() {
    let instances = by(BalanceStrategy::RoundRobin, many(3));
    let order: Vec<String> = (0..9)
        .map(|_| pick(&instances).instance().id.clone())
        .collect();
    assert_eq!(order[..3], order[3..6]);
    assert_eq!(order[..3], order[6..]);
    let mut round = order[..3].to_vec();
    round.sort();
    assert_eq!(round, ["i00000", "i00001", "i00002"]);
}

#[test]
fn round_robin_follows_the_weights_exactly() {
    let set = vec![weighted("a", 5), weighted("b", 3), weighted("c", 2)];
    let hits = hits(&by(BalanceStrategy::RoundRobin, set), 1000);
    assert_eq!(
        hits,
        BTreeMap::from([("a".into(), 500), ("b".into(), 300), ("c".into(), 200)])
    );
}

#[test]
fn round_robin_never_gives_one_many_turns_in_a_row() {
    let set = vec![weighted("a", 5), weighted("b", 5), weighted("c", 2)];
    let instances = by(BalanceStrategy::RoundRobin, set);
    let order: Vec<String> = (0..120)
        .map(|_| pick(&instances).instance().id.clone())
        .collect();
    assert!(
        order
            .windows(3)
            .all(|turns| turns[0] != turns[1] || turns[1] != turns[2]),
        "{order:?}"
    );
}

#[test]
fn random_follows_the_weights() {
    let set = vec![weighted("a", 70), weighted("b", 20), weighted("c", 10)];
    let hits = hits(&by(BalanceStrategy::Random, set), 50_000);
    for (id, share) in [("a", 0.7), ("b", 0.2), ("c", 0.1)] {
        let seen = f64::from(hits[id]) / 50_000.0;
        assert!((seen - share).abs() < 0.015, "{id}: {seen}");
    }
}

#[test]
fn least_requests_picks_the_idle_one() {
    let instances = by(BalanceStrategy::LeastRequests, many(8));
    let mut held: Vec<Picked> = (0..7).map(|_| pick(&instances)).collect();
    let eighth = pick(&instances);
    assert!(
        held.iter()
            .all(|busy| busy.instance().id != eighth.instance().id)
    );
    let freed = held.swap_remove(3).instance().id.clone();
    assert_eq!(pick(&instances).instance().id, freed);
}

#[test]
fn least_requests_follows_the_weights() {
    let instances = by(
        BalanceStrategy::LeastRequests,
        vec![weighted("a", 3), weighted("b", 1)],
    );
    let held: Vec<Picked> = (0..40).map(|_| pick(&instances)).collect();
    let on_a = held
        .iter()
        .filter(|picked| picked.instance().id == "a")
        .count();
    assert_eq!(on_a, 30);
}

#[test]
fn least_requests_spreads_over_many() {
    let instances = by(BalanceStrategy::LeastRequests, many(1000));
    let held: Vec<Picked> = (0..3000).map(|_| pick(&instances)).collect();
    assert!(
        held.iter().all(|picked| picked.active() <= 5),
        "fair share is 3"
    );
}

#[test]
fn power_of_two_choices_spreads_better_than_chance() {
    let busiest = |strategy| {
        let instances = by(strategy, many(500));
        let held: Vec<Picked> = (0..5000).map(|_| pick(&instances)).collect();
        held.iter().map(Picked::active).max().unwrap()
    };
    // Fair share is 10: two choices stay within a few, chance alone goes far beyond.
    assert!(busiest(BalanceStrategy::PowerOfTwoChoices) <= 14);
    assert!(busiest(BalanceStrategy::Random) > 17);
}

#[test]
fn power_of_two_choices_follows_the_weights() {
    let set = vec![
        weighted("a", 4),
        weighted("b", 4),
        weighted("c", 1),
        weighted("d", 1),
    ];
    let hits = hits(&by(BalanceStrategy::PowerOfTwoChoices, set), 20_000);
    let heavy = f64::from(hits["a"] + hits["b"]) / 20_000.0;
    assert!(heavy > 0.75, "{heavy}");
}

#[tokio::test(start_paused = true)]
async fn power_of_two_choices_avoids_the_slow_one() {
    let instances = by(BalanceStrategy::PowerOfTwoChoices, many(4));
    let mut slow = 0;
    for _ in 0..2000 {
        let picked = pick(&instances);
        let is_slow = picked.instance().id == "i00002";
        slow += u32::from(is_slow);
        let latency = Duration::from_millis(if is_slow { 200 } else { 2 });
        picked.finish(Outcome::Success, latency);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert!(slow < 60, "the slow one got {slow} of 2000");
    assert!(slow > 0, "it is tried at least once");
    // Fast again: it is found out, because an old estimate fades.
    let mut again = 0;
    for _ in 0..4000 {
        let picked = pick(&instances);
        again += u32::from(picked.instance().id == "i00002");
        picked.finish(Outcome::Success, Duration::from_millis(2));
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    assert!(again > 400, "it came back to {again} of 4000");
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_measured_before_it_is_flooded() {
    let instances = by(BalanceStrategy::PowerOfTwoChoices, many(2));
    let first = pick(&instances);
    let known = first.instance().id.clone();
    first.finish(Outcome::Success, Duration::from_millis(1));
    let held: Vec<Picked> = (0..20).map(|_| pick(&instances)).collect();
    let on_newcomer = held
        .iter()
        .filter(|picked| picked.instance().id != known)
        .count();
    assert_eq!(on_newcomer, 1, "until it has answered");
}

#[test]
fn what_does_not_take_requests_gets_none() {
    for strategy in EVERY_RULE {
        let set = vec![
            instance("up"),
            with_status("draining", InstanceStatus::Draining),
            with_status("down", InstanceStatus::Down),
            weighted("weightless", 0),
        ];
        let instances = by(strategy, set);
        assert_eq!(
            hits(&instances, 100),
            BTreeMap::from([("up".into(), 100)]),
            "{strategy:?}"
        );
        assert_eq!(instances.snapshot().len(), 4);
        assert_eq!(instances.snapshot().in_rotation().len(), 1);
    }
}

#[test]
fn what_was_tried_is_not_picked_again() {
    for strategy in EVERY_RULE {
        let instances = by(strategy, many(5));
        for _ in 0..200 {
            let mut tried = Vec::new();
            for _ in 0..5 {
                let picked = instances.pick(&PickRequest::excluding(&tried)).unwrap();
                assert!(!tried.contains(picked.instance()), "{strategy:?}");
                tried.push(picked.instance().clone());
            }
            // Nothing else is left: better one that was tried than none.
            assert!(instances.pick(&PickRequest::excluding(&tried)).is_ok());
        }
    }
}

#[test]
fn a_heavy_instance_that_was_tried_is_left_alone() {
    let set = vec![weighted("heavy", 1_000_000), weighted("light", 1)];
    for strategy in EVERY_RULE {
        let instances = by(strategy, set.clone());
        let heavy = instances.snapshot().instances().next().unwrap().clone();
        let tried = [heavy];
        for _ in 0..100 {
            let picked = instances.pick(&PickRequest::excluding(&tried)).unwrap();
            assert_eq!(picked.instance().id, "light", "{strategy:?}");
        }
    }
}

#[test]
fn nothing_to_pick_says_why() {
    let reason = |instances: Vec<ServiceInstance>| {
        let error = Instances::fixed(name(), instances)
            .pick(&PickRequest::any())
            .unwrap_err();
        error.reason
    };
    assert_eq!(reason(vec![]), NoInstanceReason::None);
    let down = vec![with_status("a", InstanceStatus::Down), weighted("b", 0)];
    assert_eq!(reason(down), NoInstanceReason::NoneUsable { known: 2 });

    let error = Instances::fixed(name(), vec![])
        .pick(&PickRequest::any())
        .unwrap_err();
    let error = trunkline_core::Error::from(error);
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(error.retry(), trunkline_core::Retry::Safe);
    assert_eq!(error.to_string(), "service users has no instance");
    assert!(error.find::<NoInstance>().is_some());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_fixed_instances_that_are_not_there_fails_at_once() {
    let begun = tokio::time::Instant::now();
    let deadline = begun + Duration::from_secs(60);
    let none = Instances::fixed(name(), vec![]);
    assert_eq!(
        none.ready(deadline).await.unwrap_err().kind(),
        ErrorKind::Rejected
    );
    none.resolved(deadline).await.unwrap();
    Instances::fixed(name(), many(1))
        .ready(deadline)
        .await
        .unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[test]
fn a_guard_counts_as_under_way_until_it_is_gone() {
    let instances = by(BalanceStrategy::LeastRequests, many(1));
    let first = pick(&instances);
    assert_eq!(first.active(), 1);
    let mut second = pick(&instances);
    second.record(Outcome::Success, Duration::from_millis(1));
    assert_eq!(first.active(), 2, "its body may still be read");
    drop(second);
    first.finish(Outcome::Success, Duration::from_millis(1));
    assert_eq!(pick(&instances).active(), 1);
}

#[test]
fn concurrent_picks_lose_no_count() {
    for strategy in EVERY_RULE {
        let instances = by(strategy, many(7));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        pick(&instances).finish(Outcome::Success, Duration::from_micros(10));
                    }
                });
            }
        });
        for _ in 0..50 {
            assert_eq!(pick(&instances).active(), 1, "{strategy:?}");
        }
    }
}

#[test]
fn ejection_can_be_switched_off() {
    let config = LoadBalancerConfig::new(BalanceStrategy::RoundRobin)
        .with_ejection(EjectionConfig::disabled());
    let instances = Instances::fixed_with(name(), many(4), &config);
    for _ in 0..100 {
        pick(&instances).unreachable();
    }
    assert_eq!(instances.snapshot().in_rotation().len(), 4);
}
