//! `trunkline publish` and `trunkline subscribe` with brokers that are servers: real ones, by URL.

use rustix::process::Signal;
use trunkline_testing::servers::{self, System};

use crate::place::Place;
#[cfg(feature = "rabbitmq")]
use crate::place::eventually;

/// The URL of a server that tests share; nothing where it is not installed.
async fn shared(system: &'static System) -> Option<String> {
    let url = tokio::task::spawn_blocking(move || servers::shared(system));
    url.await.unwrap()
}

#[cfg(feature = "rabbitmq")]
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

#[cfg(feature = "kafka")]
#[tokio::test]
async fn kafka_works_by_url() {
    let Some(url) = shared(&servers::KAFKA).await else {
        return;
    };
    let place = Place::new();
    let topic = format!("order-{}.created", trunkline::Id::new());
    // A group that begins with the oldest message need not be there before it.
    let key = [
        "publish",
        &url,
        &topic,
        r#"{"id":1}"#,
        "--key",
        "customer-7",
    ];
    place.run(&key).await.ended(0);
    let args = [
        "subscribe",
        &url,
        &topic,
        "--group",
        "audit",
        "--from",
        "earliest",
    ];
    let mut subscriber = place.start(&args);
    let line = subscriber.line().await;
    assert!(
        line.contains(&topic) && line.contains(r#"{"id":1}"#),
        "{line}"
    );
    subscriber.stop(Signal::INT).await.done();
    // The group goes on behind what it has had; a setting of the driver may stand in the URL.
    let url = format!("{url}?linger_ms=0&client.id=cli-test");
    place
        .run(&["publish", &url, &topic, "second"])
        .await
        .ended(0);
    let mut subscriber = place.start(&["subscribe", &url, &topic, "--group", "audit"]);
    assert!(subscriber.line().await.contains("second"));
    subscriber.stop(Signal::INT).await.done();
    // What Kafka cannot do is told, not left out.
    let later = ["publish", &url, &topic, "later", "--delay", "1m"];
    place.run(&later).await.refused(2, "delays");
    let wrong = format!("{url}&no.such.setting=1");
    let refused = place.run(&["publish", &wrong, &topic, "x"]).await;
    refused.refused(2, "no.such.setting");
}
