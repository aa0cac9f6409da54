//! The commands over NATS, by URL, against the real server.

use serde_json::{Value, json};
use trunkline::messaging::{HandlerError, LetterFilter, MessageBrokerConfig};
use trunkline::telemetry::{Install, LoggingConfig};
use trunkline::{CommunicationConfig, CommunicationManager};
use trunkline_testing::servers::{self, NATS, Server};

use crate::place::{Place, eventually};

const GROUP: &str = "mailer";

fn server() -> Option<(Server, String)> {
    let server = servers::own(&NATS)?;
    let url = server.url();
    Some((server, url))
}

#[tokio::test]
async fn what_is_published_by_url_is_received_by_url() {
    let Some((_server, url)) = server() else {
        return;
    };
    let place = Place::new();
    let publish = [
        "publish",
        &url,
        "order.created",
        r#"{"id":1}"#,
        "--key",
        "customer-7",
    ];
    place.run(&publish).await.done();
    let subscribe = [
        "subscribe",
        &url,
        "order.*",
        "--from",
        "earliest",
        "--count",
        "1",
        "--timeout",
        "20s",
        "--output",
        "json",
    ];
    let seen = place.run(&subscribe).await.done().json_lines();
    assert_eq!(seen[0]["topic"], "order.created");
    assert_eq!(seen[0]["key"], "customer-7");
    assert_eq!(seen[0]["payload"], json!({ "id": 1 }));
}

#[tokio::test]
async fn core_nats_says_that_nobody_listens() {
    let Some((_server, url)) = server() else {
        return;
    };
    let url = format!("{url}?mode=core");
    let place = Place::new();
    let lonely = ["publish", &url, "order.created", "1", "--mandatory"];
    let outcome = place.run(&lonely).await;
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stderr.contains("nobody subscribes"),
        "{}",
        outcome.stderr
    );
    let listening = [
        "subscribe",
        &url,
        "order.#",
        "--count",
        "1",
        "--timeout",
        "20s",
    ];
    let mut subscriber = place.start(&listening);
    subscriber.remark("subscribed to").await;
    place.run(&lonely).await.done();
    let seen = subscriber.end().await.done();
    assert!(seen.text().starts_with("order.created "), "{seen:?}");
}

#[tokio::test]
async fn dead_letters_are_listed_replayed_and_purged_by_url() {
    let Some((_server, url)) = server() else {
        return;
    };
    let place = Place::new();
    give_up(&place, &url, &["1", "2"]).await;
    let list = ["dlq", "list", &url, GROUP, "--output", "json"];
    let letters: Vec<Value> = place.run(&list).await.done().json();
    let payloads: Vec<&Value> = letters.iter().map(|letter| &letter["payload"]).collect();
    assert_eq!(payloads, [&json!("1"), &json!("2")]);
    let id = letters[0]["id"].as_str().unwrap();
    let replay = ["dlq", "replay", &url, GROUP, "--id", id];
    let replayed = place.run(&replay).await.done();
    assert_eq!(replayed.text(), "replayed 1 letter(s)\n");
    let purged = place
        .run(&["dlq", "purge", &url, GROUP, "--all"])
        .await
        .done();
    assert_eq!(purged.text(), "dropped 1 letter(s)\n");
    let left: Vec<Value> = place.run(&list).await.done().json();
    assert!(left.is_empty(), "{left:?}");
}

/// A service whose handler gives up everything that comes to its group.
async fn give_up(place: &Place, url: &str, payloads: &[&str]) {
    let config = CommunicationConfig::builder()
        .service_name("mail-service")
        .embedded_path(place.data())
        .message_broker("default", MessageBrokerConfig::from_url(url).unwrap())
        .logging(LoggingConfig::default().with_install(Install::Never))
        .build()
        .unwrap();
    let manager = CommunicationManager::new(config);
    manager.initialize().await.unwrap();
    let messaging = manager.messaging().unwrap();
    let refuse = async |reason: String| Err::<(), _>(HandlerError::dead_letter(reason));
    let subscribing = messaging.subscribe("user.*").group(GROUP).handle(refuse);
    subscribing.await.unwrap();
    for (done, payload) in payloads.iter().enumerate() {
        let published = messaging.publish("user.created", &(*payload).to_owned());
        published.await.unwrap();
        eventually(async || {
            let letters = messaging.dead_letters();
            let page = letters.list(GROUP, &LetterFilter::default(), 0, 10).await;
            page.is_ok_and(|page| page.letters.len() > done)
                .then_some(())
        })
        .await;
    }
    manager.shutdown().await.unwrap();
}
