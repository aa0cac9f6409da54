//! Brokers, registry and event store: whether this build serves them, and whether their settings fit together.

use trunkline_core::Connection;
use trunkline_discovery::{CheckKind, HealthCheckConfig, LoadBalancerConfig};
use trunkline_messaging::MessageBrokerConfig;

use super::meaning::Found;
use crate::config::diagnostics::closest;
use crate::config::kinds::{self, Area};
use crate::config::model::CommunicationConfig;
use crate::config::tree::join;

/// The ports of RabbitMQ, plain and with TLS.
const AMQP: u16 = 5672;
const AMQPS: u16 = 5671;

/// The longest name of a checkpoint.
const LONGEST_RELAY: usize = 128;

pub(super) fn check(config: &CommunicationConfig, found: &mut Found<'_>) {
    for (name, broker) in config.message_brokers.iter().flatten() {
        let path = join("message_brokers", name);
        check_kind(Area::MessageBroker, &path, &broker.kind, found);
        check_connection(&path, &broker.kind, &broker.connection, found);
        check_broker(&path, broker, found);
    }
    if let Some(discovery) = &config.service_discovery {
        let path = "service_discovery";
        check_kind(Area::ServiceDiscovery, path, &discovery.kind, found);
        check_connection(path, &discovery.kind, &discovery.connection, found);
        for problem in crate::backends::discovery_problems(discovery) {
            let (path, message) = problem.split_once(": ").unwrap_or((path, &problem));
            found.error(path, message);
        }
        found.positive("service_discovery.lease_ttl", discovery.lease_ttl);
        found.positive(
            "service_discovery.cache.idle_expiry",
            discovery.cache.idle_expiry,
        );
        found.positive(
            "service_discovery.cache.resync_interval",
            discovery.cache.resync_interval,
        );
        found.positive(
            "service_discovery.cache.snapshot_max_age",
            discovery.cache.snapshot_max_age,
        );
        check_instances(
            "service_discovery.health_check",
            &discovery.health_check,
            found,
        );
        check_balancing(
            "service_discovery.load_balancer",
            &discovery.load_balancer,
            found,
        );
    }
    if let Some(store) = &config.event_store {
        check_kind(Area::EventStore, "event_store", &store.kind, found);
        check_connection("event_store", &store.kind, &store.connection, found);
        if let Some(relay) = &store.relay {
            found.positive("event_store.relay.poll_interval", relay.poll_interval);
            let prefix = config.effective_prefix().unwrap_or_default();
            if prefix.len() + relay.name.len() > LONGEST_RELAY {
                let message = format!("the name is too long behind the prefix `{prefix}`");
                found
                    .error("event_store.relay.name", message)
                    .allow(format!("{LONGEST_RELAY} bytes together"));
            }
            check_broker_name(config, "event_store.relay.broker", &relay.broker, found);
        }
    }
}

/// How instances are checked.
pub(super) fn check_instances(path: &str, check: &HealthCheckConfig, found: &mut Found<'_>) {
    found.positive(&join(path, "interval"), check.interval);
    found.positive(&join(path, "timeout"), check.timeout);
    let confirming = join(path, "confirm_interval");
    found.positive(&confirming, check.confirm_interval);
    if check.confirm_interval > check.interval && found.is_written(&confirming) {
        let interval = trunkline_core::duration::format(check.interval);
        found
            .warning(&confirming, "the next check comes before that anyway")
            .allow(format!("up to the `interval`, {interval}"));
    }
    if check.grpc_service.is_some() && check.kind != CheckKind::Grpc {
        let message = "only checks of gRPC ask about a service within the server";
        found
            .warning(&join(path, "grpc_service"), message)
            .allow("`type: grpc` beside it, or nothing");
    }
}

/// How an instance is chosen.
pub(super) fn check_balancing(path: &str, balance: &LoadBalancerConfig, found: &mut Found<'_>) {
    if (1..100).contains(&balance.bound_percent) {
        let message = "with less than an even share for each instance none would ever have room";
        found
            .error(&join(path, "bound_percent"), message)
            .allow("0, for no bound, or 100 and more");
    }
}

/// A reference to a broker: a name, or `default` where there is one broker alone.
pub(super) fn check_broker_name(
    config: &CommunicationConfig,
    path: &str,
    name: &str,
    found: &mut Found<'_>,
) {
    let Some(brokers) = &config.message_brokers else {
        return;
    };
    let is_only = name == "default" && brokers.len() == 1;
    if !brokers.contains_key(name) && !is_only {
        let names: Vec<&str> = brokers.keys().map(String::as_str).collect();
        let known = if names.is_empty() {
            "none is configured".to_owned()
        } else {
            names.join(", ")
        };
        found
            .error(path, format!("there is no message broker `{name}`"))
            .suggest(closest(name, names))
            .allow(known);
    }
}

fn check_kind(area: Area, path: &str, kind: &str, found: &mut Found<'_>) {
    let path = join(path, "type");
    let known = kinds::KINDS.iter().filter(|known| known.area == area);
    let names: Vec<&str> = known.map(|known| known.name).collect();
    if kinds::find(area, kind).is_some() {
        if let Some(why) = kinds::unserved(area, kind) {
            let served: Vec<&str> = kinds::served(area).collect();
            found
                .warning(&path, format!("{area} type `{kind}` {why}; using it fails"))
                .allow(served.join(", "));
        }
        return;
    }
    match closest(kind, names.iter().copied()) {
        Some(meant) => found
            .error(&path, format!("`{kind}` is not known"))
            .suggest(Some(meant))
            .allow(names.join(", ")),
        None => found
            .warning(
                &path,
                format!("`{kind}` is not known; it works only if the program registers it"),
            )
            .allow(names.join(", ")),
    };
}

/// Kinds without a server take no host.
fn check_connection(path: &str, kind: &str, connection: &Connection, found: &mut Found<'_>) {
    if !matches!(kind, "embedded" | "memory" | "static" | "several") {
        return;
    }
    let given = [
        ("host", connection.host.is_some()),
        ("port", connection.port.is_some()),
        ("username", connection.username.is_some()),
        ("password", connection.password.is_some()),
        ("ssl_enabled", connection.ssl_enabled),
    ];
    for (key, _) in given.into_iter().filter(|(_, given)| *given) {
        let message = format!("`{kind}` has no server of its own; the setting has no effect");
        found.warning(&format!("{path}.connection.{key}"), message);
    }
}

/// Keys of messages: whether they can be used, and whether this build can use them.
fn check_protection(path: &str, broker: &MessageBrokerConfig, found: &mut Found<'_>) {
    let encryption = broker.encryption.as_ref();
    let signing = broker.signing.as_ref();
    for (section, problems) in [
        ("encryption", encryption.map(|config| config.problems())),
        ("signing", signing.map(|config| config.problems())),
    ] {
        let Some(problems) = problems else {
            continue;
        };
        let path = join(path, section);
        if !trunkline_messaging::protection::AVAILABLE {
            let message =
                "this build was made without the feature `protection`; the broker cannot be used";
            found.warning(&path, message);
        }
        for (key, message) in problems {
            found.error(&format!("{path}.{key}"), message);
        }
    }
}

fn check_broker(path: &str, broker: &MessageBrokerConfig, found: &mut Found<'_>) {
    found.positive(
        &format!("{path}.connection_timeout"),
        broker.connection_timeout,
    );
    check_protection(path, broker, found);
    if broker.compression.is_some() && !trunkline_messaging::compression::AVAILABLE {
        let message =
            "this build was made without the feature `compression`; the broker cannot be used";
        found.warning(&join(path, "compression"), message);
    }
    if let Some(claim_check) = &broker.claim_check {
        for (key, message) in claim_check.problems() {
            found.error(&format!("{path}.claim_check.{key}"), message);
        }
    }
    let port = format!("{path}.connection.port");
    match (
        broker.kind.as_str(),
        broker.connection.port,
        broker.connection.ssl_enabled,
    ) {
        ("rabbitmq", Some(AMQP), true) => {
            found
                .warning(
                    &port,
                    format!("TLS is on, but {AMQP} is the port without TLS; it is used as written"),
                )
                .allow(format!("{AMQPS}, or no port"));
        }
        ("rabbitmq", Some(AMQPS), false) => {
            found
                .warning(
                    &port,
                    format!("TLS is off, but {AMQPS} is the port of TLS; it is used as written"),
                )
                .allow(format!("{AMQP}, or `ssl_enabled: true`"));
        }
        _ => {}
    }
    if broker.options.get("confirm_delivery") == Some(&false.into()) {
        let message =
            "every publish is confirmed, since the API promises it; the setting has no effect";
        found.warning(&format!("{path}.options.confirm_delivery"), message);
    }
}
