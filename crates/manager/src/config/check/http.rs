//! Clients, services, the own server and the gateway.

use super::meaning::Found;
use crate::config::model::CommunicationConfig;
use crate::config::tree::join;

pub(super) fn check(config: &CommunicationConfig, found: &mut Found<'_>) {
    cache::check(config, found);
    for (name, service) in &config.services {
        let path = join("services", name.as_str());
        if let Some(check) = &service.instance_check {
            super::backends::check_instances(&join(&path, "instance_check"), check, found);
        }
        if let Some(balance) = &service.load_balancer {
            super::backends::check_balancing(&join(&path, "load_balancer"), balance, found);
        }
        if service.host.is_none() {
            for key in ["port", "protocol", "base_path"] {
                let path = format!("{path}.{key}");
                if found.is_written(&path) {
                    found
                        .warning(&path, "the service has no host, so it is looked up and the setting has no effect")
                        .allow("`host` beside it, or nothing");
                }
            }
        }
    }
    clients::check(config, found);
    server::check(config, found);
    gateway::check(config, found);
}

/// What a build without the feature has no settings for.
#[cfg(not(all(feature = "cache", feature = "server", feature = "gateway")))]
mod nothing {
    use super::{CommunicationConfig, Found};

    pub(super) fn check(_: &CommunicationConfig, _: &mut Found<'_>) {}
}
#[cfg(not(feature = "cache"))]
use nothing as cache;
#[cfg(not(feature = "http"))]
use nothing as clients;
#[cfg(not(feature = "server"))]
use nothing as server;
#[cfg(not(feature = "gateway"))]
use nothing as gateway;

#[cfg(feature = "cache")]
mod cache {
    use super::*;

    pub(super) fn check(config: &CommunicationConfig, found: &mut Found<'_>) {
        let path = "response_cache.tier_timeout";
        found.positive(path, config.response_cache.tier_timeout);
        if let Some(url) = &config.response_cache.tier
            && let Err(error) = crate::backends::cache_tier(url.expose(), None)
        {
            found.error("response_cache.tier", error.message());
        }
    }
}

#[cfg(feature = "http")]
mod clients {
    use http::{HeaderName, HeaderValue};
    use trunkline_discovery::ServiceName;
    use trunkline_http::{HttpClientConfig, Transport, TransportConfig};

    use super::super::scalar::shown;
    use super::*;
    use crate::named::DEFAULT;

    pub(super) fn check(config: &CommunicationConfig, found: &mut Found<'_>) {
        for (name, client) in &config.http_clients {
            let path = join("http_clients", name);
            if client.base_url.is_some() && client.service.is_some() {
                found
                    .error(&format!("{path}.service"), "it stands beside `base_url`")
                    .allow("one of the two");
            }
            if client.max_keepalive_connections > client.max_connections {
                let most = client.max_connections;
                let message = format!("more connections are kept than may be open ({most})");
                found.warning(&format!("{path}.max_keepalive_connections"), message);
            }
            found.positive(&format!("{path}.keepalive_expiry"), client.keepalive_expiry);
            let unled = client.base_url.is_none() && client.service.is_none();
            if unled && !found.has_error_below(&path) {
                check_unled(config, &path, (name, client), found);
            }
            check_headers(&path, client, found);
            check_roots(&path, client, found);
            check_bodies(&path, client, found);
        }
    }

    fn check_bodies(path: &str, client: &HttpClientConfig, found: &mut Found<'_>) {
        let mut missing: Vec<_> = client.compression.missing().collect();
        missing.dedup();
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|coding| coding.as_str()).collect();
            let message = format!(
                "{} is left out of this build; it needs the feature `compression`",
                names.join(", ")
            );
            found.warning(&format!("{path}.compression"), message);
        }
        let mut seen = Vec::new();
        for coding in &client.compression.accept {
            if seen.contains(coding) {
                let message = format!("`{coding}` stands there twice");
                found.warning(&format!("{path}.compression.accept"), message);
            }
            seen.push(*coding);
        }
        for (key, size) in [
            ("max_request_size", client.max_request_size),
            ("max_stream_size", client.max_stream_size),
        ] {
            if size.is_some_and(|size| size.bytes() == 0) {
                found
                    .error(&format!("{path}.{key}"), "no body would fit")
                    .allow("a size such as 64MiB, or nothing for no limit");
            }
        }
    }

    /// A client that says nothing of where it leads is that of the service of its name.
    fn check_unled(
        config: &CommunicationConfig,
        path: &str,
        (name, client): (&str, &HttpClientConfig),
        found: &mut Found<'_>,
    ) {
        let neither = "it has neither `base_url` nor `service`";
        if name == DEFAULT {
            if !says_limits_alone(client) {
                let message = format!(
                    "{neither}, so nothing counts but its connection limits, for clients of services"
                );
                found.warning(path, message).allow("one of the two");
            }
            return;
        }
        match ServiceName::new(name) {
            Err(_) => {
                found.error(path, neither).allow("one of the two");
            }
            Ok(service) if !config.services.contains_key(&service) => {
                let message = format!(
                    "{neither}, so it calls the service `{service}`, which `services` does not name"
                );
                found.warning(path, message).allow("one of the two");
            }
            Ok(_) => {}
        }
    }

    /// Whether nothing is said but what the connections of all services share.
    fn says_limits_alone(client: &HttpClientConfig) -> bool {
        let mut limits = HttpClientConfig::default();
        limits.max_connections = client.max_connections;
        limits.max_keepalive_connections = client.max_keepalive_connections;
        limits.keepalive_expiry = client.keepalive_expiry;
        limits.ca_file.clone_from(&client.ca_file);
        limits.system_roots = client.system_roots;
        limits
            .client_certificate
            .clone_from(&client.client_certificate);
        limits.client_key.clone_from(&client.client_key);
        limits.proxy.clone_from(&client.proxy);
        limits.no_proxy.clone_from(&client.no_proxy);
        limits.http2_prior_knowledge = client.http2_prior_knowledge;
        limits.deny_private_addresses = client.deny_private_addresses;
        *client == limits
    }

    fn check_headers(path: &str, client: &HttpClientConfig, found: &mut Found<'_>) {
        for (name, value) in &client.headers {
            let path = join(&format!("{path}.headers"), name);
            if HeaderName::try_from(name).is_err() {
                found
                    .error(&path, format!("{} is not a header name", shown(name)))
                    .allow("letters, digits and `-`, such as X-Api-Version");
            } else if HeaderValue::try_from(value).is_err() {
                // It may be a secret: it is not shown.
                found
                    .error(&path, "the value cannot be sent")
                    .allow("text on one line");
            }
        }
    }

    /// Read as the client reads it: a path that is wrong here is wrong there.
    fn check_roots(path: &str, client: &HttpClientConfig, found: &mut Found<'_>) {
        for key in ["ca_file", "client_certificate", "client_key", "proxy"] {
            let mut one = HttpClientConfig::default();
            match key {
                "ca_file" => one.ca_file.clone_from(&client.ca_file),
                "client_certificate" if client.client_key.is_none() => {
                    one.client_certificate
                        .clone_from(&client.client_certificate);
                }
                "client_key" if client.client_key.is_some() => {
                    one.client_certificate
                        .clone_from(&client.client_certificate);
                    one.client_key.clone_from(&client.client_key);
                }
                "proxy" => {
                    one.proxy.clone_from(&client.proxy);
                    one.no_proxy.clone_from(&client.no_proxy);
                }
                _ => continue,
            }
            if one == HttpClientConfig::default() {
                continue;
            }
            if let Err(error) = Transport::new(&TransportConfig::from(&one)) {
                found.error(&format!("{path}.{key}"), error.report().to_string());
            }
        }
        if client.proxy.is_none() && !client.no_proxy.is_empty() {
            found
                .warning(
                    &format!("{path}.no_proxy"),
                    "there is no `proxy` beside it, so it has no effect",
                )
                .allow("`proxy` beside it, or NO_PROXY in the environment");
        }
        if !client.system_roots && client.ca_file.is_none() {
            found
                .error(
                    &format!("{path}.system_roots"),
                    "no root certificate would be trusted",
                )
                .allow("`ca_file` beside it");
        }
    }
}

#[cfg(feature = "server")]
mod server {
    use super::*;

    pub(super) fn check(config: &CommunicationConfig, found: &mut Found<'_>) {
        use trunkline_messaging::TopicPattern;

        let server = &config.server;
        found.positive("server.request_timeout", server.request_timeout);
        found.positive("server.header_timeout", server.header_timeout);
        found.positive("server.keepalive_expiry", server.keepalive_expiry);
        for problem in server.limit_problems() {
            let message = format!("`{}` is out of range", problem.value);
            found
                .error(&format!("server.{}", problem.path), message)
                .allow(problem.allowed);
        }
        let publish = &server.publish;
        if publish.enabled && publish.topics.is_empty() {
            found
                .warning(
                    "server.publish",
                    "no topic is listed, so nothing can be published",
                )
                .allow("topics: [\"user.*\"]");
        }
        for (index, topic) in publish.topics.iter().enumerate() {
            if let Err(error) = TopicPattern::new(topic) {
                found.error(&format!("server.publish.topics[{index}]"), error.message());
            }
        }
        for (index, broker) in publish.brokers.iter().enumerate() {
            let path = format!("server.publish.brokers[{index}]");
            super::super::backends::check_broker_name(config, &path, broker, found);
        }
    }
}

#[cfg(feature = "gateway")]
mod gateway {
    use super::*;

    pub(super) fn check(config: &CommunicationConfig, found: &mut Found<'_>) {
        let Some(gateway) = &config.gateway else {
            return;
        };
        found.positive("gateway.request_timeout", gateway.request_timeout);
        found.positive("gateway.header_timeout", gateway.header_timeout);
        found.positive("gateway.keepalive_expiry", gateway.keepalive_expiry);
        for (name, service) in &gateway.services {
            let said = [
                ("load_balancer", service.load_balancer.is_some(), "chosen"),
                (
                    "instance_check",
                    service.instance_check.is_some(),
                    "checked",
                ),
            ];
            for (key, _, done) in said.iter().filter(|(_, is_said, _)| *is_said) {
                let path = join("gateway.services", name.as_str());
                let message =
                    format!("how instances are {done} is said once for the whole process");
                let place = join("services", name.as_str());
                found
                    .error(&format!("{path}.{key}"), message)
                    .allow(format!("{place}.{key}"));
            }
        }
        for (index, route) in gateway.routes.iter().enumerate() {
            let path = format!("gateway.routes[{index}]");
            if trunkline_discovery::ServiceName::new(&route.service).is_err() {
                found
                    .error(
                        &format!("{path}.service"),
                        format!("`{}` is not a service name", route.service),
                    )
                    .allow("1 to 128 letters, digits, `-`, `_` and dots");
            }
            for (at, method) in route.methods.iter().enumerate() {
                if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
                    found
                        .error(
                            &format!("{path}.methods[{at}]"),
                            format!("`{method}` is not an HTTP method"),
                        )
                        .allow("GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS");
                }
            }
        }
        let server = &config.server;
        if gateway.port != 0 && (gateway.port, &gateway.host) == (server.port, &server.host) {
            found.warning(
                "gateway.port",
                "the service's own server listens on the same address",
            );
        }
    }
}
