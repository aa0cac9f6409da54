//! Policies wherever they stand: references by name, and values out of range.

use indexmap::IndexMap;
use trunkline_discovery::{ServiceConfig, ServiceName};
use trunkline_messaging::schema::SchemaConfig;
use trunkline_resilience::PolicyConfig;

use super::meaning::Found;
use crate::config::diagnostics::closest;
use crate::config::model::CommunicationConfig;
use crate::config::profile::is_production;
use crate::config::tree::join;

pub(super) fn check(config: &CommunicationConfig, found: &mut Found<'_>) {
    for (name, policy) in &config.policies {
        let path = join("policies", name);
        check_values(&path, policy, found);
        check_chaos(config, &path, policy, found);
    }
    check_services(config, "services", &config.services, found);
    gateway::check(config, found);
    clients::check(config, found);
    for (name, broker) in config.message_brokers.iter().flatten() {
        let mut policy = PolicyConfig::default();
        policy.retry = broker.retry.clone();
        check_values(&join("message_brokers", name), &policy, found);
    }
    for (pattern, topic) in &config.topics {
        let path = join("topics", pattern.as_str());
        if let Some(problem) = topic.schema.as_ref().and_then(SchemaConfig::problem) {
            let allowed = match trunkline_messaging::schema::AVAILABLE {
                true => SchemaConfig::allowed(),
                false => "nothing, in this build",
            };
            found
                .error(&format!("{path}.schema"), problem)
                .allow(allowed);
        }
        let publish = &topic.publish;
        let consume = &topic.consume;
        let (publish_path, consume_path) = (format!("{path}.publish"), format!("{path}.consume"));
        for key in ["connection", "read", "first_byte", "pool"] {
            let path = format!("{publish_path}.timeout.{key}");
            if found.is_written(&path) {
                found
                    .error(
                        &path,
                        "publishing has no such limit: a broker keeps its connections itself",
                    )
                    .allow("`timeout.total`, `timeout.floor`, `timeout.fair` or `request_timeout`");
            }
        }
        check_one(
            config,
            &publish_path,
            publish.policy.as_deref(),
            &publish.policy_config(),
            found,
        );
        check_one(
            config,
            &consume_path,
            consume.policy.as_deref(),
            &consume.policy_config(),
            found,
        );
    }
}

/// What a build without the feature has no settings for.
#[cfg(not(all(feature = "http", feature = "gateway")))]
mod nothing {
    use super::{CommunicationConfig, Found};

    pub(super) fn check(_: &CommunicationConfig, _: &mut Found<'_>) {}
}
#[cfg(not(feature = "http"))]
use nothing as clients;
#[cfg(not(feature = "gateway"))]
use nothing as gateway;

#[cfg(feature = "gateway")]
mod gateway {
    use super::*;

    pub(super) fn check(config: &CommunicationConfig, found: &mut Found<'_>) {
        if let Some(gateway) = &config.gateway {
            check_services(config, "gateway.services", &gateway.services, found);
        }
    }
}

#[cfg(feature = "http")]
mod clients {
    use super::*;

    pub(super) fn check(config: &CommunicationConfig, found: &mut Found<'_>) {
        for (name, client) in &config.http_clients {
            let path = join("http_clients", name);
            let (named, own) = (client.policy.as_deref(), client.policy_config());
            check_one(config, &path, named, &own, found);
        }
    }
}

fn check_services(
    config: &CommunicationConfig,
    section: &str,
    services: &IndexMap<ServiceName, ServiceConfig>,
    found: &mut Found<'_>,
) {
    for (name, service) in services {
        let path = join(section, name.as_str());
        check_one(
            config,
            &path,
            service.policy.as_deref(),
            &service.policy_config(),
            found,
        );
        for (endpoint, settings) in &service.endpoints {
            let path = join(&format!("{path}.endpoints"), endpoint);
            check_one(
                config,
                &path,
                settings.policy.as_deref(),
                &settings.policy_config(),
                found,
            );
        }
    }
}

fn check_one(
    config: &CommunicationConfig,
    path: &str,
    named: Option<&str>,
    policy: &PolicyConfig,
    found: &mut Found<'_>,
) {
    check_values(path, policy, found);
    check_chaos(config, path, policy, found);
    let Some(name) = named else { return };
    if !config.policies.contains_key(name) {
        let names: Vec<&str> = config.policies.keys().map(String::as_str).collect();
        let known = if names.is_empty() {
            "none is configured".to_owned()
        } else {
            names.join(", ")
        };
        found
            .error(
                &format!("{path}.policy"),
                format!("there is no policy `{name}`"),
            )
            .suggest(closest(name, names))
            .allow(known);
    }
}

/// Who breaks things in production on purpose has to say so where it is switched on.
fn check_chaos(
    config: &CommunicationConfig,
    path: &str,
    policy: &PolicyConfig,
    found: &mut Found<'_>,
) {
    let chaos = &policy.chaos;
    let asked = chaos.allow_in_production.unwrap_or(false);
    if is_production(&config.environment) && chaos.enabled == Some(true) && !asked {
        found
            .error(
                &format!("{path}.chaos.enabled"),
                "chaos is refused in the production profile",
            )
            .allow("false, or `allow_in_production: true` beside it");
    }
}

fn check_values(path: &str, policy: &PolicyConfig, found: &mut Found<'_>) {
    let asks = policy.cache.ttl.is_some() || policy.cache.enabled == Some(true);
    let falls_back = policy.fallback.cache == Some(true);
    for (asks, part) in [(asks, "cache"), (falls_back, "fallback.cache")] {
        if asks && !cfg!(feature = "cache") {
            found.warning(
                &format!("{path}.{part}"),
                "this build keeps no answers, and the setting is ignored; it needs the feature `cache`",
            );
        }
    }
    for problem in policy.problems() {
        found
            .error(
                &format!("{path}.{}", problem.path),
                format!("`{}` is out of range", problem.value),
            )
            .allow(problem.allowed);
    }
}
