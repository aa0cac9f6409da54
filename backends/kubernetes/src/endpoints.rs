//! From slices to instances.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_discovery::{InstanceStatus, ServiceInstance, ServiceName};

use crate::family::Families;
use crate::message::{Conditions, Endpoint, EndpointSlice, Port, Service};

/// What annotations of ours begin with.
const OURS: &str = "trunkline/";

/// What the settings say of ports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    /// Name or number.
    pub(crate) port: Option<String>,
    pub(crate) protocol: Option<String>,
}

/// The instances of a service: all endpoints of all its slices of one family, each once.
pub(crate) fn instances(
    ports: &Ports,
    families: &Families,
    service: &ServiceName,
    slices: &[EndpointSlice],
    services: &[Service],
) -> Vec<ServiceInstance> {
    let mut found: BTreeMap<String, ServiceInstance> = BTreeMap::new();
    let hinted = hinted_namespaces(families, slices);
    for slice in slices {
        let Some(port) = ports.choose(&slice.ports) else {
            if slice
                .endpoints
                .iter()
                .any(|endpoint| !endpoint.addresses.is_empty())
            {
                tracing::warn!(
                    target: "trunkline::discovery",
                    %service, slice = slice.metadata.name, port = ports.port,
                    "a slice has no such port; its endpoints are left out"
                );
            }
            continue;
        };
        if !families.takes(slice) {
            continue;
        }
        let namespace = &slice.metadata.namespace;
        let hinted = hinted.contains(namespace.as_str());
        for endpoint in &slice.endpoints {
            let Some(mut instance) = instance(service, namespace, endpoint, &port, hinted) else {
                continue;
            };
            annotate(&mut instance, namespace, services);
            // It stands in two slices while it moves between them: what is better is newer, or about to be.
            let known = found
                .entry(instance.id.clone())
                .or_insert_with(|| instance.clone());
            if rank(instance.status) > rank(known.status) {
                *known = instance;
            }
        }
    }
    found.into_values().collect()
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    number: u16,
    protocol: String,
}

impl Ports {
    /// Whether there is a port that requests go to.
    pub(crate) fn are_in(&self, slice: &EndpointSlice) -> bool {
        self.choose(&slice.ports).is_some()
    }

    fn choose(&self, ports: &[Port]) -> Option<Chosen> {
        let tcp = |port: &&Port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            protocol == "TCP" && port.port.is_some_and(|number| number > 0)
        };
        let named = |name: &str| {
            let named = |port: &&Port| port.name.as_deref().unwrap_or_default() == name;
            ports.iter().filter(tcp).find(named)
        };
        let port = match &self.port {
            Some(wanted) => {
                let number = wanted.parse::<u16>().ok();
                let numbered = |port: &&Port| number.is_some() && port.port == number;
                let found = named(wanted).or_else(|| ports.iter().filter(tcp).find(numbered));
                match (found, number) {
                    (Some(port), _) => port,
                    // No list of ports means all of them.
                    (None, Some(number)) if ports.is_empty() => {
                        return Some(self.with_protocol(number, None));
                    }
                    _ => return None,
                }
            }
            None => named("http")
                .or_else(|| named("https"))
                .or_else(|| ports.iter().find(tcp))?,
        };
        Some(self.with_protocol(port.port?, Some(port)))
    }

    fn with_protocol(&self, number: u16, port: Option<&Port>) -> Chosen {
        let says_https = port.is_some_and(|port| {
            let of = port.app_protocol.as_deref();
            of.or(port.name.as_deref())
                .is_some_and(|of| of.eq_ignore_ascii_case("https"))
        });
        let usual = if says_https { "https" } else { "http" };
        Chosen {
            number,
            protocol: self.protocol.clone().unwrap_or_else(|| usual.to_owned()),
        }
    }
}

fn instance(
    service: &ServiceName,
    namespace: &str,
    endpoint: &Endpoint,
    port: &Chosen,
    hinted: bool,
) -> Option<ServiceInstance> {
    // All addresses of an endpoint are of the same pod.
    let host = endpoint.addresses.first()?;
    let id = format!("{namespace}/{service}@{host}:{}", port.number);
    let mut instance = ServiceInstance::new(service.clone(), host, port.number)
        .with_id(id)
        .with_protocol(port.protocol.as_str())
        .with_status(status(&endpoint.conditions))
        .with_health_check_path("")
        .with_metadata("kubernetes.namespace", namespace);
    if let Some(node) = &endpoint.node_name {
        instance = instance.with_metadata("kubernetes.node", node);
    }
    let pod = endpoint
        .target_ref
        .as_ref()
        .filter(|target| target.kind == "Pod");
    if let Some(pod) = pod {
        instance = instance.with_metadata("kubernetes.pod", &pod.name);
    }
    instance.zone.clone_from(&endpoint.zone);
    if hinted && let Some(hints) = &endpoint.hints {
        let zones: Vec<&str> = hints
            .for_zones
            .iter()
            .map(|zone| zone.name.as_str())
            .collect();
        instance = instance.with_metadata("kubernetes.hints", zones.join(","));
        let own = endpoint.zone.as_deref();
        if !own.is_some_and(|own| zones.contains(&own)) {
            instance.zone = zones.first().map(|zone| (*zone).to_owned());
        }
    }
    match instance.validate() {
        Ok(()) => Some(instance),
        Err(error) => {
            tracing::warn!(
                target: "trunkline::discovery",
                %service, namespace, error = %error.report(),
                "an endpoint is left out"
            );
            None
        }
    }
}

/// What is not said of ready and serving is true.
pub(crate) fn status(conditions: &Conditions) -> InstanceStatus {
    let ready = conditions.ready.unwrap_or(true);
    let terminating = conditions.terminating.unwrap_or(false);
    let serving = conditions.serving.unwrap_or(true);
    match (ready, terminating) {
        // Also what terminates, where a Service publishes addresses that are not ready.
        (true, false) => InstanceStatus::Up,
        (_, true) if serving => InstanceStatus::Draining,
        _ => InstanceStatus::Down,
    }
}

const fn rank(status: InstanceStatus) -> u8 {
    match status {
        InstanceStatus::Up => 2,
        InstanceStatus::Draining => 1,
        InstanceStatus::Down => 0,
    }
}

/// Hints say which zone an endpoint is for; they count only in namespaces where every endpoint that is ready has some.
fn hinted_namespaces<'a>(families: &Families, slices: &'a [EndpointSlice]) -> BTreeSet<&'a str> {
    let (mut all, mut without) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.iter().filter(|slice| families.takes(slice)) {
        let namespace = slice.metadata.namespace.as_str();
        for endpoint in &slice.endpoints {
            if status(&endpoint.conditions) != InstanceStatus::Up {
                continue;
            }
            let hints = endpoint.hints.as_ref();
            let has_some = hints.is_some_and(|hints| !hints.for_zones.is_empty());
            if has_some { &mut all } else { &mut without }.insert(namespace);
        }
    }
    all.retain(|namespace| !without.contains(namespace));
    all
}

/// What the Service of the namespace is annotated with.
fn annotate(instance: &mut ServiceInstance, namespace: &str, services: &[Service]) {
    let mut of = services.iter().map(|service| &service.metadata);
    let Some(metadata) = of.find(|metadata| metadata.namespace == namespace) else {
        return;
    };
    let mut annotated = instance.clone();
    for (key, value) in &metadata.annotations {
        match key.strip_prefix(OURS) {
            Some("version") => annotated.version.clone_from(value),
            Some("health-check-path") => annotated.health_check_path.clone_from(value),
            Some(other) => {
                if let Some(name) = other.strip_prefix("metadata.") {
                    annotated.metadata.insert(name.to_owned(), value.clone());
                }
            }
            None => {}
        }
    }
    match annotated.validate() {
        Ok(()) => *instance = annotated,
        Err(error) => tracing::warn!(
            target: "trunkline::discovery",
            service = %instance.name, namespace, error = %error.report(),
            "the annotations of the Service are left out"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::IpFamily;

    fn slices(value: serde_json::Value) -> Vec<EndpointSlice> {
        serde_json::from_value(value).unwrap()
    }

    fn seen(slices: &[EndpointSlice], services: &[Service]) -> Vec<ServiceInstance> {
        let families = Families::of(IpFamily::Auto, slices.iter());
        instances(&Ports::default(), &families, &users(), slices, services)
    }

    fn users() -> ServiceName {
        ServiceName::new("users").unwrap()
    }

    fn endpoint(
        address: &str,
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    ) -> serde_json::Value {
        json!({"addresses": [address], "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
    }

    #[test]
    fn conditions_are_read_as_they_are_meant() {
        let endpoints = [
            endpoint("10.0.0.1", None, None, None),
            endpoint("10.0.0.2", Some(true), Some(true), Some(false)),
            endpoint("10.0.0.3", Some(false), Some(true), Some(true)),
            endpoint("10.0.0.4", Some(false), Some(false), Some(true)),
            endpoint("10.0.0.5", Some(false), Some(false), Some(false)),
            endpoint("10.0.0.6", Some(false), None, Some(true)),
        ];
        let slices = slices(
            json!([{"metadata": {"namespace": "shop"}, "ports": [{"port": 80}], "endpoints": endpoints}]),
        );
        let found = seen(&slices, &[]);
        let shown: Vec<&str> = found.iter().map(|it| it.status.as_str()).collect();
        assert_eq!(shown, ["up", "up", "draining", "down", "down", "draining"]);
        assert_eq!(found[0].id, "shop/users@10.0.0.1:80");
    }

    #[test]
    fn ports_are_chosen_by_name_number_and_habit() {
        let ports: Vec<Port> = serde_json::from_value(json!([
            {"name": "metrics", "port": 9090, "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "http", "port": 8080, "appProtocol": "kubernetes.io/h2c"},
            {"name": "web", "port": 8443, "appProtocol": "https"},
        ]))
        .unwrap();
        let chosen = |port: Option<&str>, ports: &[Port]| {
            let settings = Ports {
                port: port.map(str::to_owned),
                protocol: None,
            };
            settings.choose(ports).map(|it| (it.number, it.protocol))
        };
        let http = |number| Some((number, "http".to_owned()));
        assert_eq!(chosen(None, &ports), http(8080));
        assert_eq!(chosen(Some("metrics"), &ports), http(9090));
        assert_eq!(chosen(Some("9090"), &ports), http(9090));
        assert_eq!(
            chosen(Some("web"), &ports),
            Some((8443, "https".to_owned()))
        );
        assert_eq!(chosen(Some("dns"), &ports), None);
        assert_eq!(chosen(Some("absent"), &ports), None);
        assert_eq!(chosen(None, &ports[..2]), http(9090));
        assert_eq!(chosen(None, &[]), None);
        assert_eq!(chosen(Some("80"), &[]), http(80));
        let plain = Ports {
            port: Some("web".to_owned()),
            protocol: Some("http".to_owned()),
        };
        assert_eq!(plain.choose(&ports).unwrap().protocol, "http");
    }

    #[test]
    fn an_endpoint_in_two_slices_is_one_instance_and_the_better_word_counts() {
        let slice = |ready: bool| json!({"metadata": {"namespace": "shop"}, "ports": [{"port": 80}], "endpoints": [endpoint("10.0.0.1", Some(ready), None, None)]});
        for order in [[true, false], [false, true]] {
            let slices = slices(json!([slice(order[0]), slice(order[1])]));
            let found = seen(&slices, &[]);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].status, InstanceStatus::Up);
        }
    }

    #[test]
    fn zones_are_their_own_unless_all_have_hints() {
        let hinted = |address: &str, zone: &str, hint: Option<&str>| {
            let hints = hint.map(|hint| json!({"forZones": [{"name": hint}]}));
            json!({"addresses": [address], "zone": zone, "hints": hints})
        };
        let zones = |endpoints: serde_json::Value| {
            let slices = slices(
                json!([{"metadata": {"namespace": "shop"}, "ports": [{"port": 80}], "endpoints": endpoints}]),
            );
            let found = seen(&slices, &[]);
            found
                .into_iter()
                .map(|it| it.zone.unwrap())
                .collect::<Vec<_>>()
        };
        let all = json!([
            hinted("10.0.0.1", "a", Some("b")),
            hinted("10.0.0.2", "a", Some("a"))
        ]);
        assert_eq!(zones(all), ["b", "a"]);
        let some = json!([
            hinted("10.0.0.1", "a", Some("b")),
            hinted("10.0.0.2", "a", None)
        ]);
        assert_eq!(zones(some), ["a", "a"]);
    }

    #[test]
    fn annotations_of_the_service_of_the_namespace_are_taken() {
        let slices = slices(json!([
            {"metadata": {"namespace": "shop"}, "ports": [{"port": 80}], "endpoints": [endpoint("10.0.0.1", None, None, None)]},
            {"metadata": {"namespace": "test"}, "ports": [{"port": 80}], "endpoints": [endpoint("10.0.0.2", None, None, None)]},
        ]));
        let services: Vec<Service> = serde_json::from_value(json!([{"metadata": {"namespace": "shop", "annotations": {
            "trunkline/version": "2.1", "trunkline/health-check-path": "/ready", "trunkline/metadata.team": "core", "other": "x",
        }}}]))
        .unwrap();
        let found = seen(&slices, &services);
        assert_eq!(
            (
                found[0].version.as_str(),
                found[0].health_check_path.as_str()
            ),
            ("2.1", "/ready")
        );
        assert_eq!(found[0].metadata["team"], "core");
        assert!(!found[1].metadata.contains_key("team"));
        let odd: Vec<Service> = serde_json::from_value(json!([{"metadata": {"namespace": "shop", "annotations": {"trunkline/health-check-path": "ready"}}}])).unwrap();
        let found = seen(&slices, &odd);
        assert_eq!(found[0].health_check_path, "");
    }

    #[test]
    fn what_the_server_leaves_empty_is_no_error() {
        let slices =
            slices(json!([{"metadata": {"namespace": "shop"}, "ports": null, "endpoints": null}]));
        assert!(seen(&slices, &[]).is_empty());
    }
}
