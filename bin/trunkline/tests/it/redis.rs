//! The commands over Redis, by URL, against the real server.

use serde_json::{Value, json};
use trunkline::messaging::{HandlerError, LetterFilter, MessageBrokerConfig};
use trunkline::telemetry::{Install, LoggingConfig};
use trunkline::{CommunicationConfig, CommunicationManager};
use trunkline_testing::servers::{self, REDIS, Server};

use crate::place::{Place, eventually};

const GROUP: &str = "mailer";

fn server() -> Option<(Server, String)> {
    let server = servers::own(&REDIS)?;
    let url = format!("{}/15", server.url());
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
async fn a_server_that_is_not_there_is_said_by_name() {
    let Some((mut server, url)) = server() else {
        return;
    };
    server.kill().unwrap();
    let place = Place::new();
    let outcome = place
        .run(&["publish", &url, "a.b", "1", "--timeout", "2s"])
        .await;
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stderr.contains("cannot be reached"),
        "{}",
        outcome.stderr
    );
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
    let shown = place.run(&["dlq", "show", &url, GROUP, id]).await.done();
    assert!(
        shown.text().contains("topic     user.created"),
        "{}",
        shown.text()
    );
    let replayed = place
        .run(&["dlq", "replay", &url, GROUP, "--id", id])
        .await
        .done();
    assert_eq!(replayed.text(), "replayed 1 letter(s)\n");
    let purged = place
        .run(&["dlq", "purge", &url, GROUP, "--all"])
        .await
        .done();
    assert_eq!(purged.text(), "dropped 1 letter(s)\n");
    assert!(
        place
            .run(&list)
            .await
            .done()
            .json::<Vec<Value>>()
            .is_empty()
    );
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
