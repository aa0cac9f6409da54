//! What happens to the server, and what comes of it.

use tokio::time::Instant;
use trunkline_core::{Health, Status};
use trunkline_discovery::{Discovery, Instances, PickRequest, ServiceName};
use trunkline_kubernetes::KubernetesRegistry;
use trunkline_testing::faults::Relay;
use trunkline_testing::resolver::{Editor, Place};

use crate::world::{Cluster, SOON, config, own, until, url_of, with};

fn places(instances: &Instances) -> Vec<String> {
    let set = instances.snapshot();
    set.instances().map(|it| it.authority()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_known_is_used_through_outages_and_leaves_no_ghosts() {
    let Some(mut server) = own().await else {
        return;
    };
    let users = ServiceName::new("users").unwrap();
    let cluster = Cluster::of(&server.url());
    cluster
        .write(&users, &[Place::number(1), Place::number(2)])
        .await;
    let link = Relay::to(server.address()).unwrap();
    let mut settings = config(&url_of(&server, link.address()));
    settings.wait = std::time::Duration::from_secs(2);
    let registry = KubernetesRegistry::new(&settings).unwrap();
    let health = Health::default();
    let part = health.register("discovery", "discovery", "kubernetes", true);
    let discovery = Discovery::builder()
        .resolver(registry.clone())
        .registry(registry.clone())
        .component(part.clone())
        .build();
    let found = discovery.instances(&users);
    found.ready(Instant::now() + SOON).await.unwrap();
    assert_eq!(places(&found), ["10.1.0.2:8000", "10.1.0.3:8000"]);

    // Connections are cut: it goes on, and misses nothing.
    for n in 3..6 {
        link.reset_all();
        cluster.write(&users, &[Place::number(n)]).await;
        let wanted = [format!("10.1.0.{}:8000", n + 1)];
        until("the change is seen", async || places(&found) == wanted).await;
    }
    // Nothing passes, and the server forgets the history meanwhile: it is killed and begins anew on its data.
    link.stall(true);
    until("stale", async || found.snapshot().is_stale()).await;
    assert!(
        found.pick(&PickRequest::any()).is_ok(),
        "the last known good is used"
    );
    assert_eq!(part.status().unwrap().status, Status::Degraded);
    cluster
        .write(&users, &[Place::number(7), Place::number(8)])
        .await;
    server = with(server, |server| {
        server.kill().unwrap();
        server.restart().unwrap();
    })
    .await;
    link.stall(false);
    until("what is now is known", async || {
        !found.snapshot().is_stale() && places(&found) == ["10.1.0.8:8000", "10.1.0.9:8000"]
    })
    .await;
    // It follows the new history.
    cluster.write(&users, &[Place::number(9)]).await;
    until("the change is seen", async || {
        places(&found) == ["10.1.0.10:8000"]
    })
    .await;
    until("well", async || {
        part.status().unwrap().status == Status::Healthy
    })
    .await;
    discovery.shutdown(Instant::now() + SOON).await.unwrap();
    registry.shutdown(Instant::now() + SOON).await;
    drop(server);
}
