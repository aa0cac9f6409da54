//! Instances of the caller's own zone come first, and never alone when they do not work.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;
use trunkline_core::{Error, Result};
use trunkline_discovery::{
    BalanceStrategy, Discovery, HealthCheckConfig, InstanceStatus, Instances, LoadBalancerConfig,
    PickRequest, Probe, ServiceInstance,
};

use crate::balance::{instance, name};
use crate::scripted::Scripted;

const EVERY_RULE: [BalanceStrategy; 4] = [
    BalanceStrategy::RoundRobin,
    BalanceStrategy::Random,
    BalanceStrategy::LeastRequests,
    BalanceStrategy::PowerOfTwoChoices,
];

fn at(zone: &str, id: &str) -> ServiceInstance {
    instance(id).with_zone(zone)
}

/// Two near, two far, and one that does not say where it is.
fn five() -> Vec<ServiceInstance> {
    vec![
        at("here", "a"),
        at("here", "b"),
        at("there", "c"),
        at("there", "d"),
        instance("e"),
    ]
}

/// Seen from the zone `here`.
async fn seen(registry: &Scripted, strategy: BalanceStrategy) -> Instances {
    let discovery = Discovery::builder()
        .resolver(registry.clone())
        .load_balancer(LoadBalancerConfig::new(strategy))
        .zone("here")
        .build();
    discovery.discover_services(&name()).await.unwrap();
    discovery.instances(&name())
}

fn picked(instances: &Instances) -> BTreeSet<String> {
    let pick = |_| instances.pick(&PickRequest::any()).unwrap();
    (0..200)
        .map(pick)
        .map(|picked| picked.instance().id.clone())
        .collect()
}

fn set<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.map(str::to_owned).into()
}

fn cut_off(instances: &Instances, id: &str) {
    let all = instances.snapshot();
    let others: Vec<_> = all
        .instances()
        .filter(|other| other.id != id)
        .cloned()
        .collect();
    let mut picked = instances.pick(&PickRequest::excluding(&others)).unwrap();
    assert_eq!(picked.instance().id, id);
    picked.unreachable();
    // What that changes for others is worked out beside those who pick, or for whoever looks.
    drop(instances.snapshot());
}

#[tokio::test(start_paused = true)]
async fn instances_of_the_own_zone_are_picked_alone_by_every_rule() {
    for rule in EVERY_RULE {
        let instances = seen(&Scripted::with(five()), rule).await;
        assert_eq!(picked(&instances), set(["a", "b"]), "{rule:?}");
        assert_eq!(instances.snapshot().in_rotation().len(), 2);
        assert_eq!(instances.snapshot().len(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_zone_without_instances_uses_all() {
    let far = vec![at("there", "c"), at("elsewhere", "d"), instance("e")];
    let instances = seen(&Scripted::with(far), BalanceStrategy::RoundRobin).await;
    assert_eq!(picked(&instances), set(["c", "d", "e"]));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_say_where_it_runs_is_sent_everywhere() {
    let registry = Scripted::with(five());
    let discovery = Discovery::builder().resolver(registry).build();
    discovery.discover_services(&name()).await.unwrap();
    assert_eq!(picked(&discovery.instances(&name())).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn when_all_of_the_zone_are_out_the_others_are_used_until_one_is_back() {
    let instances = seen(&Scripted::with(five()), BalanceStrategy::RoundRobin).await;
    cut_off(&instances, "a");
    // One of two is left, and has too much.
    assert_eq!(picked(&instances), set(["b", "c", "d", "e"]));
    cut_off(&instances, "b");
    assert_eq!(picked(&instances), set(["c", "d", "e"]));
    sleep(Duration::from_secs(11)).await;
    assert_eq!(picked(&instances), set(["a", "b"]));
}

#[tokio::test(start_paused = true)]
async fn who_takes_no_requests_does_not_stand_for_its_zone() {
    let registry = Scripted::with(five());
    let instances = seen(&registry, BalanceStrategy::PowerOfTwoChoices).await;
    let mut now = five();
    now[0].status = InstanceStatus::Draining;
    now[1].weight = 0;
    registry.change(now);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(picked(&instances), set(["c", "d", "e"]));
    registry.change(five());
    sleep(Duration::from_millis(1)).await;
    assert_eq!(picked(&instances), set(["a", "b"]));
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_at_all_of_the_zone_goes_to_another_one() {
    for rule in EVERY_RULE {
        let instances = seen(&Scripted::with(five()), rule).await;
        let mut tried = Vec::new();
        for _ in 0..5 {
            let picked = instances.pick(&PickRequest::excluding(&tried)).unwrap();
            tried.push(picked.instance().clone());
        }
        let order: Vec<_> = tried.iter().map(|instance| instance.id.as_str()).collect();
        assert_eq!(
            order[..2].iter().collect::<BTreeSet<_>>(),
            ["a", "b"].iter().collect()
        );
        let others: BTreeSet<_> = order[2..].iter().copied().collect();
        assert_eq!(others, ["c", "d", "e"].into(), "{rule:?}");
        let again = instances.pick(&PickRequest::excluding(&tried)).unwrap();
        assert_eq!(
            again.instance().zone.as_deref(),
            Some("here"),
            "nobody else is left"
        );
    }
}

/// Nobody is well.
struct AllIll;

impl Probe for AllIll {
    async fn probe(&self, _: &ServiceInstance) -> Result<()> {
        Err(Error::unavailable("503"))
    }
}

#[tokio::test(start_paused = true)]
async fn when_nothing_works_anywhere_zones_do_not_matter() {
    let check = HealthCheckConfig::default().with_failure_threshold(1);
    let discovery = Discovery::builder()
        .resolver(Scripted::with(five()))
        .probe(AllIll)
        .health_check(check)
        .zone("here")
        .build();
    discovery.discover_services(&name()).await.unwrap();
    let instances = discovery.instances(&name());
    assert_eq!(picked(&instances), set(["a", "b"]));
    sleep(Duration::from_secs(5)).await;
    assert!(instances.snapshot().is_panicking());
    assert_eq!(picked(&instances), set(["a", "b", "c", "d", "e"]));
}

/// How many of a thousand calls stay.
fn kept(instances: &Instances) -> usize {
    // The same chance in every run.
    fastrand::seed(7);
    let pick = |_| instances.pick(&PickRequest::any()).unwrap();
    let picked = (0..1000)
        .map(pick)
        .map(|picked| picked.instance().zone.clone());
    picked
        .filter(|zone| zone.as_deref() == Some("here"))
        .count()
}

async fn seen_with(here: usize, there: usize, config: LoadBalancerConfig) -> Instances {
    let near = (0..here).map(|n| at("here", &format!("near-{n}")));
    let far = (0..there).map(|n| at("there", &format!("far-{n}")));
    let discovery = Discovery::builder()
        .resolver(Scripted::with(near.chain(far).collect()))
        .load_balancer(config)
        .zone("here")
        .build();
    discovery.discover_services(&name()).await.unwrap();
    discovery.instances(&name())
}

#[tokio::test(start_paused = true)]
async fn what_is_more_than_a_small_zone_takes_goes_to_others_in_proportion() {
    for rule in EVERY_RULE {
        let config = LoadBalancerConfig::new(rule);
        // 1 of 4, and two zones: 1/4 of 2, and a fifth more.
        let instances = seen_with(1, 3, config.clone()).await;
        let stayed = kept(&instances);
        assert!((540..=660).contains(&stayed), "{rule:?} kept {stayed}");
        // Nearly as many as elsewhere are enough.
        let instances = seen_with(5, 6, config.clone()).await;
        assert_eq!(kept(&instances), 1000, "{rule:?}");
        // More than elsewhere as well.
        let instances = seen_with(3, 1, config.clone()).await;
        assert_eq!(kept(&instances), 1000, "{rule:?}");
        let stays = config.with_zone_overload_percent(0);
        let instances = seen_with(1, 9, stays).await;
        assert_eq!(kept(&instances), 1000, "{rule:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_out_takes_no_part_of_the_share_of_its_zone() {
    let config = LoadBalancerConfig::new(BalanceStrategy::RoundRobin);
    let instances = seen_with(4, 4, config).await;
    assert_eq!(kept(&instances), 1000);
    cut_off(&instances, "near-0");
    cut_off(&instances, "near-1");
    // 2 of 6: 2/6 of 2, and a fifth more.
    let stayed = kept(&instances);
    assert!((740..=860).contains(&stayed), "{stayed}");
    // Those that are out elsewhere, too, leave as much to do there as here.
    cut_off(&instances, "far-0");
    cut_off(&instances, "far-1");
    assert_eq!(kept(&instances), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_key_stays_in_its_zone() {
    let config = LoadBalancerConfig::new(BalanceStrategy::ConsistentHash);
    let instances = seen_with(1, 9, config).await;
    for n in 0..100 {
        let key = n.to_string();
        let picked = instances.pick(&PickRequest::any().with_key(&key)).unwrap();
        assert_eq!(picked.instance().id, "near-0");
    }
}
