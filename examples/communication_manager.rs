//! The manager: one configuration, everything by name, one orderly end.
//!
//! `cargo run -p trunkline-examples --example communication_manager`
#![expect(clippy::print_stdout, reason = "an example shows what it sees")]

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use trunkline::events::{Event, EventStore as _, ExpectedVersion, ReadStream, StreamName};
use trunkline::messaging::HandlerError;
use trunkline::{CommunicationConfig, CommunicationManager, ErrorKind};

const COMMUNICATION: &str = "
service: { name: order-service }
embedded: { path: DATA }
message_brokers:
  default: { type: embedded }
  audit: { type: memory }
event_store: { type: memory }
logging: { level: WARNING }
";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("communication.yaml");
    let data = directory.path().join("data");
    fs::write(
        &file,
        COMMUNICATION.replace("DATA", &data.display().to_string()),
    )?;

    let config = CommunicationConfig::from_file(&file)?;
    let (seen, stored) = CommunicationManager::new(config).lifespan(work).await?;
    ensure!(seen == json!({ "id": 7 }), "heard {seen}");
    ensure!(stored == 1, "{stored} events");
    println!("heard {seen}, {stored} event stored");

    // All mistakes at once, each with its place.
    fs::write(
        &file,
        "message_broker: { type: rabbitmqq }\nhttp_client: { timeout: soon }\n",
    )?;
    let refused = CommunicationConfig::from_file(&file)
        .err()
        .context("a wrong file was accepted")?;
    ensure!(refused.kind() == ErrorKind::Config);
    println!("{}", refused.report());
    Ok(())
}

/// What runs between the start and the end of the manager.
async fn work(manager: CommunicationManager) -> trunkline::Result<(Value, usize)> {
    let (sender, mut heard) = mpsc::unbounded_channel();
    let handler = move |message: Value| {
        let sent = sender.send(message).map_err(HandlerError::retry);
        async move { sent }
    };
    manager
        .subscribe_to_topic("default", "order.created", handler)
        .await?;
    manager
        .publish_message("default", "order.created", &json!({ "id": 7 }))
        .await?;
    let seen = heard.recv().await.unwrap_or_default();

    let store = manager.event_store()?;
    let stream = StreamName::of("order", "7")?;
    let created = Event::new("order.created", "7", &seen)?;
    store
        .append(&stream, ExpectedVersion::NoStream, vec![created])
        .await?;
    let stored = store.read_stream(ReadStream::new(stream)).await?;

    for broker in manager.list_message_brokers() {
        println!("{} is {}", broker.name, broker.broker_type);
    }
    let health = manager.health_check().await;
    for (name, component) in &health.components {
        println!("{name}: {}", component.status);
    }
    Ok((seen, stored.len()))
}
