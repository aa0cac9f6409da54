//! How the places are that a client leads to, and checks of its endpoints there.

use std::sync::OnceLock;

use http::HeaderMap;
use trunkline_core::Result;
use trunkline_discovery::{
    EndpointCheck, HealthCheckConfig, Instances, ServiceHealth, ServiceInstance, ServiceName,
};

use super::core::Core;
use super::destination::{Destination, Peer};
use crate::EndpointProbe;
use crate::transport::Transport;

/// What checks need beside what calls use; made when somebody asks.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// The single place that requests lead to.
    alone: OnceLock<Instances>,
    /// A check does not wait for calls.
    transport: OnceLock<Transport>,
}

impl Core {
    /// The instances that requests lead to. A single place is one instance, known for as long as the client is.
    fn instances(&self) -> &Instances {
        match &self.destination {
            Destination::Balanced(balanced) => balanced.instances(),
            Destination::Fixed(peer) => self
                .checked
                .alone
                .get_or_init(|| alone(&self.service, peer)),
        }
    }

    pub(super) fn service_health(&self) -> ServiceHealth {
        self.instances().health()
    }

    /// Begins to check an endpoint, if its settings say so, at a path behind the prefix.
    pub(super) fn check(&self, endpoint: &str, path: &str, headers: HeaderMap) -> Result<()> {
        let settings = self.endpoints.named(endpoint).policy.settings();
        let Some(settings) = &settings.health_check else {
            return Ok(());
        };
        let mut all = self.headers.clone();
        all.extend(headers);
        let transport = &self.checked.transport;
        let probe = EndpointProbe {
            transport: transport.get_or_init(|| self.transport.beside()).clone(),
            fixed: match &self.destination {
                Destination::Fixed(peer) => Some(peer.origin.clone()),
                Destination::Balanced(_) => None,
            },
            path: format!("{}{path}", self.prefix),
            headers: all,
        };
        let config = HealthCheckConfig::default()
            .with_interval(settings.interval)
            .with_timeout(settings.timeout)
            .with_failure_threshold(settings.failure_threshold);
        self.instances()
            .check_endpoint(&EndpointCheck::new(endpoint, probe, config))
    }
}

fn alone(service: &str, peer: &Peer) -> Instances {
    let host = peer.origin.host().unwrap_or("localhost");
    let port = peer.origin.port().unwrap_or_default();
    // What is called by its address has no name of its own.
    let name = ServiceName::new(service).or_else(|_| ServiceName::new("service"));
    #[expect(clippy::expect_used, reason = "it is a name by the rules of names")]
    let name = name.expect("`service` is a name");
    let mut instance = ServiceInstance::new(name.clone(), host, port).with_id(service);
    instance.protocol = match peer.origin.is_tls() {
        true => "https".to_owned(),
        false => "http".to_owned(),
    };
    Instances::fixed(name, vec![instance])
}
