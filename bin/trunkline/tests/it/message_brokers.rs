//! `trunkline publish` and `trunkline subscribe` with brokers that are servers: real ones, by URL.

use rustix::process::Signal;
use trunkline_testing::servers::{self, System};

use crate::place::{Place, eventually};

/// The URL of a server that tests share; nothing where it is not installed.
async fn shared(system: &'static System) -> Option<String> {
    let url = tokio::task::spawn_blocking(move || servers::shared(system));
    url.await.unwrap()
}

#[tokio::test]
async fn rabbitmq_works_by_url() {
    let Some(url) = shared(&servers::RABBITMQ).await else {
        return;
    };
    let place = Place::new();
    let topic = format!("order-{}.created", trunkline::Id::new());
    let args = ["subscribe", &url, &topic, "--group", "audit"];
    let mut subscriber = place.start(&args);
    // It attaches by itself, and is somebody from then on.
    let args = ["publish", &url, &topic, r#"{"id":1}"#, "--mandatory"];
    eventually(async || (place.run(&args).await.code == Some(0)).then_some(())).await;
    let line = subscriber.line().await;
    assert!(
        line.contains(&topic) && line.contains(r#"{"id":1}"#),
        "{line}"
    );
    subscriber.stop(Signal::INT).await.done();
}
