//! The configuration of the demo's members: embedded defaults, and what a demo wants to happen sooner than usual.

use std::path::Path;
use std::time::Duration;

use trunkline::discovery::ServiceConfig;
use trunkline::events::{EventStoreConfig, RelayConfig};
use trunkline::gateway::GatewayConfig;
use trunkline::resilience::config::{CircuitBreakerConfig, RetryConfig};
use trunkline::server::ServerConfig;
use trunkline::telemetry::{LogFormat, LoggingConfig};
use trunkline::{CommunicationConfig, Result};

use super::members::Member;
use super::system::data_dir;

/// Long enough to see an open circuit, short enough to wait for it.
const RECOVERY: Duration = Duration::from_secs(2);

/// What one member runs with.
pub(crate) fn of(member: Member, dir: &Path, port: u16) -> Result<CommunicationConfig> {
    let config = CommunicationConfig::builder()
        .service_name(member.service())
        .embedded_path(data_dir(dir))
        .logging(LoggingConfig::default().with_format(LogFormat::Json))
        .server(ServerConfig::default().with_listen("127.0.0.1", port))
        .health_interval(Duration::from_millis(500))
        .drain_timeout(Duration::from_secs(5));
    match member {
        Member::Users | Member::Payments | Member::Notifications => config,
        Member::Orders => config
            .service("user-service", impatient())
            .service("payment-service", impatient())
            .event_store(EventStoreConfig::new("embedded").with_relay(RelayConfig::default())),
        Member::Gateway => config.service("order-service", without_retry()).gateway(
            GatewayConfig::default()
                .with_listen("127.0.0.1", port)
                // It is reached from this machine alone.
                .with_circuits(true)
                .with_service(Member::Users.service())?
                .with_service(Member::Orders.service())?
                .with_service(Member::Payments.service())?
                .with_service(Member::Notifications.service())?,
        ),
    }
    .build()
}

/// Gives up on a dead service within two seconds and looks again soon.
fn impatient() -> ServiceConfig {
    let mut retry = RetryConfig::default();
    retry.delay = Some(Duration::from_millis(100));
    let mut breaker = CircuitBreakerConfig::default();
    breaker.recovery_timeout = Some(RECOVERY);
    ServiceConfig::default()
        .with_timeout(Duration::from_secs(2))
        .with_retry(retry)
        .with_circuit_breaker(breaker)
}

/// Orders tries again by itself what it asks of others: on one path, one place that does so is enough. Its refusals
/// count at the gateway too, whose circuit must not stay open longer than the one behind it.
fn without_retry() -> ServiceConfig {
    let mut retry = RetryConfig::default();
    retry.enabled = Some(false);
    let mut breaker = CircuitBreakerConfig::default();
    breaker.recovery_timeout = Some(RECOVERY);
    ServiceConfig::default()
        .with_retry(retry)
        .with_circuit_breaker(breaker)
}
