//! What is written, and how that changes while the process runs.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use trunkline_core::{Context, CorrelationId, ManualClock, Secret, Timestamp};
use trunkline_telemetry::{LogFormat, LogLevel, LogOutput, LoggingConfig, Logs};

#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    pub(crate) fn output(&self) -> LogOutput {
        let own = self.clone();
        let at: Timestamp = "2025-01-09T10:30:00.25Z".parse().unwrap();
        LogOutput::to(move || own.clone())
            .with_service("orders")
            .with_clock(Arc::new(ManualClock::new(at)))
    }

    pub(crate) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        let text = self.take();
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

fn logs(config: &LoggingConfig) -> (Captured, Logs) {
    let captured = Captured::default();
    let logs = Logs::new(config, captured.output());
    (captured, logs)
}

fn with(logs: &Logs, work: impl FnOnce()) {
    tracing::subscriber::with_default(registry().with(logs.layer()), work);
}

#[test]
fn a_json_line_has_every_field() {
    let (captured, logs) = logs(&LoggingConfig::default());
    let context = Context::with_id(CorrelationId::accept("abc-1").unwrap());
    with(&logs, || {
        context.sync_scope(|| {
            let outer =
                tracing::info_span!("request", method = "GET", status = tracing::field::Empty);
            let _entered = outer.enter();
            outer.record("status", 200);
            tracing::info!(target: "trunkline::call", service = "users", ratio = 0.5, ok = true,
                count = 3, not = f64::NAN, "called \"it\"\n{}", "\u{1}ü");
        });
    });
    let expected = serde_json::json!({
        "timestamp": "2025-01-09T10:30:00.25Z",
        "level": "INFO",
        "target": "trunkline::call",
        "message": "called \"it\"\n\u{1}ü",
        "service": "orders",
        "correlation_id": "abc-1",
        "trace_id": context.trace().trace_id().to_string(),
        "span_id": context.trace().span_id().to_string(),
        "fields": {"service": "users", "ratio": 0.5, "ok": true, "count": 3, "not": null},
        "spans": [{"name": "request", "method": "GET", "status": 200}],
    });
    assert_eq!(captured.json(), expected);
}

#[test]
fn ids_that_the_event_names_win() {
    let (captured, logs) = logs(&LoggingConfig::default());
    with(&logs, || {
        tracing::info!(correlation_id = "mine", "without a scope");
    });
    let line = captured.json();
    assert_eq!(line["correlation_id"], "mine");
    assert_eq!(line.get("trace_id"), None);
    assert_eq!(line.get("fields"), None);
}

#[test]
fn secrets_do_not_show() {
    for format in [LogFormat::Json, LogFormat::Pretty] {
        let (captured, logs) = logs(&LoggingConfig::default().with_format(format));
        with(&logs, || {
            let error = io::Error::other("cannot reach redis://user:hunter2@cache:6379");
            let secret = Secret::new("hunter2".to_owned());
            tracing::info_span!("login", password = "hunter2").in_scope(|| {
                tracing::info!(
                    db_password = "hunter2",
                    Authorization = "Bearer hunter2",
                    url = "amqp://guest:hunter2@mq/",
                    error = &error as &dyn std::error::Error,
                    ?secret,
                    "to http://me:hunter2@x"
                );
            });
        });
        let text = captured.take();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("amqp://***@mq/"), "{text}");
    }
}

#[test]
fn a_pretty_line_is_one_line_without_control_characters() {
    let config = LoggingConfig::default().with_format(LogFormat::Pretty);
    let (captured, logs) = logs(&config);
    let context = Context::with_id(CorrelationId::accept("0123456789").unwrap());
    with(&logs, || {
        context.sync_scope(|| tracing::warn!(target: "demo", path = "a\u{1b}[31m\nb", "odd\rpath"));
    });
    let expected = "10:30:00.250  WARN demo odd\\rpath path=a\\u{1b}[31m\\nb [23456789]\n";
    assert_eq!(captured.take(), expected);
}

#[test]
fn colour_only_where_asked() {
    let config = LoggingConfig::default().with_format(LogFormat::Pretty);
    let captured = Captured::default();
    let logs = Logs::new(&config, captured.output().with_color(true));
    with(&logs, || tracing::info!("painted"));
    assert!(captured.take().contains("\u{1b}[32m INFO"));
}

#[test]
fn auto_is_pretty_for_people_and_json_for_machines() {
    for (people, starts) in [(true, "10:30"), (false, "{")] {
        let captured = Captured::default();
        let output = captured.output().for_people(people);
        with(&Logs::new(&LoggingConfig::default(), output), || {
            tracing::info!("hello")
        });
        assert!(captured.take().starts_with(starts));
    }
}

fn one_of_each(captured: &Captured) -> Vec<String> {
    tracing::info!(target: "app", "app-info");
    tracing::debug!(target: "app", "app-debug");
    tracing::info!(target: "trunkline::call", "call-info");
    tracing::debug!(target: "trunkline::call", "call-debug");
    tracing::warn!(target: "trunkline::security", "security");
    let mut seen = Vec::new();
    for line in captured.take().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        seen.push(line["message"].as_str().unwrap().to_owned());
    }
    seen
}

#[test]
fn levels_change_while_it_runs() {
    let config = LoggingConfig::default().with_level(LogLevel::Warn);
    let (captured, logs) = logs(&config);
    with(&logs, || {
        assert_eq!(one_of_each(&captured), ["security"]);
        logs.set_level(LogLevel::Debug);
        assert_eq!(logs.level(), LogLevel::Debug);
        let all = [
            "app-info",
            "app-debug",
            "call-info",
            "call-debug",
            "security",
        ];
        assert_eq!(one_of_each(&captured), all);
        logs.set_level(LogLevel::Info);
        logs.set_target_level("trunkline::call", Some(LogLevel::Off));
        assert_eq!(one_of_each(&captured), ["app-info", "security"]);
        logs.set_target_level("trunkline::call", None);
        logs.set_debug(true);
        assert_eq!(
            one_of_each(&captured),
            ["app-info", "call-info", "call-debug", "security"]
        );
        logs.set_debug(false);
        logs.set_level(LogLevel::Off);
        assert_eq!(one_of_each(&captured), ["security"]);
        logs.set_security(false);
        assert!(one_of_each(&captured).is_empty());
    });
}

#[test]
fn two_layers_follow_the_same_level() {
    let (captured, logs) = logs(&LoggingConfig::default());
    let both = registry().with(logs.layer()).with(logs.layer());
    tracing::subscriber::with_default(both, || {
        assert_eq!(one_of_each(&captured).len(), 6);
        logs.set_level(LogLevel::Error);
        assert_eq!(one_of_each(&captured), ["security", "security"]);
    });
}
