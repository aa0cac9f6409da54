//! What an agent is told of an instance.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use trunkline_discovery::{InstanceStatus, ServiceInstance};

use crate::config::{ActiveCheck, ConsulConfig};
use crate::decode::{Service, Weights};
use crate::encode;

/// Consul counts in nanoseconds of 64 bits; nothing lasts longer than this anyway.
const LONGEST_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A service, as the agent's API takes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Announcement {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) name: String,
    tags: Vec<String>,
    pub(crate) meta: BTreeMap<String, String>,
    address: String,
    port: u16,
    pub(crate) weights: Weights,
    checks: Vec<Check>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID")]
    check_id: String,
    name: String,
    status: &'static str,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deregister_critical_service_after: Option<String>,
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(rename = "GRPC", skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    #[serde(rename = "GRPCUseTLS", skip_serializing_if = "std::ops::Not::not")]
    grpc_use_tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
}

impl Announcement {
    pub(crate) fn new(
        instance: &ServiceInstance,
        token: &str,
        ttl: Duration,
        config: &ConsulConfig,
    ) -> Self {
        let id = encode::service_id(&instance.id);
        let weight = encode::weight(instance.weight);
        let mut checks = vec![Check {
            check_id: encode::lease_check(&id, token),
            name: "Trunkline lease".to_owned(),
            status: "passing",
            ttl: Some(span(ttl.min(LONGEST_TTL))),
            deregister_critical_service_after: Some(span(config.deregister_after)),
            ..Check::default()
        }];
        // Other clients of Consul know failing checks alone.
        if instance.status != InstanceStatus::Up || instance.weight == 0 {
            checks.push(Check {
                check_id: encode::status_check(&id, token),
                name: "Trunkline status: takes no requests".to_owned(),
                status: "critical",
                ttl: Some(span(LONGEST_TTL)),
                ..Check::default()
            });
        }
        checks.extend(active(instance, &id, token, config));
        Self {
            id,
            name: instance.name.as_str().to_owned(),
            tags: config.tags.clone(),
            meta: encode::metadata(instance, token),
            address: instance.host.clone(),
            port: instance.port,
            weights: Weights {
                passing: weight,
                warning: weight,
            },
            checks,
        }
    }

    /// Whether an agent knows it so.
    pub(crate) fn is_known_as(&self, service: &Service) -> bool {
        service.address == self.address
            && service.port == u32::from(self.port)
            && service.weights == self.weights
            && service.tags.as_deref().unwrap_or_default() == self.tags
            && service.meta.as_ref() == Some(&self.meta)
    }
}

fn active(
    instance: &ServiceInstance,
    id: &str,
    token: &str,
    config: &ConsulConfig,
) -> Option<Check> {
    let mut check = Check {
        check_id: encode::active_check(id, token),
        name: "Trunkline check".to_owned(),
        // It has just said that it is well; whether that is so is seen soon.
        status: "passing",
        interval: Some(span(config.check_interval)),
        timeout: Some(span(config.check_timeout)),
        ..Check::default()
    };
    match config.check? {
        ActiveCheck::Http if instance.health_check_path.is_empty() => return None,
        ActiveCheck::Http => {
            check.http = Some(format!(
                "{}{}",
                instance.base_url(),
                instance.health_check_path
            ));
        }
        ActiveCheck::Tcp => check.tcp = Some(instance.authority()),
        ActiveCheck::Grpc => {
            check.grpc = Some(instance.authority());
            check.grpc_use_tls = instance.protocol == "https";
        }
    }
    Some(check)
}

/// A span as Go writes it.
pub(crate) fn span(span: Duration) -> String {
    format!("{}ms", span.as_millis().max(1))
}
