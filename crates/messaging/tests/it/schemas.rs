//! Payloads that keep a JSON Schema, where they are published and where they are handled.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use trunkline_core::ErrorKind;
use trunkline_messaging::codec::AnyCodec;
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::schema::{PayloadSchema, SchemaConfig, SchemaViolation};
use trunkline_messaging::{
    Destination, LetterFilter, MessageBroker, Messaging, MessagingBuilder, Upgrades,
};

#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "its schema is used")]
struct Order {
    #[schemars(range(min = 1))]
    id: u64,
    items: Vec<Item>,
}

#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "its schema is used")]
struct Item {
    name: String,
}

async fn builder() -> MessagingBuilder {
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    Messaging::builder(broker).service("shop")
}

fn schema() -> PayloadSchema {
    PayloadSchema::of::<Order>().unwrap()
}

fn sound() -> Value {
    json!({"id": 1, "items": [{"name": "tea"}]})
}

#[tokio::test]
async fn what_breaks_the_schema_of_its_topic_is_not_published() {
    let messaging = builder().await.schema("order.*", schema()).unwrap().build();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = move |order: Value| {
        sender.send(order).unwrap();
        async {}
    };
    messaging
        .subscribe("#")
        .group("all")
        .handle(handler)
        .await
        .unwrap();
    let wrong = json!({"id": 0, "items": [{"name": "tea"}, {"name": 7}]});
    for codec in [AnyCodec::Json, AnyCodec::MessagePack] {
        let to = |topic: &'static str| messaging.to::<Value, _>(topic).codec(codec);
        let error = to("order.paid").send(&wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let found = error.find::<SchemaViolation>().unwrap();
        let mut places: Vec<&str> = found.places.iter().map(|(place, _)| &**place).collect();
        places.sort_unstable();
        assert_eq!(places, ["/id", "/items/1/name"]);
        assert!(error.report().to_string().contains("order.paid"));
        to("order.paid").send(&sound()).await.unwrap();
        assert_eq!(seen.recv().await.unwrap(), sound(), "{codec}");
        to("bill.paid").send(&wrong).await.unwrap();
        assert_eq!(seen.recv().await.unwrap(), wrong, "no schema is its own");
    }
    let batch = messaging
        .publisher()
        .publish_batch("order.paid", &[sound(), wrong]);
    let outcomes = batch.await;
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), ErrorKind::Invalid);
    // What is no JSON at all keeps no schema of it.
    let raw = messaging.to::<Value, _>("order.paid");
    let error = raw.send_bytes("<xml/>".into(), Some("text/xml")).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn what_breaks_the_schema_of_its_handler_is_a_dead_letter() {
    let messaging = builder().await.build();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = move |order: Value| {
        sender.send(order).unwrap();
        async {}
    };
    // Of the first version `number` was the id.
    let upgrades = Upgrades::to(2).step(1, |mut order: Value| {
        order["id"] = order["number"].take();
        Ok(order)
    });
    let subscribing = messaging
        .subscribe("order.*")
        .upgrades(upgrades)
        .schema(schema());
    subscribing.handle(handler).await.unwrap();
    let to = || messaging.to::<Value, _>("order.paid");
    to().schema_version(2)
        .send(&json!({"id": 1}))
        .await
        .unwrap();
    let old = json!({"number": 1, "items": []});
    to().send(&old).await.unwrap();
    let handled = seen.recv().await.unwrap();
    assert_eq!(handled["id"], 1);
    let letters = messaging.dead_letters();
    let given_up = async {
        loop {
            let filter = LetterFilter::default();
            match letters.list("shop", &filter, 0, 10).await {
                Ok(page) if !page.letters.is_empty() => return page.letters,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let given_up = tokio::time::timeout(Duration::from_secs(20), given_up).await;
    let given_up = given_up.expect("it is given up");
    assert_eq!((given_up.len(), &*given_up[0].reason), (1, "undecodable"));
    assert!(given_up[0].error.contains("items"), "{}", given_up[0].error);
}

#[tokio::test]
async fn documents_that_are_no_schema_are_refused() {
    for document in [
        json!({"type": "strnig"}),
        json!({"$ref": "https://example.invalid/order.json"}),
        json!({"$ref": "#/nowhere"}),
        json!(7),
    ] {
        let error = PayloadSchema::new(&document).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{document}");
    }
    let pattern = builder().await.schema("order..paid", schema());
    assert_eq!(pattern.unwrap_err().kind(), ErrorKind::Invalid);
}

/// A schema as a configuration has it.
fn written(schema: Value) -> SchemaConfig {
    serde_json::from_value(schema).unwrap()
}

#[tokio::test]
async fn the_schema_of_a_topic_holds_at_both_edges() {
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("order.json");
    let of_order = schemars::schema_for!(Order);
    std::fs::write(&file, of_order.as_value().to_string()).unwrap();
    let messaging = Messaging::builder(broker.clone())
        .service("shop")
        .topic_schema(
            &"order.*".parse().unwrap(),
            &written(json!(file.to_str().unwrap())),
        )
        .and_then(|builder| {
            let noted = json!({ "required": ["note"] });
            builder.topic_schema(&"order.noted".parse().unwrap(), &written(noted))
        })
        .unwrap()
        .build();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = move |order: Value, to: Destination| {
        sender.send((to.name().to_string(), order)).unwrap();
        async {}
    };
    // Of the first version `number` was the id: what the handler takes is checked, not what was published.
    let upgrades = Upgrades::to(2).step(1, |mut order: Value| {
        if let Some(number) = order.get("number").cloned() {
            order["id"] = number;
        }
        Ok(order)
    });
    messaging
        .subscribe("#")
        .upgrades(upgrades)
        .handle(handler)
        .await
        .unwrap();
    let wrong = json!({"id": 0, "items": []});
    let error = messaging.publish("order.paid", &wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = messaging.publish("order.noted", &sound()).await;
    assert!(error.unwrap_err().report().to_string().contains("note"));
    // Somebody else promises nothing.
    let other = Messaging::new(broker);
    let old = json!({"number": 3, "items": []});
    for (topic, body) in [
        ("order.paid", &wrong),
        ("order.noted", &sound()),
        ("order.paid", &old),
        ("bill.paid", &wrong),
    ] {
        other.publish(topic, body).await.unwrap();
    }
    let mut handled = Vec::new();
    for _ in 0..2 {
        let seen = tokio::time::timeout(Duration::from_secs(20), seen.recv()).await;
        handled.push(seen.unwrap().unwrap());
    }
    handled.sort_by(|one, next| one.0.cmp(&next.0));
    assert_eq!(handled[0], ("bill.paid".to_owned(), wrong));
    assert_eq!(
        (&*handled[1].0, &handled[1].1["id"]),
        ("order.paid", &json!(3))
    );
    let letters = messaging.dead_letters();
    let given_up = async {
        loop {
            let filter = LetterFilter::default();
            match letters.list("shop", &filter, 0, 10).await {
                Ok(page) if page.letters.len() == 2 => return page.letters,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let given_up = tokio::time::timeout(Duration::from_secs(20), given_up).await;
    for letter in given_up.expect("both are given up") {
        assert_eq!(&*letter.reason, "undecodable");
    }
    assert!(seen.try_recv().is_err(), "no handler saw them");
}

#[test]
fn a_schema_that_cannot_be_used_says_where_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        written(json!(path.to_str().unwrap()))
    };
    let missing = directory.path().join("missing.json");
    for (schema, says) in [
        (
            written(json!(missing.to_str().unwrap())),
            &["missing.json", "does not exist"][..],
        ),
        (
            written(json!("order.json")),
            &["`order.json` does not exist", "working directory"],
        ),
        (
            written(json!(directory.path().to_str().unwrap())),
            &["cannot be read"],
        ),
        (
            file("a.json", "{\n \"type\": }"),
            &["a.json", "no JSON", "line 2"],
        ),
        (
            file(
                "b.json",
                "{\"properties\": {\"id\": {\"type\": \"strnig\"}}}",
            ),
            &["b.json", "/properties/id/type", "strnig"],
        ),
        (file("c.json", "7"), &["c.json"]),
        (written(json!({"type": "strnig"})), &["/type", "strnig"]),
        (
            written(json!({"$ref": "https://example.invalid/order.json"})),
            &["example.invalid"],
        ),
    ] {
        let problem = schema.problem().expect("it cannot be used");
        for part in says {
            assert!(problem.contains(part), "{part} in {problem}");
        }
        let builder = Messaging::builder(MemoryBroker::default().erase());
        let error = builder.topic_schema(&"order.*".parse().unwrap(), &schema);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("order.*"), "{error}");
    }
    assert_eq!(file("d.json", "{\"type\": \"object\"}").problem(), None);
    assert_eq!(written(json!({"type": "object"})).problem(), None);
    for wrong in [json!(7), json!(["order.json"]), json!("")] {
        let error = serde_json::from_value::<SchemaConfig>(wrong).unwrap_err();
        assert!(error.to_string().contains("the path of a file"), "{error}");
    }
}
