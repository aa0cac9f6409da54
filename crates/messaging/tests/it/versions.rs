//! Payloads of several versions, and those in Protocol Buffers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use trunkline_core::{Error, ErrorKind};
use trunkline_messaging::codec::AnyCodec;
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{
    DeadLetter, HandlerError, LetterFilter, MessageBroker, Messaging, Topic, Upgrades,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    first: String,
    last: String,
    age: Option<u32>,
}

const HIRED: Topic<User> = Topic::new("user.hired");

async fn messaging() -> Messaging {
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    Messaging::builder(broker).service("staff").build()
}

/// The dead letters, once there are so many.
async fn letters(messaging: &Messaging, many: usize) -> Vec<DeadLetter> {
    let letters = messaging.dead_letters();
    let found = async {
        loop {
            let filter = LetterFilter::default();
            match letters.list("staff", &filter, 0, 100).await {
                Ok(page) if page.letters.len() >= many => return page.letters,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), found).await;
    found.expect("they are given up")
}

/// Version 2 split the name; version 3 made the age a number of its own.
fn upgrades() -> Upgrades {
    Upgrades::to(3)
        .step(1, |mut user: Value| {
            let name = user["name"].as_str().map(str::to_owned);
            let name = name.ok_or_else(|| Error::invalid("there is no name"))?;
            let (first, last) = name.split_once(' ').unwrap_or((name.as_str(), ""));
            user["first"] = json!(first);
            user["last"] = json!(last);
            Ok(user)
        })
        .step(2, |mut user| {
            user["age"] = json!(user["age"].as_str().and_then(|age| age.parse::<u32>().ok()));
            Ok(user)
        })
}

fn ada(age: Option<u32>) -> User {
    User {
        first: "Ada".to_owned(),
        last: "Lovelace".to_owned(),
        age,
    }
}

#[tokio::test]
async fn older_payloads_reach_the_handler_as_it_wants_them() {
    let messaging = messaging().await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = move |user: User| {
        sender.send(user).unwrap();
        async {}
    };
    let subscribing = messaging.subscribe(HIRED).upgrades(upgrades());
    subscribing.handle(handler).await.unwrap();
    let publisher = messaging.publisher();
    for codec in [AnyCodec::Json, AnyCodec::MessagePack] {
        let to = || publisher.to::<Value, _>("user.hired").codec(codec);
        // Nobody thought of a second version when this was written.
        let first = json!({"name": "Ada Lovelace", "age": "36"});
        to().send(&first).await.unwrap();
        let second = json!({"first": "Ada", "last": "Lovelace", "age": "unknown"});
        to().schema_version(2).send(&second).await.unwrap();
        let newest = publisher.to(HIRED).codec(codec).schema_version(3);
        newest.send(&ada(Some(37))).await.unwrap();
        for age in [Some(36), None, Some(37)] {
            assert_eq!(seen.recv().await.unwrap(), ada(age), "{codec}");
        }
    }
}

#[tokio::test]
async fn what_no_step_leads_to_is_a_dead_letter_as_it_was_written() {
    let messaging = messaging().await;
    let handler = |_: User| async { Err::<(), _>(HandlerError::reject("it was handled")) };
    let subscribing = messaging.subscribe(HIRED).upgrades(upgrades());
    subscribing.handle(handler).await.unwrap();
    let to = || messaging.publisher().to::<Value, _>("user.hired");
    let newer = json!({"from": "the future"});
    to().schema_version(4).send(&newer).await.unwrap();
    to().header("trunkline-schema-version", "two")
        .send(&newer)
        .await
        .unwrap();
    to().schema_version(0).send(&newer).await.unwrap();
    to().send(&json!({"nameless": true})).await.unwrap();
    for letter in letters(&messaging, 4).await {
        assert_eq!((&*letter.reason, letter.attempts), ("undecodable", 1));
        let payload: Value = serde_json::from_slice(&letter.message.payload).unwrap();
        let as_written = payload == newer || payload == json!({"nameless": true});
        assert!(as_written, "{payload}");
    }
}

#[tokio::test]
async fn newer_payloads_are_read_as_they_are_where_that_was_said() {
    let messaging = messaging().await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = move |user: User| {
        sender.send(user).unwrap();
        async {}
    };
    let subscribing = messaging
        .subscribe(HIRED)
        .upgrades(upgrades().accept_newer());
    subscribing.handle(handler).await.unwrap();
    let newer = json!({"first": "Ada", "last": "Lovelace", "age": 36, "shoe": 38});
    let to = messaging.publisher().to::<Value, _>("user.hired");
    to.schema_version(4).send(&newer).await.unwrap();
    assert_eq!(seen.recv().await.unwrap(), ada(Some(36)));
}

#[tokio::test]
async fn steps_that_cannot_be_right_are_refused_when_it_begins() {
    let messaging = messaging().await;
    for (upgrades, says) in [
        (Upgrades::to(3).step(3, Ok), "no step begins at version 3"),
        (Upgrades::to(3).step(0, Ok), "no step begins at version 0"),
        (Upgrades::to(0), "no step begins at version 0"),
        (Upgrades::to(u32::MAX), "no step begins"),
        (
            Upgrades::to(4).step(1, Ok).step(3, Ok),
            "no step from version 2 to version 3",
        ),
        (
            Upgrades::to(3).step(1, Ok),
            "no step from version 2 to version 3",
        ),
    ] {
        let subscribing = messaging.subscribe(HIRED).upgrades(upgrades);
        let error = subscribing.handle(|_: User| async {}).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[cfg(feature = "protobuf")]
#[tokio::test]
async fn protocol_buffers_travel_and_nothing_else_is_taken_for_them() {
    use trunkline_messaging::Headers;
    use trunkline_messaging::codec::Protobuf;

    const NAMED: Topic<Protobuf<String>> = Topic::new("user.named");
    let messaging = messaging().await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = move |name: Protobuf<String>, headers: Headers| {
        sender
            .send((name.0, headers.get("x").map(str::to_owned)))
            .unwrap();
        async {}
    };
    messaging.subscribe(NAMED).handle(handler).await.unwrap();
    let publisher = messaging.publisher();
    let outgoing = publisher.to(NAMED).header("x", "y");
    outgoing.send_protobuf(&"Ada".to_owned()).await.unwrap();
    let expected = ("Ada".to_owned(), Some("y".to_owned()));
    assert_eq!(seen.recv().await.unwrap(), expected);
    publisher.publish("user.named", "Ada").await.unwrap();
    assert_eq!(letters(&messaging, 1).await[0].reason, "undecodable");
}
