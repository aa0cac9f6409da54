//! What the manager says about itself.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use trunkline_manager::CommunicationManager;

use crate::alone;
use crate::scripted::{Scripted, config, optional_orders};

/// Keeps every line of the target `trunkline::manager`.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<(Level, String)>>>);

impl Captured {
    /// Whether a line of this level has all these words.
    fn has(&self, level: Level, words: &[&str]) -> bool {
        let lines = self.0.lock().unwrap();
        lines
            .iter()
            .any(|(found, line)| *found == level && words.iter().all(|word| line.contains(word)))
    }

    fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Captured {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "trunkline::manager" {
            let mut line = Line(String::new());
            event.record(&mut line);
            self.0
                .lock()
                .unwrap()
                .push((*event.metadata().level(), line.0));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A subscriber of one thread is seen reliably only where no other thread has one.
#[tokio::test(start_paused = true)]
#[ignore = "a process that other tests start"]
async fn the_other_process() {
    match alone::role().as_str() {
        "four kinds" => four_kinds_of_lines().await,
        "recovery" => recovery_and_failed_start().await,
        "callback" => failing_callback().await,
        "debug mode" => debug_mode(),
        other => panic!("there is no role `{other}`"),
    }
}

#[test]
fn x48_the_four_kinds_of_debug_lines() {
    alone::play("logs::the_other_process", "four kinds");
}

#[test]
fn x48_background_recovery_and_a_failed_start_are_told() {
    alone::play("logs::the_other_process", "recovery");
}

#[test]
fn man7_a_failing_callback_is_told() {
    alone::play("logs::the_other_process", "callback");
}

#[test]
fn man11_debug_mode_switches_while_running() {
    alone::play("logs::the_other_process", "debug mode");
}

async fn four_kinds_of_lines() {
    let captured = Captured::default();
    let _guard = tracing::subscriber::set_default(captured.clone());
    let broker = Scripted::default();
    let manager = optional_orders(&broker);
    let component = r#"component="message_broker_orders""#;

    manager.initialize().await.unwrap();
    assert!(captured.has(Level::DEBUG, &["initialising", "components=3"]));
    assert!(captured.has(Level::DEBUG, &["initialising", component]));
    assert!(captured.has(Level::INFO, &["initialised", component]));

    manager.health_check().await;
    assert!(captured.has(Level::DEBUG, &["health check", component, "healthy"]));

    broker.leave();
    manager.health_check().await;
    assert!(captured.has(
        Level::WARN,
        &["health check", component, "connection refused"]
    ));
    captured.clear();
    // The same again is no news, and still there for who looks closely.
    manager.health_check().await;
    assert!(captured.has(
        Level::DEBUG,
        &["health check", component, "connection refused"]
    ));
    assert!(!captured.has(Level::WARN, &[component]));

    manager.reconnect_message_broker("orders").await.unwrap();
    assert!(captured.has(Level::INFO, &["recovery attempt", component]));
    assert!(captured.has(
        Level::DEBUG,
        &["recovery attempt failed", "connection refused"]
    ));
    manager.shutdown().await.unwrap();
    assert!(captured.has(Level::DEBUG, &["stopped", component]));
    assert!(captured.has(Level::INFO, &["stopped", "clean=true"]));
}

async fn recovery_and_failed_start() {
    let captured = Captured::default();
    let _guard = tracing::subscriber::set_default(captured.clone());
    let broker = Scripted::default();
    broker.leave();
    let manager = optional_orders(&broker);
    manager.initialize().await.unwrap();
    assert!(captured.has(
        Level::WARN,
        &["optional part is away", "connection refused"]
    ));
    captured.clear();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(captured.has(Level::DEBUG, &["recovery attempt", "message_broker_orders"]));
    manager.shutdown().await.unwrap();

    let manager = crate::scripted::orders(&broker);
    manager.initialize().await.unwrap_err();
    assert!(captured.has(Level::DEBUG, &["trying again", "again_in=100ms"]));
    assert!(captured.has(
        Level::ERROR,
        &["initialisation failed", "message_broker_orders"]
    ));
}

async fn failing_callback() {
    let captured = Captured::default();
    let _guard = tracing::subscriber::set_default(captured.clone());
    let manager = CommunicationManager::new(config().build().unwrap());
    manager.add_startup_callback(|_| async { Err("no mail server") });
    manager.initialize().await.unwrap();
    assert!(captured.has(
        Level::ERROR,
        &["a callback failed", "startup", "no mail server"]
    ));
    manager.shutdown().await.unwrap();
}

fn debug_mode() {
    use tracing_subscriber::layer::SubscriberExt as _;

    let debug = || tracing::enabled!(target: "trunkline::manager", Level::DEBUG);
    let manager = CommunicationManager::new(config().build().unwrap());
    let subscriber = tracing_subscriber::registry().with(manager.logs().layer());
    tracing::subscriber::with_default(subscriber, || {
        assert!(!debug());
        manager.set_debug_mode(true);
        assert!(debug());
        manager.set_debug_mode(false);
        assert!(!debug());
    });
    let manager = CommunicationManager::new(config().debug_mode(true).build().unwrap());
    let subscriber = tracing_subscriber::registry().with(manager.logs().layer());
    tracing::subscriber::with_default(subscriber, || assert!(debug()));
}
