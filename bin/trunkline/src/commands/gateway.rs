//! `trunkline gateway`

use std::time::Duration;

use trunkline::core::ConnectionUrl;
use trunkline::discovery::{Protocol, ServiceConfig, ServiceName};
use trunkline::gateway::GatewayConfig;
use trunkline::telemetry::LogLevel;
use trunkline::{CommunicationConfig, CommunicationManager, ConfigBuilder};

use super::config::loader;
use crate::cli;
use crate::exit::{ExitCode, UsageError};

/// How often the files of the configuration are looked at.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: cli::Gateway, verbose: u8) -> anyhow::Result<ExitCode> {
    let loader = loader(args.config.as_deref());
    let line = CommandLine::new(args, verbose)?;
    let mut config = loader.load()?;
    line.overlay(&mut config);
    CommunicationManager::new(config)
        .lifespan(async |manager| {
            let set = move |builder: ConfigBuilder| builder.change(|config| line.overlay(config));
            let _followed = manager.watch_with(loader, LOOK, set).await?;
            manager.serve_gateway().await
        })
        .await?;
    Ok(ExitCode::Done)
}

/// What goes over every configuration that is loaded.
struct CommandLine {
    host: Option<String>,
    port: Option<u16>,
    services: Vec<(ServiceName, ServiceConfig)>,
    verbose: u8,
}

impl CommandLine {
    fn new(args: cli::Gateway, verbose: u8) -> anyhow::Result<Self> {
        let services = args.services.iter();
        let services = services
            .map(|(name, url)| Ok((name.parse()?, at(url)?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            host: args.host,
            port: args.port,
            services,
            verbose,
        })
    }

    fn overlay(&self, config: &mut CommunicationConfig) {
        config.debug_mode |= self.verbose > 0;
        if self.verbose > 1 {
            config.logging.level = LogLevel::Trace;
        }
        let gateway = config.gateway.get_or_insert_with(GatewayConfig::default);
        if let Some(host) = &self.host {
            gateway.host.clone_from(host);
        }
        if let Some(port) = self.port {
            gateway.port = port;
        }
        for (name, service) in &self.services {
            gateway.services.insert(name.clone(), service.clone());
        }
    }
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
