//! Observability: one correlation id through services and messages, metrics to scrape, logs, health.
//!
//! `cargo run -p trunkline-examples --example observability`
#![expect(clippy::print_stdout, reason = "an example shows what it sees")]

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use axum::routing::get;
use axum::{Extension, Router};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use trunkline::http::EnhancedHttpClient;
use trunkline::telemetry::{Format, LogFormat, LogLevel, LogOutput, LoggingConfig, Logs, Metrics};
use trunkline::{Context, CorrelationId};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Logs of the library inside a subscriber of one's own; normally `logging` in the configuration is enough.
    let written = Written::default();
    let logging = LoggingConfig::default().with_format(LogFormat::Json);
    let output = LogOutput::to({
        let written = written.clone();
        move || written.clone()
    });
    let logs = Logs::new(&logging, output.with_service("greeter"));
    tracing_subscriber::registry()
        .with(logs.layer())
        .try_init()?;

    let router = Router::new().route("/id", get(id));
    let service = trunkline_examples::serve(router).await?;
    let metrics = Metrics::new();
    let client = EnhancedHttpClient::builder()
        .base_url(service.url())
        .service("id-service")
        .metrics(&metrics)
        .build()?;

    // The id given at the edge is the one that the other side sees, and every log line has it.
    let order = CorrelationId::accept("order-4711").context("a good id")?;
    let context = Context::new().with_correlation_id(order);
    let seen = context
        .scope(async {
            tracing::info!(target: "greeter", "asking");
            client.get("/id").send().await?.text().await
        })
        .await?;
    ensure!(seen == "order-4711", "the service saw {seen}");
    let lines = written.text();
    ensure!(
        lines.contains("\"correlation_id\":\"order-4711\""),
        "{lines}"
    );
    print!("{lines}");

    // The level can be changed while it runs.
    logs.set_level(LogLevel::Error);
    tracing::info!(target: "greeter", "not written any more");
    ensure!(!written.text().contains("not written any more"));

    // What Prometheus scrapes; services answer it at `/metrics`.
    let text = metrics.render(Format::Prometheus)?;
    let counted = text
        .lines()
        .find(|line| line.starts_with("http_client_request_duration_seconds_count"));
    ensure!(
        counted.is_some_and(|line| line.ends_with(" 1") && line.contains("id-service")),
        "{text}"
    );
    println!("{}", counted.unwrap_or_default());

    // Health of a service, and of each of its parts.
    let health = client.get("/health").fetch::<serde_json::Value>().await?;
    ensure!(health["overall_status"] == "healthy", "{health}");
    println!("{health}");
    service.stop().await
}

async fn id(Extension(context): Extension<Context>) -> String {
    context.correlation_id().to_string()
}

/// Where the example's log goes, so that it can look at it.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
