//! Brokers and registries by URL.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;
use trunkline::backends;
use trunkline::discovery::{
    AnyRegistry, AnyResolver, Resolver as _, ServiceDiscoveryConfig, Several,
};
use trunkline::messaging::{AnyBroker, MessageBroker, MessageBrokerConfig};

use crate::output::Output;

/// Time to flush and close when a command is done.
const CLOSING: Duration = Duration::from_secs(5);

/// Opens and connects a broker.
pub(crate) async fn broker(url: &str) -> anyhow::Result<AnyBroker> {
    let config = MessageBrokerConfig::from_url(url)?;
    let broker = backends::open_broker(&config)?;
    broker
        .connect()
        .await
        .with_context(|| format!("cannot connect to {}", config.display_url()))?;
    Ok(broker)
}

/// Flushes and closes a broker. What was done with it stays done if that fails.
pub(crate) async fn close(broker: &AnyBroker, output: &Output) {
    if let Err(error) = broker.disconnect(Instant::now() + CLOSING).await {
        output.warn(format!(
            "the broker was not closed in order: {}",
            error.report()
        ));
    }
}

/// Opens a registry for announcing and for finding.
pub(crate) fn registry(url: &str) -> anyhow::Result<(AnyRegistry, AnyResolver)> {
    let config = ServiceDiscoveryConfig::from_url(url)?;
    Ok(backends::open_discovery(&config)?)
}

/// Opens a registry for finding, and says what is behind it where it is several.
pub(crate) fn resolver(url: &str) -> anyhow::Result<(AnyResolver, Option<Several>)> {
    let config = ServiceDiscoveryConfig::from_url(url)?;
    if config.kind == "several" {
        let several = backends::open_several(&config)?;
        return Ok((several.clone().erase(), Some(several)));
    }
    let (_, resolver) = backends::open_discovery(&config)?;
    Ok((resolver, None))
}
