//! Changes of a service as a stream.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_discovery::{Discovery, DiscoveryCacheConfig, ServiceChange, ServiceInstance};

use crate::balance::{instance, name};
use crate::scripted::Scripted;

fn ids(instances: &[std::sync::Arc<ServiceInstance>]) -> Vec<&str> {
    instances
        .iter()
        .map(|instance| instance.id.as_str())
        .collect()
}

fn told(change: &ServiceChange) -> [Vec<&str>; 3] {
    [
        ids(&change.added),
        ids(&change.removed),
        ids(&change.updated),
    ]
}

#[tokio::test(start_paused = true)]
async fn tells_what_is_known_first_and_then_what_changed() {
    let scripted = Scripted::with(vec![instance("a"), instance("b")]);
    let discovery = Discovery::builder().resolver(scripted.clone()).build();
    let mut watch = discovery.watch(&name());
    let first = watch.next().await.unwrap();
    assert_eq!(told(&first), [vec!["a", "b"], vec![], vec![]]);
    assert_eq!(first.set.len(), 2);

    let heavier = instance("b").with_weight(3);
    scripted.change(vec![heavier, instance("c")]);
    let second = watch.next().await.unwrap();
    assert_eq!(told(&second), [vec!["c"], vec!["a"], vec!["b"]]);

    // The same again is no change.
    scripted.change(vec![instance("b").with_weight(3), instance("c")]);
    let nothing = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");

    scripted.set_away(true);
    scripted.break_watches();
    let stale = watch.next().await.unwrap();
    assert!(stale.set.is_stale() && !stale.is_change());

    discovery
        .shutdown(Instant::now() + Duration::from_secs(1))
        .await
        .unwrap();
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_held_keeps_the_service_watched() {
    let scripted = Scripted::with(vec![instance("a")]);
    let mut cache = DiscoveryCacheConfig::default();
    cache.resync_interval = Duration::from_secs(36_000);
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .cache(cache)
        .build();
    let mut watch = discovery.watch(&name());
    watch.next().await.unwrap();
    let waits = tokio::time::timeout(Duration::from_secs(7200), watch.next());
    assert!(waits.await.is_err());
    scripted.change(vec![instance("b")]);
    let change = watch.next().await.unwrap();
    assert_eq!(told(&change), [vec!["b"], vec!["a"], vec![]]);
    assert_eq!(scripted.watches_opened(), 1);
    drop(watch);
    sleep(Duration::from_secs(1300)).await;
    assert_eq!(scripted.watches_open(), 0);
}
