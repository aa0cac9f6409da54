//! Keys that stay at their instance.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use trunkline_discovery::{
    Discovery, Instances, PickRequest, ServiceDiscoveryConfig, ServiceInstance,
};

use crate::balance::{instance, name};
use crate::scripted::Scripted;

/// As configuration asks for it.
async fn sticky(scripted: &Scripted, fail_back: bool) -> (Discovery, Instances) {
    let config = json!({
        "load_balancer": { "strategy": "sticky", "sticky": { "fail_back": fail_back } }
    });
    let config: ServiceDiscoveryConfig = serde_json::from_value(config).unwrap();
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .config(&config)
        .build();
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.ready(soon).await.unwrap();
    (discovery, users)
}

fn of(users: &Instances, key: &str) -> String {
    let picked = users.pick(&PickRequest::any().with_key(key)).unwrap();
    picked.instance().id.clone()
}

fn keys() -> impl Iterator<Item = String> {
    (0..500).map(|n| format!("session-{n}"))
}

fn places(users: &Instances) -> BTreeMap<String, String> {
    keys().map(|key| (key.clone(), of(users, &key))).collect()
}

fn ids(ids: &[&str]) -> Vec<ServiceInstance> {
    ids.iter().map(|id| instance(id)).collect()
}

async fn change(scripted: &Scripted, instances: Vec<ServiceInstance>) {
    scripted.change(instances);
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_stays_where_it_is_whoever_else_comes_or_goes() {
    let scripted = Scripted::with(ids(&["a", "b", "c"]));
    let (_discovery, users) = sticky(&scripted, false).await;
    let before = places(&users);
    change(&scripted, ids(&["a", "b", "c", "d", "e", "f"])).await;
    assert_eq!(
        before,
        places(&users),
        "by hash alone half of them would move"
    );
    change(&scripted, ids(&["b", "c", "d", "e", "f"])).await;
    let after = places(&users);
    for (key, place) in &before {
        match place.as_str() {
            "a" => assert_ne!(after[key], "a"),
            _ => assert_eq!(after[key], *place),
        }
    }
    // And those that had to go stay where they went.
    change(&scripted, ids(&["b", "c", "d", "e", "f", "g", "h"])).await;
    assert_eq!(after, places(&users));
}

/// Where the keys are before their instance is out, while it is, and afterwards.
async fn through_an_outage(fail_back: bool) -> [String; 3] {
    let scripted = Scripted::with(ids(&["a", "b", "c"]));
    let (_discovery, users) = sticky(&scripted, fail_back).await;
    let mut first = users.pick(&PickRequest::any().with_key("session")).unwrap();
    let home = first.instance().id.clone();
    first.unreachable();
    let meanwhile = of(&users, "session");
    assert_eq!(of(&users, "session"), meanwhile);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(users.snapshot().in_rotation().len(), 3);
    [home, meanwhile, of(&users, "session")]
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_instance_fails_goes_elsewhere_and_stays_there_or_comes_back() {
    let [home, meanwhile, afterwards] = through_an_outage(false).await;
    assert_ne!(home, meanwhile);
    assert_eq!(meanwhile, afterwards);
    let [home, meanwhile, afterwards] = through_an_outage(true).await;
    assert_ne!(home, meanwhile);
    assert_eq!(home, afterwards);
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_elsewhere_and_moves_nothing() {
    let scripted = Scripted::with(ids(&["a", "b", "c"]));
    let (_discovery, users) = sticky(&scripted, false).await;
    let request = PickRequest::any().with_key("session");
    let home = users.pick(&request).unwrap();
    let tried = [home.instance().clone()];
    let again = users.pick(&PickRequest::excluding(&tried).with_key("session"));
    assert_ne!(again.unwrap().instance().id, tried[0].id);
    assert_eq!(of(&users, "session"), tried[0].id);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_asked_when_there_is_nobody_else() {
    use trunkline_discovery::InstanceStatus;
    let leaving = instance("a").with_status(InstanceStatus::Draining);
    let scripted = Scripted::with(vec![leaving.clone(), instance("b")]);
    let (_discovery, users) = sticky(&scripted, false).await;
    assert!(keys().all(|key| of(&users, &key) == "b"));
    change(&scripted, vec![leaving]).await;
    assert_eq!(of(&users, "session"), "a");
}
