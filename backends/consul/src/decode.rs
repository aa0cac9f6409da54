//! What Consul knows, as instances: our own as they were announced, those of others as well as can be.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use serde::Deserialize;
use trunkline_discovery::{InstanceStatus, ServiceInstance, ServiceName};

use crate::encode::{
    HEALTH_PATH, LEASE, MORE, MORE_HEALTH_PATH, PROTOCOL, STATUS, VERSION, WEIGHT, ZONE,
    lease_check, status_check,
};

/// One entry of `/v1/health/service/…`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    pub(crate) node: Node,
    pub(crate) service: Service,
    #[serde(default)]
    pub(crate) checks: Option<Vec<Check>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Node {
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) meta: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) service: String,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) meta: Option<BTreeMap<String, String>>,
    pub(crate) address: String,
    pub(crate) port: u32,
    pub(crate) weights: Weights,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Weights {
    pub(crate) passing: u32,
    pub(crate) warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Check {
    #[serde(rename = "CheckID")]
    pub(crate) check_id: String,
    pub(crate) status: String,
}

impl Check {
    pub(crate) fn is_critical(&self) -> bool {
        self.status == "critical"
    }
}

impl Service {
    pub(crate) fn meta(&self, key: &str) -> Option<&str> {
        self.meta.as_ref()?.get(key).map(String::as_str)
    }
}

/// The instances of a service whose lease stands. Of those with the same id the youngest announcement is taken.
pub(crate) fn instances(name: &ServiceName, entries: Vec<Entry>) -> Vec<ServiceInstance> {
    let mut found: BTreeMap<String, (String, ServiceInstance)> = BTreeMap::new();
    for entry in entries {
        let told = match entry.service.meta(LEASE) {
            Some(token) => {
                let token = token.to_owned();
                own(name, &entry, &token).map(|instance| (token, instance))
            }
            None => Some((String::new(), foreign(name, &entry))),
        };
        let Some((token, mut instance)) = told else {
            continue;
        };
        if let Err(error) = instance.validate() {
            tracing::debug!(target: "trunkline::discovery", service = %name, %error, "an instance in Consul is left out");
            continue;
        }
        if token.is_empty() && found.contains_key(&instance.id) {
            // Ids of Consul are unique within a node only.
            instance.id = format!("{}/{}", entry.node.node, instance.id);
        }
        match found.entry(instance.id.clone()) {
            Slot::Vacant(slot) => drop(slot.insert((token, instance))),
            Slot::Occupied(mut slot) if slot.get().0 < token => {
                drop(slot.insert((token, instance)))
            }
            Slot::Occupied(_) => {}
        }
    }
    found.into_values().map(|(_, instance)| instance).collect()
}

/// What we announced; nothing when its lease is over.
fn own(name: &ServiceName, entry: &Entry, token: &str) -> Option<ServiceInstance> {
    let service = &entry.service;
    let (lease, ours) = (
        lease_check(&service.id, token),
        status_check(&service.id, token),
    );
    let checks = entry.checks.as_deref().unwrap_or_default();
    let stands = checks
        .iter()
        .any(|check| check.check_id == lease && !check.is_critical());
    if !stands {
        return None;
    }
    let mut instance = ServiceInstance::new(name.clone(), service.address.clone(), port(service));
    instance.id = plain_id(&service.id)?;
    instance.protocol = service.meta(PROTOCOL)?.to_owned();
    instance.version = service.meta(VERSION)?.to_owned();
    instance.zone = service.meta(ZONE).map(str::to_owned);
    instance.weight = match service.meta(WEIGHT) {
        Some(weight) => weight.parse().ok()?,
        None => service.weights.passing,
    };
    instance.status = match service.meta(STATUS) {
        Some("draining") => InstanceStatus::Draining,
        Some(_) => InstanceStatus::Down,
        None => InstanceStatus::Up,
    };
    instance.health_check_path = service.meta(HEALTH_PATH).unwrap_or_default().to_owned();
    let mut more = String::new();
    for (key, value) in service.meta.iter().flatten() {
        // In the order of their numbers, which is that of the keys.
        if key.starts_with(MORE) {
            more.push_str(value);
        } else if !matches!(
            key.as_str(),
            LEASE | STATUS | WEIGHT | PROTOCOL | VERSION | ZONE | HEALTH_PATH
        ) {
            instance.metadata.insert(key.clone(), value.clone());
        }
    }
    read_more(&more, &mut instance)?;
    let others = checks
        .iter()
        .filter(|check| check.check_id != lease && check.check_id != ours);
    if instance.status == InstanceStatus::Up {
        instance.status = status_of(others);
    }
    Some(instance)
}

/// What somebody else registered.
fn foreign(name: &ServiceName, entry: &Entry) -> ServiceInstance {
    let service = &entry.service;
    let checks = entry.checks.as_deref().unwrap_or_default();
    let host = if service.address.is_empty() {
        &entry.node.address
    } else {
        &service.address
    };
    let mut instance = ServiceInstance::new(name.clone(), host.clone(), port(service));
    instance.id.clone_from(&service.id);
    let tags = service.tags.as_deref().unwrap_or_default();
    let tagged = |wanted: &str| tags.iter().any(|tag| tag == wanted);
    let word = |key: &str| {
        let begin = format!("{key}=");
        let tag = || tags.iter().find_map(|tag| tag.strip_prefix(&begin));
        service.meta(key).or_else(tag)
    };
    let secure = word("secure") == Some("true") || tagged("https");
    instance.protocol = match word(PROTOCOL).or_else(|| word("scheme")) {
        Some(protocol) => protocol.to_owned(),
        None if secure => "https".to_owned(),
        None => "http".to_owned(),
    };
    instance.version = word(VERSION).unwrap_or_default().to_owned();
    let zone = word(ZONE).or_else(|| entry.node.meta.as_ref()?.get(ZONE).map(String::as_str));
    instance.zone = zone.map(str::to_owned);
    let warning = checks.iter().any(|check| check.status == "warning");
    instance.weight = if warning {
        service.weights.warning
    } else {
        service.weights.passing
    };
    instance.status = status_of(checks.iter());
    instance.health_check_path = word(HEALTH_PATH).unwrap_or_default().to_owned();
    instance.metadata = service.meta.clone().unwrap_or_default();
    if !tags.is_empty() {
        let tags = tags.join(",");
        instance.metadata.entry("tags".to_owned()).or_insert(tags);
    }
    instance
}

/// Draining while an operator has it in maintenance, down while a check fails.
fn status_of<'a>(checks: impl Iterator<Item = &'a Check>) -> InstanceStatus {
    let mut status = InstanceStatus::Up;
    for check in checks.filter(|check| check.is_critical()) {
        if !check.check_id.starts_with("_service_maintenance:")
            && check.check_id != "_node_maintenance"
        {
            return InstanceStatus::Down;
        }
        status = InstanceStatus::Draining;
    }
    status
}

fn port(service: &Service) -> u16 {
    u16::try_from(service.port).unwrap_or_default()
}

/// Reads back what `encode::service_id` wrote.
fn plain_id(written: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'~' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(2..)?;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

fn read_more(mut more: &str, instance: &mut ServiceInstance) -> Option<()> {
    while let Some(what) = more.chars().next() {
        let (key, rest) = sized(more.get(what.len_utf8()..)?)?;
        let (value, rest) = sized(rest)?;
        if what == MORE_HEALTH_PATH {
            value.clone_into(&mut instance.health_check_path);
        } else {
            instance.metadata.insert(key.to_owned(), value.to_owned());
        }
        more = rest;
    }
    Some(())
}

fn sized(text: &str) -> Option<(&str, &str)> {
    let (length, rest) = text.split_once(':')?;
    let length: usize = length.parse().ok()?;
    Some((rest.get(..length)?, rest.get(length..)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::encode;

    const TOKEN: &str = "token-1";

    fn users() -> ServiceName {
        ServiceName::new("users").unwrap()
    }

    fn entry(value: serde_json::Value) -> Entry {
        serde_json::from_value(value).unwrap()
    }

    /// An instance as Consul tells it back.
    fn told(instance: &ServiceInstance, token: &str, lease: &str) -> Entry {
        let id = encode::service_id(&instance.id);
        let weight = encode::weight(instance.weight);
        entry(json!({
            "Node": { "Node": "n", "Address": "10.9.9.9" },
            "Service": {
                "ID": id, "Service": "users", "Address": instance.host, "Port": instance.port,
                "Meta": encode::metadata(instance, token),
                "Weights": { "Passing": weight, "Warning": weight },
            },
            "Checks": [{ "CheckID": lease_check(&id, token), "Status": lease }],
        }))
    }

    #[test]
    fn what_is_announced_is_found_whole_within_the_limits_of_consul() {
        let mut full = ServiceInstance::new(users(), "2001:db8::7", 65535)
            .with_id("a/../b c~d.é")
            .with_zone("")
            .with_weight(u32::MAX)
            .with_health_check_path(format!("/{}", "é".repeat(500)))
            .with_metadata("", "no key")
            .with_metadata("version", "reserved")
            .with_metadata("trunkline-lease", "reserved, too")
            .with_metadata("consul-x", "theirs")
            .with_metadata("a key 5:x", "m1:a1:b\0");
        for n in 0..58 {
            full = full.with_metadata(format!("key-{n:04}"), "ü".repeat(130));
        }
        full.validate().unwrap();
        let pairs = encode::metadata(&full, TOKEN);
        assert!(pairs.len() <= 64, "{}", pairs.len());
        for (key, value) in &pairs {
            assert!(key.len() <= 128 && value.len() <= 512, "{key}");
            assert!(
                key.chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'),
                "{key}"
            );
        }
        assert_eq!(
            instances(&users(), vec![told(&full, TOKEN, "passing")]),
            [full]
        );
        let none = ServiceInstance::new(users(), "h", 1)
            .with_id("..")
            .with_weight(0);
        assert_eq!(encode::service_id(&none.id), "~2e~2e");
        assert_eq!(
            instances(&users(), vec![told(&none, TOKEN, "passing")]),
            [none]
        );
    }

    #[test]
    fn an_instance_without_its_lease_is_gone() {
        let instance = ServiceInstance::new(users(), "h", 1);
        assert!(instances(&users(), vec![told(&instance, TOKEN, "critical")]).is_empty());
        let mut other = told(&instance, TOKEN, "passing");
        other.checks.as_mut().unwrap()[0].check_id = lease_check(&instance.id, "token-0");
        assert!(instances(&users(), vec![other]).is_empty());
    }

    #[test]
    fn of_two_agents_that_have_an_id_the_younger_announcement_counts() {
        let old = ServiceInstance::new(users(), "h", 1);
        let new = old.clone().with_version("2");
        for order in [[1, 2], [2, 1]] {
            let entries = order.map(|n| match n {
                1 => told(&old, "token-1", "passing"),
                _ => told(&new, "token-2", "passing"),
            });
            assert_eq!(
                instances(&users(), entries.into()),
                std::slice::from_ref(&new)
            );
        }
        // One whose lease is over stands in nobody's way.
        let entries = vec![
            told(&old, "token-1", "passing"),
            told(&new, "token-2", "critical"),
        ];
        assert_eq!(instances(&users(), entries), [old]);
    }

    #[test]
    fn instances_of_others_are_understood() {
        let java = |id: &str, node: &str, checks: serde_json::Value| {
            entry(json!({
                "Node": { "Node": node, "Address": "10.0.0.9", "Meta": { "zone": "b" } },
                "Service": {
                    "ID": id, "Service": "users", "Address": "", "Port": 8443,
                    "Tags": ["secure=true", "version=3.1"], "Meta": { "team": "core" },
                    "Weights": { "Passing": 5, "Warning": 2 },
                },
                "Checks": checks,
            }))
        };
        let up = java(
            "users-1",
            "one",
            json!([{ "CheckID": "serfHealth", "Status": "passing" }]),
        );
        let found = instances(&users(), vec![up]);
        let found = &found[0];
        assert_eq!(found.base_url(), "https://10.0.0.9:8443");
        assert_eq!(
            (found.version.as_str(), found.zone.as_deref()),
            ("3.1", Some("b"))
        );
        assert_eq!((found.weight, found.status), (5, InstanceStatus::Up));
        assert_eq!(found.metadata["team"], "core");
        assert_eq!(found.metadata["tags"], "secure=true,version=3.1");
        assert_eq!(
            found.health_check_path, "",
            "nobody said that it answers anywhere"
        );

        let all = vec![
            java("a", "one", json!([{ "CheckID": "c", "Status": "warning" }])),
            java(
                "b",
                "one",
                json!([{ "CheckID": "c", "Status": "critical" }]),
            ),
            java(
                "c",
                "one",
                json!([{ "CheckID": "_service_maintenance:c", "Status": "critical" }]),
            ),
            java("a", "two", json!(null)),
        ];
        let found = instances(&users(), all);
        let told: Vec<_> = found
            .iter()
            .map(|it| (it.id.as_str(), it.weight, it.status))
            .collect();
        let expected = [
            ("a", 2, InstanceStatus::Up),
            ("b", 5, InstanceStatus::Down),
            ("c", 5, InstanceStatus::Draining),
            ("two/a", 5, InstanceStatus::Up),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_cannot_be_called_is_left_out() {
        let no_port = entry(json!({
            "Node": { "Node": "n", "Address": "10.0.0.9" },
            "Service": { "ID": "x", "Service": "users", "Address": "", "Port": 0 },
        }));
        assert!(instances(&users(), vec![no_port]).is_empty());
    }

    #[test]
    fn a_node_that_is_gone_takes_its_instances_down() {
        let instance = ServiceInstance::new(users(), "h", 1);
        let mut gone = told(&instance, TOKEN, "passing");
        gone.checks.as_mut().unwrap().push(Check {
            check_id: "serfHealth".to_owned(),
            status: "critical".to_owned(),
        });
        assert_eq!(
            instances(&users(), vec![gone])[0].status,
            InstanceStatus::Down
        );
    }
}
