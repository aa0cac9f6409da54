//! `trunkline publish` and `trunkline subscribe` with brokers that are servers: real ones, by URL.

use rustix::process::Signal;
use trunkline_testing::servers::{self, System};

use crate::place::Place;
#[cfg(any(feature = "rabbitmq", feature = "kafka", feature = "redis"))]
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

#[cfg(feature = "rabbitmq")]
#[tokio::test]
async fn rabbitmq_has_its_dead_letters_looked_at_and_tried_again() {
    if let Some(url) = shared(&servers::RABBITMQ).await {
        dead_letters_are_looked_at_and_tried_again(url).await;
    }
}

#[cfg(feature = "kafka")]
#[tokio::test]
async fn kafka_has_its_dead_letters_looked_at_and_tried_again() {
    if let Some(url) = shared(&servers::KAFKA).await {
        dead_letters_are_looked_at_and_tried_again(url).await;
    }
}

/// Dead letters as a service's router leaves them, in the queue of its group.
#[cfg(any(feature = "rabbitmq", feature = "kafka"))]
async fn dead_letters_are_looked_at_and_tried_again(url: String) {
    use trunkline::messaging::{HandlerError, LetterFilter, MessageBroker as _, Messaging};

    let place = Place::new();
    let group = format!("mail-{}", trunkline::Id::new());
    let topic = format!("order-{}.created", trunkline::Id::new());
    let broker = trunkline::backends::open_broker(
        &trunkline::messaging::MessageBrokerConfig::from_url(&url).unwrap(),
    );
    let messaging = Messaging::new(broker.unwrap());
    messaging.broker().connect().await.unwrap();
    let refuse = async |reason: String| Err::<(), _>(HandlerError::dead_letter(reason));
    let subscribing = messaging.subscribe(&*topic).group(&group).handle(refuse);
    let handler = subscribing.await.unwrap();
    eventually(async || {
        let sent = messaging.publish(&*topic, &"poison".to_owned()).await;
        let letters = messaging.dead_letters();
        let page = letters.list(&group, &LetterFilter::default(), 0, 10).await;
        (sent.is_ok() && page.is_ok_and(|page| !page.letters.is_empty())).then_some(())
    })
    .await;
    drop(handler);
    let soon = tokio::time::Instant::now() + crate::place::SOON;
    messaging.broker().disconnect(soon).await.unwrap();

    let list = ["dlq", "list", &url, &group, "--output", "json"];
    let letters: Vec<serde_json::Value> = place.run(&list).await.done().json();
    assert!(!letters.is_empty());
    let id = letters[0]["id"].as_str().unwrap().to_owned();
    let shown = place.run(&["dlq", "show", &url, &group, &id]).await.done();
    assert!(shown.text().contains("poison"), "{}", shown.text());
    let replay = ["dlq", "replay", &url, &group, "--id", &id];
    let replayed = place.run(&replay).await.done();
    assert_eq!(replayed.text(), "replayed 1 letter(s)\n");
    let left: Vec<serde_json::Value> = place.run(&list).await.done().json();
    assert_eq!(left.len(), letters.len() - 1);
    place
        .run(&["dlq", "purge", &url, &group, "--all"])
        .await
        .ended(0);
    let left: Vec<serde_json::Value> = place.run(&list).await.done().json();
    assert!(left.is_empty(), "{left:?}");
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn redis_passes_on_by_url() {
    let Some(url) = shared(&servers::REDIS).await else {
        return;
    };
    let place = Place::new();
    let url = format!("{url}?mode=pubsub&key_prefix=");
    let topic = format!("price-{}", trunkline::Id::new());
    let pattern = format!("{topic}.*");
    let mut subscriber = place.start(&["subscribe", &url, &pattern]);
    // Whoever is not there yet misses it.
    let topic = format!("{topic}.changed");
    let publish = ["publish", &url, &topic, "17"];
    let line = async {
        let again = async {
            loop {
                place.run(&publish).await.ended(0);
            }
        };
        tokio::select! {
            line = subscriber.line() => line,
            () = again => String::new(),
        }
    }
    .await;
    assert!(line.contains(&topic) && line.contains("17"), "{line}");
    subscriber.stop(Signal::INT).await.done();
    let group = ["subscribe", &url, &topic, "--group", "audit"];
    place.run(&group).await.refused(2, "groups");
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
    // Whoever subscribes moves what is due.
    let later = ["publish", &url, &topic, "later", "--delay", "1s"];
    place.run(&later).await.ended(0);
    assert!(subscriber.line().await.contains("later"));
    subscriber.stop(Signal::INT).await.done();
    // What Kafka cannot do is told, not left out.
    let much_later = ["publish", &url, &topic, "later", "--delay", "720h"];
    place.run(&much_later).await.refused(2, "longer than");
    let wrong = format!("{url}&no.such.setting=1");
    let refused = place.run(&["publish", &wrong, &topic, "x"]).await;
    refused.refused(2, "no.such.setting");
}
