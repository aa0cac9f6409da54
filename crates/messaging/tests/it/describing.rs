//! The document of what a service says and hears.

use serde_json::{Value, json};
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{MessageBroker, Messaging, Queue, Topic};

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Order {
    id: u64,
    note: Option<String>,
}

const PAID: Topic<Order> = Topic::new("order.paid");
const WORK: Queue<Order> = Queue::new("work");

/// Whether every reference leads somewhere, and the document is as AsyncAPI's own schema has it.
fn check_document(document: &Value) {
    check_references(document, document);
    official::check(document);
}

fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(to)) = members.get("$ref") {
                let pointer = to.strip_prefix('#').expect("it is of this document");
                assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
            }
            members
                .values()
                .for_each(|value| check_references(document, value));
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| check_references(document, value)),
        _ => {}
    }
}

/// The schema that the AsyncAPI Initiative publishes.
#[cfg(feature = "json-schema")]
mod official {
    use serde_json::Value;
    use trunkline_messaging::schema::PayloadSchema;

    pub(super) fn check(document: &Value) {
        let schema = include_str!("../asyncapi/3.0.0.json");
        let schema = PayloadSchema::new(&serde_json::from_str(schema).unwrap()).unwrap();
        if let Err(error) = schema.check(document) {
            panic!("{}\n{document:#}", error.report());
        }
        // It refuses what is none.
        let mut wrong = document.clone();
        wrong["channels"] = "none".into();
        assert!(schema.check(&wrong).is_err());
    }
}

#[cfg(not(feature = "json-schema"))]
mod official {
    pub(super) fn check(_: &serde_json::Value) {}
}

#[tokio::test]
async fn handlers_and_what_is_published_are_described() {
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    let messaging = Messaging::builder(broker).service("shop").build();
    let ship = |_: Order| async {};
    messaging
        .subscribe(PAID)
        .name("ship")
        .handle(ship)
        .await
        .unwrap();
    let any = |_: Value| async {};
    messaging
        .subscribe("order.*")
        .group("audit")
        .handle(any)
        .await
        .unwrap();
    messaging
        .subscribe("a.*.#")
        .group("b")
        .handle(any)
        .await
        .unwrap();
    for _ in 0..2 {
        messaging
            .subscribe("news")
            .alone()
            .handle(any)
            .await
            .unwrap();
    }
    messaging
        .subscribe(WORK)
        .handle(|_: Order| async {})
        .await
        .unwrap();
    let document = messaging
        .asyncapi("1.4.0")
        .with_server("default", "localhost:5672", "amqp")
        .sends(PAID)
        .and_then(|document| document.payload::<Order>("order.*"))
        .unwrap()
        .to_json();
    check_document(&document);
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(document["info"]["title"], "shop");
    assert_eq!(document["servers"]["default"]["protocol"], "amqp");
    let channels = document["channels"].as_object().unwrap();
    let mut addresses: Vec<&str> = Vec::new();
    for channel in channels.values() {
        let address = channel["address"].as_str().unwrap();
        // Every parameter of an address is described.
        let named = address.matches('{').count();
        let described = channel["parameters"]
            .as_object()
            .map_or(0, serde_json::Map::len);
        assert_eq!(named, described, "{address}");
        addresses.push(address);
    }
    addresses.sort_unstable();
    let expected = [
        "a.{word}.{rest2}",
        "news",
        "order.paid",
        "order.{word}",
        "work",
    ];
    assert_eq!(addresses, expected);
    let operations = document["operations"].as_object().unwrap();
    let names: Vec<&str> = operations.keys().map(String::as_str).collect();
    let expected = [
        "receive.a.word.rest2.b",
        "receive.news",
        "receive.news.2",
        "receive.order.paid.shop",
        "receive.order.word.audit",
        "receive.queue.work",
        "send.order.paid",
    ];
    assert_eq!(names, expected);
    let of_ship = &operations["receive.order.paid.shop"];
    assert_eq!(
        (&of_ship["action"], &of_ship["x-group"]),
        (&"receive".into(), &"shop".into())
    );
    assert_eq!(of_ship["summary"], "handled by ship");
    assert_eq!(operations["send.order.paid"]["action"], "send");
    let payload = &document["components"]["messages"]["order.paid"]["payload"];
    assert_eq!(
        payload["schemaFormat"],
        "application/schema+json;version=draft-07"
    );
    assert_eq!(payload["schema"]["required"], serde_json::json!(["id"]));
}

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Basket {
    orders: Vec<Order>,
    inner: Option<Box<Self>>,
}

#[tokio::test]
async fn what_topics_promise_is_in_the_document_and_leads_somewhere() {
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    let messaging = Messaging::builder(broker).service("shop").build();
    let any = |_: Value| async {};
    for topic in ["order.paid", "bill.paid", "basket.#"] {
        messaging.subscribe(topic).handle(any).await.unwrap();
    }
    messaging
        .publishes::<Basket, _>(Topic::<Basket>::new("basket.full"))
        .unwrap();
    let wrong = messaging.publishes::<Basket, _>("basket..full");
    assert_eq!(
        wrong.unwrap_err().kind(),
        trunkline_core::ErrorKind::Invalid
    );
    let of_order = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://example.invalid/order.json",
        "definitions": { "id": { "type": "integer" } },
        "properties": {
            "id": { "$ref": "#/definitions/id" },
            "default": { "$ref": "#/definitions/id" },
            "like": { "$ref": "#" },
            "link": { "const": { "$ref": "#/as-it-is" } },
        },
    });
    let paid = json!({ "required": ["paid_at"], "$defs": {}, "items": { "$ref": "#/$defs" } });
    let document = messaging
        .asyncapi("1.4.0")
        .with_server("default", "localhost", "amqp")
        .describe_server("default", "with a prefix")
        .with_topic(&"order.*".parse().unwrap(), Some(of_order))
        .with_topic(&"*.paid".parse().unwrap(), Some(paid))
        .with_topic(&"news".parse().unwrap(), None)
        .to_json();
    let mut checked = document.clone();
    // What is a value and no reference stays as it is.
    for channel in ["order.word", "order.paid"] {
        let payload = &mut checked["components"]["messages"][channel]["payload"]["schema"];
        let payload = match payload.get_mut("allOf") {
            Some(several) => &mut several[0],
            None => payload,
        };
        let link = payload["properties"]["link"]["const"].take();
        assert_eq!(link, json!({ "$ref": "#/as-it-is" }));
    }
    check_document(&checked);
    let message = |channel: &str| &document["components"]["messages"][channel];
    let schema = |channel: &str| &message(channel)["payload"]["schema"];
    assert_eq!(schema("order.paid")["allOf"].as_array().unwrap().len(), 2);
    assert_eq!(schema("bill.paid")["required"], json!(["paid_at"]));
    assert_eq!(
        message("order.word")["payload"]["schemaFormat"],
        "application/schema+json;version=draft-07"
    );
    assert_eq!(
        message("word.paid")["payload"]["schemaFormat"],
        "application/schema+json;version=draft-2020-12"
    );
    assert!(message("news").get("payload").is_none());
    assert_eq!(message("basket.full")["title"], "Basket");
    assert_eq!(document["operations"]["send.basket.full"]["action"], "send");
    assert_eq!(
        document["servers"]["default"]["description"],
        "with a prefix"
    );
}
