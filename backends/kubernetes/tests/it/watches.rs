//! As many watches as there may be, and one more.

use trunkline_core::ErrorKind;
use trunkline_discovery::{InstanceWatch, Registry, Resolver, ServiceName};
use trunkline_kubernetes::KubernetesRegistry;
use trunkline_testing::resolver::{Editor, Place};

use crate::world::{Cluster, SOON, config, shared, unique};

/// Reads on, past errors, until a watch tells so many.
async fn told(watch: &mut InstanceWatch, wanted: usize) {
    let look = async {
        loop {
            match watch.next().await.unwrap() {
                Ok(list) if list.instances.len() == wanted => return,
                Ok(_) | Err(_) => {}
            }
        }
    };
    let told = tokio::time::timeout(SOON, look).await;
    told.unwrap_or_else(|_| panic!("{wanted} are never told"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_watch_too_many_is_told_and_everything_else_goes_on() {
    let Some(url) = shared().await else { return };
    let cluster = Cluster::of(&url);
    let registry = KubernetesRegistry::new(&config(&format!("{url}&max_watches=2"))).unwrap();
    let names: Vec<ServiceName> = ["a", "b", "c"].into_iter().map(unique).collect();
    let mut watches = Vec::new();
    for name in &names[..2] {
        let mut watch = registry.watch(name).await.unwrap();
        told(&mut watch, 0).await;
        cluster.write(name, &[Place::number(1)]).await;
        told(&mut watch, 1).await;
        watches.push(watch);
    }
    let mut more = registry.watch(&names[2]).await.unwrap();
    assert!(more.next().await.unwrap().unwrap().instances.is_empty());
    let error = more.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.message().contains("`max_watches`"), "{error}");

    // Neither questions nor the other watches wait behind it.
    cluster.write(&names[2], &[Place::number(1)]).await;
    let list = registry.resolve(&names[2]).await.unwrap();
    assert_eq!(list.instances.len(), 1);
    registry.health_check().await.unwrap();
    cluster
        .write(&names[0], &[Place::number(1), Place::number(2)])
        .await;
    told(&mut watches[0], 2).await;
    // It misses nothing that lasts, only hears of it later, and takes the place of one that ends.
    told(&mut more, 1).await;
    watches.pop();
    for number in 2..5 {
        let places: Vec<Place> = (1..=number).map(Place::number).collect();
        cluster.write(&names[2], &places).await;
        told(&mut more, places.len()).await;
    }
}
