//! `trunkline gateway`

use trunkline::core::ConnectionUrl;
use trunkline::discovery::{Protocol, ServiceConfig};
use trunkline::gateway::GatewayConfig;
use trunkline::telemetry::LogLevel;
use trunkline::{CommunicationConfig, CommunicationManager};

use super::config::loader;
use crate::cli;
use crate::exit::{ExitCode, UsageError};

pub(crate) async fn run(args: cli::Gateway, verbose: u8) -> anyhow::Result<ExitCode> {
    let mut config = loader(args.config.as_deref()).load()?;
    config.debug_mode |= verbose > 0;
    if verbose > 1 {
        config.logging.level = LogLevel::Trace;
    }
    overlay(&mut config, &args)?;
    CommunicationManager::new(config)
        .lifespan(async |manager| manager.serve_gateway().await)
        .await?;
    Ok(ExitCode::Done)
}

/// What the command line says goes over the configuration.
fn overlay(config: &mut CommunicationConfig, args: &cli::Gateway) -> anyhow::Result<()> {
    let gateway = config.gateway.get_or_insert_with(GatewayConfig::default);
    if let Some(host) = &args.host {
        gateway.host.clone_from(host);
    }
    if let Some(port) = args.port {
        gateway.port = port;
    }
    for (name, url) in &args.services {
        gateway.services.insert(name.parse()?, at(url)?);
    }
    Ok(())
}

/// A service at a fixed address.
fn at(url: &str) -> anyhow::Result<ServiceConfig> {
    let wrong = || {
        UsageError(format!(
            "`{url}` is no address of a service; write http://HOST:PORT"
        ))
    };
    let parsed: ConnectionUrl = url.parse().map_err(|_| wrong())?;
    let (protocol, usual_port) = match parsed.scheme.as_str() {
        "http" => (Protocol::Http, 80),
        "https" => (Protocol::Https, 443),
        _ => return Err(wrong().into()),
    };
    let host = parsed.connection.host.ok_or_else(wrong)?;
    let port = parsed.connection.port.unwrap_or(usual_port);
    Ok(ServiceConfig::at(host, port).with_protocol(protocol))
}
