//! The commands over Redis, by URL, against the real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use trunkline::http::{CacheStatus, HttpClientConfig};
use trunkline::messaging::{HandlerError, LetterFilter, MessageBrokerConfig};
use trunkline::telemetry::{Install, LoggingConfig};
use trunkline::{CommunicationConfig, CommunicationManager};
use trunkline_testing::servers::{self, REDIS, Server};

use crate::place::{Place, eventually};
use crate::upstream::Upstream;

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

#[tokio::test]
async fn what_one_service_was_answered_another_has() {
    let Some((mut server, url)) = server() else {
        return;
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let users = async move || {
        counted.fetch_add(1, Ordering::SeqCst);
        ([("cache-control", "public, max-age=60")], "Ada")
    };
    let upstream = Upstream::of(Router::new().route("/users/1", get(users))).await;
    let fetch = async |tier: String| {
        let place = Place::new();
        let mut users = HttpClientConfig::new(upstream.url());
        users.cache.enabled = Some(true);
        let mut config = CommunicationConfig::builder()
            .service_name("order-service")
            .embedded_path(place.data())
            .http_client("users", users)
            .logging(LoggingConfig::default().with_install(Install::Never))
            .build()
            .unwrap();
        config.response_cache = config.response_cache.with_tier(tier);
        config.response_cache.tier_timeout = Duration::from_secs(20);
        let manager = CommunicationManager::new(config);
        manager.initialize().await.unwrap();
        let client = manager.http_client("users").unwrap();
        let mut told = Vec::new();
        for _ in 0..2 {
            let answer = client.get("/users/1").await.unwrap();
            told.push(answer.cache_status());
            assert_eq!(answer.text().await.unwrap(), "Ada");
        }
        manager.shutdown().await.unwrap();
        told
    };
    let (missed, hit) = (Some(CacheStatus::Miss), Some(CacheStatus::Hit));
    assert_eq!(fetch(url.clone()).await[1], hit);
    // Another process, with a memory of its own.
    assert_eq!(fetch(url.clone()).await, [hit, hit]);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Without the tier each goes on by itself.
    server.kill().unwrap();
    let told = fetch(url).await;
    assert!(
        told[0].is_none_or(|status| Some(status) == missed),
        "{told:?}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
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
