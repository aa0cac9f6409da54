//! Configurations as the guides that Trunkline grew out of print them load with the values printed there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::entry::{Entry, Options};
use crate::report::{Report, Table};

pub(super) static ENTRY: Entry = Entry {
    name: "seed-configs",
    about: "The printed communication.yaml, settings.toml and environment load with their values; a file with eight mistakes reports eight.",
    run,
};

/// Texts kept beside the tests of the reader: exactly as they were printed.
const YAML: &str = include_str!("../../../crates/manager/tests/it/config/texts/communication.yaml");
const TOML: &str = include_str!("../../../crates/manager/tests/it/config/texts/settings.toml");
const ENVIRONMENT: &str =
    include_str!("../../../crates/manager/tests/it/config/texts/environment.sh");

/// One mistake a line, each of another sort.
const EIGHT_MISTAKES: &str = "\
communication:
  message_broker:
    type: rabitmq
    prot: 5672
    prefetch_count: many
  http_client:
    base_url: api.example.com
    timeout: soon
    circuit_breaker:
      failure_threshold: 0
  logging:
    level: LOUD
  service_discovry:
    type: consul
";

#[derive(Deserialize)]
struct Setting {
    path: String,
    value: String,
}

fn run(options: &Options) -> Result<Report> {
    let trunkline = options.trunkline()?;
    let scratch = Scratch::new()?;
    let mut report = Report::new();
    let yaml = scratch.write("communication.yaml", YAML)?;
    let shown = show(&trunkline, &scratch, Some(&yaml), &[])?;
    compare(
        &mut report,
        "communication.yaml",
        &shown,
        &[
            ("message_brokers.default.type", "rabbitmq"),
            (
                "message_brokers.default.connection.host",
                "rabbitmq.example.com",
            ),
            ("message_brokers.default.connection.port", "5672"),
            (
                "message_brokers.default.connection.username",
                "service_user",
            ),
            ("message_brokers.default.connection.ssl_enabled", "true"),
            ("http_clients.default.base_url", "https://api.example.com"),
            ("http_clients.default.timeout.connection", "10s"),
            ("http_clients.default.timeout.read", "30s"),
            ("http_clients.default.circuit_breaker.enabled", "true"),
            (
                "http_clients.default.circuit_breaker.failure_threshold",
                "5",
            ),
            ("service_discovery.type", "consul"),
            ("service_discovery.connection.host", "consul.example.com"),
            ("service_discovery.connection.port", "8500"),
            ("logging.level", "info"),
            ("logging.format", "json"),
            ("logging.correlation_header", "X-Correlation-ID"),
            ("logging.enable_security_logging", "true"),
        ],
    );
    let toml = scratch.write("settings.toml", TOML)?;
    let shown = show(&trunkline, &scratch, Some(&toml), &[])?;
    compare(
        &mut report,
        "settings.toml",
        &shown,
        &[
            ("services.user-service.host", "localhost"),
            ("services.user-service.port", "8001"),
            ("services.user-service.timeout.total", "30s"),
            ("services.user-service.circuit_breaker.enabled", "true"),
            ("services.user-service.retry.max_attempts", "3"),
            ("services.payment-service.host", "payments.example.com"),
            ("services.payment-service.port", "443"),
            ("services.payment-service.protocol", "https"),
            ("services.payment-service.timeout.total", "1m"),
            ("services.payment-service.circuit_breaker.enabled", "true"),
            (
                "services.payment-service.circuit_breaker.failure_threshold",
                "3",
            ),
        ],
    );
    let shown = show(&trunkline, &scratch, None, &variables(ENVIRONMENT))?;
    compare(
        &mut report,
        "the environment",
        &shown,
        &[
            ("message_brokers.default.type", "rabbitmq"),
            (
                "message_brokers.default.connection.host",
                "rabbitmq.example.com",
            ),
            (
                "message_brokers.default.connection.username",
                "service_user",
            ),
            ("message_brokers.default.connection.password", "********"),
            ("http_clients.default.base_url", "https://api.example.com"),
            ("http_clients.default.timeout.total", "30s"),
            ("http_clients.default.retry.max_attempts", "4"),
            ("service_discovery.type", "consul"),
            ("service_discovery.connection.host", "consul.example.com"),
            ("service_discovery.connection.port", "8500"),
            ("logging.level", "info"),
            ("logging.format", "json"),
            ("logging.correlation_header", "X-Correlation-ID"),
        ],
    );
    mistakes(&mut report, &trunkline, &scratch)?;
    Ok(report)
}

fn compare(report: &mut Report, what: &str, shown: &[Setting], expected: &[(&str, &str)]) {
    let found = |path: &str| shown.iter().find(|setting| setting.path == path);
    let wrong: Vec<String> = expected
        .iter()
        .filter_map(|(path, value)| match found(path) {
            Some(setting) if setting.value == *value => None,
            Some(setting) => Some(format!("{path} is {}, not {value}", setting.value)),
            None => Some(format!("{path} is not set")),
        })
        .collect();
    let seen = if wrong.is_empty() {
        format!("{} values", expected.len())
    } else {
        wrong.join("; ")
    };
    report.check(
        format!("{what} loads with its values"),
        wrong.is_empty(),
        seen,
    );
}

fn mistakes(report: &mut Report, trunkline: &Path, scratch: &Scratch) -> Result<()> {
    let file = scratch.write("mistakes.yaml", EIGHT_MISTAKES)?;
    let checked = command(trunkline, scratch, &[])
        .args(["config", "check"])
        .arg(&file)
        .output()?;
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    let mut lines = Table::new("config check of a file with eight mistakes", ["line"]);
    let errors: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains(": warning: "))
        .collect();
    for line in &errors {
        // Without the directory of this run.
        let shown = line.find("mistakes.yaml:").and_then(|at| line.get(at..));
        lines.row([shown.unwrap_or(line).to_owned()]);
    }
    report.table(lines);
    report.check(
        "eight mistakes are reported",
        errors.len() == 8,
        format!("{} lines", errors.len()),
    );
    let placed = errors
        .iter()
        .filter(|line| line.contains("mistakes.yaml:"))
        .count();
    report.check(
        "each with its file and line",
        placed == errors.len(),
        format!("{placed} of {}", errors.len()),
    );
    let meant = errors
        .iter()
        .filter(|line| line.contains("did you mean"))
        .count();
    report.check(
        "near misses say what was probably meant",
        meant >= 3,
        format!("{meant} of them"),
    );
    report.check(
        "the exit code says that it is wrong",
        checked.status.code() == Some(2),
        checked.status.to_string(),
    );
    Ok(())
}

fn show(
    trunkline: &Path,
    scratch: &Scratch,
    file: Option<&Path>,
    variables: &[(String, String)],
) -> Result<Vec<Setting>> {
    let mut command = command(trunkline, scratch, variables);
    command.args(["--output", "json", "config", "show"]);
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.output()?;
    serde_json::from_slice(&stdout).with_context(|| {
        format!(
            "config show ended with {status}: {}",
            String::from_utf8_lossy(&stderr)
        )
    })
}

/// With no variables but these: those of whoever runs the proof must not decide.
fn command(trunkline: &Path, scratch: &Scratch, variables: &[(String, String)]) -> Command {
    let mut command = Command::new(trunkline);
    command
        .env_clear()
        .envs(variables.iter().cloned())
        .current_dir(&scratch.0);
    command
}

fn variables(text: &str) -> Vec<(String, String)> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("trunkline-configs-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
