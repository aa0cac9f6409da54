//! Whether others look at the registry from other machines, where an address of this machine alone means nothing.

use std::net::IpAddr;

use trunkline_core::{Error, Result};
use trunkline_discovery::{ServiceDiscoveryConfig, ServiceInstance};

use crate::several;

/// The registry, as it is shown, if it is one that is not on this machine and takes announcements.
pub(crate) fn registry(config: &ServiceDiscoveryConfig) -> Option<String> {
    match config.kind.as_str() {
        "embedded" | "static" | "memory" | "dns" | "kubernetes" => None,
        "several" => several::members(config).iter().find_map(registry),
        _ => {
            let hosts = config.connection.host.as_deref().unwrap_or("localhost");
            let elsewhere = hosts.split(',').any(|host| !is_of_this_machine(host));
            elsewhere.then(|| config.display_url())
        }
    }
}

/// Whoever finds such an address in a registry of several machines calls itself.
///
/// # Errors
/// `Config` when the address is one of this machine alone.
pub(crate) fn check(instance: &ServiceInstance, registry: &str) -> Result<()> {
    if !is_of_this_machine(&instance.host) {
        return Ok(());
    }
    Err(Error::config(format!(
        "the service would be announced at {} in {registry}, where others look for it from other machines: listen on an \
         address that they reach (server.host), name one (server.advertise_host), or set server.register to false",
        instance.host
    )))
}

/// `localhost` and the addresses of it, with a port or without.
fn is_of_this_machine(host: &str) -> bool {
    let host = host.trim();
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None if host.matches(':').count() == 1 => host.split(':').next().unwrap_or_default(),
        None => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use trunkline_discovery::ServiceName;

    use super::*;

    #[test]
    fn a_registry_is_elsewhere_when_one_of_its_hosts_is() {
        for (url, elsewhere) in [
            ("embedded:///var/lib/app", false),
            ("memory://", false),
            ("kubernetes://10.0.0.1:6443/shop", false),
            ("consul://localhost:8500", false),
            ("consul://127.0.0.1", false),
            ("etcd://[::1]:2379", false),
            ("etcd://localhost:2379,127.0.0.2:2379", false),
            ("etcd://localhost:2379,two:2379", true),
            ("consul://consul.internal:8500", true),
            ("consul://10.0.0.1", true),
            ("several://?registry=memory://&registry=memory://", false),
            (
                "several://?registry=memory://&registry=consul://consul.internal",
                true,
            ),
        ] {
            let config = ServiceDiscoveryConfig::from_url(url).unwrap();
            assert_eq!(registry(&config).is_some(), elsewhere, "{url}");
        }
        let without_host = ServiceDiscoveryConfig::new("consul");
        assert_eq!(registry(&without_host), None);
    }

    #[test]
    fn an_address_of_this_machine_alone_is_refused() {
        let name = ServiceName::new("orders").unwrap();
        for (host, refused) in [
            ("127.0.0.1", true),
            ("127.1.2.3", true),
            ("::1", true),
            ("localhost", true),
            ("10.0.0.7", false),
            ("2001:db8::1", false),
            ("orders.internal", false),
        ] {
            let instance = ServiceInstance::new(name.clone(), host, 80);
            let checked = check(&instance, "consul://consul.internal");
            assert_eq!(checked.is_err(), refused, "{host}");
        }
    }
}
