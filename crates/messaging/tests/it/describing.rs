//! The document of what a service says and hears.

use serde_json::Value;
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{MessageBroker, Messaging, Queue, Topic};

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Order {
    id: u64,
    note: Option<String>,
}

const PAID: Topic<Order> = Topic::new("order.paid");
const WORK: Queue<Order> = Queue::new("work");

/// Whether every reference leads somewhere.
fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(to)) = members.get("$ref") {
                let pointer = to.strip_prefix('#').expect("it is of this document");
                // `definitions` of a schema are its own.
                if !pointer.starts_with("/definitions") {
                    assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
                }
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
    check_references(&document, &document);
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
    println!("{document}");
}
