//! Keys, newcomers, few of many, the order of failing over, and instances that say that they are busy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_discovery::{
    BalanceStrategy, Discovery, Instances, LoadBalancerConfig, PickRequest, Picked, ServiceInstance,
};

use crate::balance::{instance, name};
use crate::scripted::Scripted;

fn by(config: &LoadBalancerConfig, instances: Vec<ServiceInstance>) -> Instances {
    Instances::fixed_with(name(), instances, config)
}

fn many(count: usize) -> Vec<ServiceInstance> {
    (0..count).map(|n| instance(&format!("i{n:03}"))).collect()
}

fn hashed() -> LoadBalancerConfig {
    LoadBalancerConfig::new(BalanceStrategy::ConsistentHash)
}

fn pick(instances: &Instances) -> Picked {
    instances.pick(&PickRequest::any()).unwrap()
}

fn of(instances: &Instances, key: &str) -> String {
    let picked = instances.pick(&PickRequest::any().with_key(key)).unwrap();
    picked.instance().id.clone()
}

fn keys() -> impl Iterator<Item = String> {
    (0..2000).map(|n| format!("user-{n}"))
}

fn ids(instances: &Instances) -> BTreeSet<String> {
    let set = instances.snapshot();
    set.in_rotation().map(|it| it.id.clone()).collect()
}

#[test]
fn every_caller_sends_a_key_to_the_same_instance() {
    let one = by(&hashed(), many(10));
    let mut turned = many(10);
    turned.reverse();
    let other = by(&hashed(), turned);
    let mut hits: BTreeMap<String, u32> = BTreeMap::new();
    for key in keys() {
        let id = of(&one, &key);
        assert_eq!(id, of(&one, &key));
        assert_eq!(id, of(&other, &key));
        *hits.entry(id).or_default() += 1;
    }
    assert_eq!(hits.len(), 10);
    assert!(
        hits.values().all(|hits| (100..400).contains(hits)),
        "{hits:?}"
    );
}

#[test]
fn when_one_leaves_the_others_keep_their_keys() {
    let before = by(&hashed(), many(10));
    let after = by(&hashed(), many(9));
    let moved = keys()
        .filter(|key| {
            let was = of(&before, key);
            was != "i009" && was != of(&after, key)
        })
        .count();
    assert!(moved < 100, "{moved} of 2000");
}

#[test]
fn a_key_that_was_tried_goes_to_the_same_other_instance() {
    let instances = by(&hashed(), many(10));
    for key in keys().take(100) {
        let first = instances.pick(&PickRequest::any().with_key(&key)).unwrap();
        let tried = [first.instance().clone()];
        let again = || {
            let request = PickRequest::excluding(&tried).with_key(&key);
            let picked = instances.pick(&request).unwrap();
            picked.instance().id.clone()
        };
        assert_ne!(again(), tried[0].id);
        assert_eq!(again(), again());
    }
}

#[test]
fn a_key_that_everybody_asks_for_overloads_nobody() {
    let most = |config: &LoadBalancerConfig| {
        let instances = by(config, many(10));
        let request = PickRequest::any().with_key("star");
        let held: Vec<Picked> = (0..100)
            .map(|_| instances.pick(&request).unwrap())
            .collect();
        held.iter().map(Picked::active).max().unwrap()
    };
    let even = 10;
    assert!(most(&hashed()) <= even * 3 / 2 + 1);
    let mut unbound = hashed();
    unbound.bound_percent = 0;
    assert_eq!(most(&unbound), 100);
}

#[test]
fn requests_without_a_key_are_spread() {
    let instances = by(&hashed(), many(4));
    let held: Vec<Picked> = (0..40).map(|_| pick(&instances)).collect();
    let asked: BTreeSet<_> = held.iter().map(|it| it.instance().id.clone()).collect();
    assert_eq!(asked.len(), 4);
}

async fn watched(config: LoadBalancerConfig, scripted: &Scripted) -> (Discovery, Instances) {
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .load_balancer(config)
        .build();
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.ready(soon).await.unwrap();
    (discovery, users)
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_its_share_bit_by_bit() {
    for strategy in [
        BalanceStrategy::RoundRobin,
        BalanceStrategy::Random,
        BalanceStrategy::PowerOfTwoChoices,
    ] {
        let scripted = Scripted::with(vec![instance("a"), instance("b")]);
        let config = LoadBalancerConfig::new(strategy).with_slow_start(Duration::from_secs(100));
        let (_discovery, users) = watched(config, &scripted).await;
        let share_of = |id: &str| {
            let mut held = Vec::new();
            for _ in 0..3000 {
                held.push(pick(&users));
            }
            let hits = held.iter().filter(|it| it.instance().id == id).count();
            hits as f64 / 3000.0
        };
        // Those that were there first are no newcomers.
        assert!((0.4..0.6).contains(&share_of("a")), "{strategy:?}");
        scripted.change(vec![instance("a"), instance("b"), instance("c")]);
        sleep(Duration::from_secs(20)).await;
        if strategy != BalanceStrategy::PowerOfTwoChoices {
            let share = share_of("c");
            assert!((0.02..0.2).contains(&share), "{strategy:?}: {share}");
        }
        sleep(Duration::from_secs(81)).await;
        let share = share_of("c");
        assert!((0.25..0.6).contains(&share), "{strategy:?}: {share}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_come_to_a_newcomer_bit_by_bit_and_stay() {
    let scripted = Scripted::with(vec![instance("a"), instance("b")]);
    let config = LoadBalancerConfig::new(BalanceStrategy::ConsistentHash)
        .with_slow_start(Duration::from_secs(100));
    let (_discovery, users) = watched(config, &scripted).await;
    let at_c = || -> Vec<u32> {
        let leads_to_c = |key: &u32| {
            let key = key.to_string();
            let picked = users.pick(&PickRequest::any().with_key(&key)).unwrap();
            picked.instance().id == "c"
        };
        (0..1000).filter(leads_to_c).collect()
    };
    scripted.change(vec![instance("a"), instance("b"), instance("c")]);
    sleep(Duration::from_secs(20)).await;
    let early = at_c();
    assert!((20..150).contains(&early.len()), "{}", early.len());
    assert_eq!(at_c(), early, "not by chance");
    sleep(Duration::from_secs(40)).await;
    let later = at_c();
    assert!(later.len() > early.len());
    assert!(early.iter().all(|key| later.contains(key)));
    sleep(Duration::from_secs(41)).await;
    let all = at_c().len();
    assert!((250..420).contains(&all), "{all}");
}

/// Less than an even share for each would leave room nowhere.
#[tokio::test(start_paused = true)]
async fn a_bound_below_an_even_share_is_one() {
    let mut config = LoadBalancerConfig::new(BalanceStrategy::ConsistentHash);
    config.bound_percent = 1;
    let users = Instances::fixed_with(name(), many(4), &config);
    let held: Vec<_> = (0..100)
        .map(|_| users.pick(&PickRequest::any().with_key("one")).unwrap())
        .collect();
    let most = held.iter().map(Picked::active).max().unwrap();
    assert!(most <= 26, "{most} of 100 at one of four");
}

#[tokio::test(start_paused = true)]
async fn of_many_a_few_are_asked_and_stay_the_same() {
    let config = LoadBalancerConfig::default().with_subset(5);
    let scripted = Scripted::with(many(50));
    let (_discovery, users) = watched(config.clone(), &scripted).await;
    let chosen = ids(&users);
    assert_eq!(chosen.len(), 5);
    let (gone, left): (Vec<_>, Vec<_>) = many(50)
        .into_iter()
        .partition(|it| chosen.first() == Some(&it.id));
    scripted.change(left);
    sleep(Duration::from_millis(1)).await;
    let now = ids(&users);
    assert_eq!(now.len(), 5);
    assert_eq!(now.intersection(&chosen).count(), 4);
    assert!(!now.contains(&gone[0].id));
    // A retry that has been at all of them goes beyond.
    let set = users.snapshot();
    let tried: Vec<_> = set.in_rotation().cloned().collect();
    let beyond = users.pick(&PickRequest::excluding(&tried)).unwrap();
    assert!(!now.contains(&beyond.instance().id));
    // Other callers choose others.
    let different = (0..5).any(|_| ids(&by(&config, many(50))) != chosen);
    assert!(different);
}

fn second(id: &str) -> ServiceInstance {
    let mut second = instance(id);
    second.metadata.insert("priority".into(), "1".into());
    second
}

#[tokio::test(start_paused = true)]
async fn those_of_lower_rank_are_asked_when_there_is_no_other() {
    let scripted = Scripted::with(vec![instance("a"), instance("b"), second("c"), second("d")]);
    let (_discovery, users) = watched(LoadBalancerConfig::default(), &scripted).await;
    assert_eq!(ids(&users), ["a", "b"].map(String::from).into());
    let set = users.snapshot();
    let tried: Vec<_> = set.in_rotation().cloned().collect();
    let retried = users.pick(&PickRequest::excluding(&tried)).unwrap();
    assert!(["c", "d"].contains(&retried.instance().id.as_str()));
    for _ in 0..20 {
        let mut picked = pick(&users);
        if picked.instance().id == "a" {
            picked.unreachable();
            break;
        }
    }
    assert_eq!(ids(&users), ["b"].map(String::from).into());
    scripted.change(vec![second("c"), second("d")]);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(ids(&users), ["c", "d"].map(String::from).into());
}

#[tokio::test(start_paused = true)]
async fn one_that_says_it_is_busy_is_left_alone_for_as_long() {
    let scripted = Scripted::with(vec![instance("a"), instance("b")]);
    let (_discovery, users) = watched(LoadBalancerConfig::default(), &scripted).await;
    let busy = pick(&users);
    busy.busy(Duration::from_secs(20));
    let id = busy.instance().id.clone();
    drop(busy);
    sleep(Duration::from_secs(19)).await;
    assert!(!ids(&users).contains(&id));
    // The last one stays, whatever it says.
    pick(&users).busy(Duration::from_secs(20));
    assert_eq!(ids(&users).len(), 1);
    sleep(Duration::from_secs(2)).await;
    assert!(ids(&users).contains(&id));
}
