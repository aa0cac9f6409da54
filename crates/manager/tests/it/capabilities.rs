//! The table of what each broker can do, in the guide, made of what they declare.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;
use trunkline_manager::backends::open_broker;
use trunkline_messaging::{MessageBroker as _, MessageBrokerConfig};

/// Between these lines of the guide.
const BEGIN: &str = "<!-- capabilities: written by `cargo xtask capability-table` -->\n";
const END: &str = "<!-- end of capabilities -->\n";

/// Column and URL. Nothing is connected.
const BROKERS: [(&str, &str); 9] = [
    ("memory", "memory:"),
    ("embedded", "embedded:"),
    ("RabbitMQ", "amqp://localhost"),
    ("Kafka", "kafka://localhost"),
    ("Redis Streams", "redis://localhost"),
    ("Redis Pub/Sub", "redis://localhost?mode=pubsub"),
    ("JetStream", "nats://localhost"),
    ("core NATS", "nats://localhost?mode=core"),
    (
        "RabbitMQ, classic queues",
        "amqp://localhost?queue_type=classic",
    ),
];

/// Field and what it says.
const ROWS: [(&str, &str); 19] = [
    ("durable", "what is confirmed survives a restart"),
    ("shared", "other processes see the messages"),
    ("groups", "groups whose members compete"),
    ("wildcards", "`*` and `#` in subscriptions"),
    ("queues", "queues beside topics"),
    ("redelivery", "at least once (else at most once)"),
    ("attempts", "attempts counted by the broker"),
    ("delayed_redelivery", "again after a delay"),
    ("delayed_publish", "publish for later"),
    ("expiry", "messages expire"),
    ("mandatory", "what nobody wants can be refused"),
    ("replay", "a new group may start earlier"),
    ("lease_extension", "leases that can be extended"),
    ("atomic_forward", "acknowledge and publish in one step"),
    ("browse", "look at what is stored, and at all queues"),
    ("peek", "look at what waits in a queue"),
    ("lag", "how many messages wait for a group"),
    ("ordering", "order of messages with one key"),
    (
        "max_message_size",
        "largest message, as configured by default",
    ),
];

fn table() -> String {
    let mut columns = Vec::new();
    for (name, url) in BROKERS {
        let config = MessageBrokerConfig::from_url(url).unwrap();
        let declared = open_broker(&config).unwrap().capabilities();
        let declared = serde_json::to_value(declared).unwrap();
        let known: BTreeSet<&str> = ROWS.iter().map(|(field, _)| *field).collect();
        let fields = declared.as_object().unwrap().keys();
        let fields: BTreeSet<&str> = fields.map(String::as_str).collect();
        assert_eq!(fields, known, "a row for every capability");
        columns.push((name, declared));
    }
    // Both kinds of RabbitMQ's queues are one column, for as long as they can do the same.
    let classic = columns.pop().unwrap();
    let quorum = columns.iter().find(|(name, _)| *name == "RabbitMQ");
    assert_eq!(quorum.unwrap().1, classic.1, "it needs a column of its own");

    let mut text = String::from("| |");
    for (name, _) in &columns {
        write!(text, " {name} |").unwrap();
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(columns.len()));
    text.push('\n');
    for (field, meaning) in ROWS {
        write!(text, "| {meaning} |").unwrap();
        for (_, declared) in &columns {
            write!(text, " {} |", cell(field, &declared[field])).unwrap();
        }
        text.push('\n');
    }
    text
}

fn cell(field: &str, value: &Value) -> String {
    match (field, value) {
        (_, Value::Bool(true)) => "yes".to_owned(),
        (_, Value::Bool(false)) => String::new(),
        ("ordering", Value::String(order)) => match order.as_str() {
            "per_key" => "kept".to_owned(),
            _ => String::new(),
        },
        (_, Value::Null) => "no limit".to_owned(),
        (_, Value::Number(bytes)) => {
            let bytes = bytes.as_u64().unwrap();
            match bytes % (1 << 20) {
                0 => format!("{} MiB", bytes >> 20),
                _ => format!("{bytes} B"),
            }
        }
        (_, other) => panic!("{field} is {other}"),
    }
}

fn guide() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/messaging.md")
}

/// The guide before the table, the table, and what comes behind it.
fn parts(text: &str) -> (&str, &str, &str) {
    let (before, rest) = text.split_once(BEGIN).expect("the table has a place");
    let (table, behind) = rest.split_once(END).expect("the table has an end");
    (before, table, behind)
}

#[tokio::test]
async fn the_guide_shows_what_the_brokers_declare() {
    let text = fs::read_to_string(guide()).unwrap();
    let (_, written, _) = parts(&text);
    assert!(
        written.trim() == table().trim(),
        "the table in docs/guide/messaging.md is not what the brokers declare; run `cargo xtask capability-table`\n{}",
        table()
    );
}

#[tokio::test]
#[ignore = "writes; for `cargo xtask capability-table`"]
async fn write_the_table() {
    let text = fs::read_to_string(guide()).unwrap();
    let (before, _, behind) = parts(&text);
    let table = table();
    fs::write(guide(), format!("{before}{BEGIN}\n{table}\n{END}{behind}")).unwrap();
}
