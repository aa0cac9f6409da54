//! Never over the application's own subscriber. Each case is a process of its own, as the subscriber is global.

use std::process::Command;

use tracing_subscriber::layer::SubscriberExt;
use trunkline_telemetry::{Install, LoggingConfig, Logs};

use crate::logs::Captured;

/// Runs one ignored test of this binary in a process of its own.
fn alone(name: &str) {
    let own = std::env::current_exe().unwrap();
    let run = Command::new(own)
        .args([name, "--exact", "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn auto_installs_where_there_is_none() {
    alone("install::installs");
}

#[test]
#[ignore = "run by auto_installs_where_there_is_none in a process of its own"]
fn installs() {
    let captured = Captured::default();
    let logs = Logs::new(&LoggingConfig::default(), captured.output());
    assert!(logs.install());
    tracing::info!("written");
    assert!(captured.take().contains("written"));
    let later = Logs::new(&LoggingConfig::default(), captured.output());
    assert!(!later.install(), "the first stays");
}

#[test]
fn auto_leaves_the_applications_own() {
    alone("install::leaves");
}

#[test]
#[ignore = "run by auto_leaves_the_applications_own in a process of its own"]
fn leaves() {
    let application = Captured::default();
    let own = application.clone();
    let theirs = tracing_subscriber::fmt::layer().with_writer(move || own.clone());
    let subscriber = tracing_subscriber::registry().with(theirs);
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let captured = Captured::default();
    assert!(!Logs::new(&LoggingConfig::default(), captured.output()).install());
    tracing::info!("theirs");
    assert_eq!(captured.take(), "");
    assert!(application.take().contains("theirs"));
}

#[test]
fn never_is_never() {
    alone("install::stays_out");
}

#[test]
#[ignore = "run by never_is_never in a process of its own"]
fn stays_out() {
    let config = LoggingConfig::default().with_install(Install::Never);
    assert!(!Logs::new(&config, Captured::default().output()).install());
    assert!(!tracing::dispatcher::has_been_set());
}
