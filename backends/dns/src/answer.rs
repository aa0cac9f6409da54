//! From records to instances.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::proto::rr::Name;
use trunkline_core::Result;
use trunkline_discovery::{InstanceList, ServiceInstance, ServiceName};

use crate::client::{Client, Found, Srv};
use crate::config::{DnsConfig, Records};
use crate::pattern::name_of;

/// Targets whose addresses are remembered.
const REMEMBERED: usize = 4096;

/// Where a target of SRV records was when it was last known.
#[derive(Debug, Default)]
pub(crate) struct Targets(Mutex<BTreeMap<Name, Vec<IpAddr>>>);

/// The instances of a service, and when to ask again.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) list: InstanceList,
    pub(crate) again: Duration,
}

/// Asks for the instances of a service.
pub(crate) async fn ask(
    client: &Client,
    config: &DnsConfig,
    targets: &Targets,
    service: &ServiceName,
) -> Result<Answer> {
    let (instances, ttl) = match &config.records {
        Records::Srv(pattern) => {
            let name = name_of(pattern, service)?;
            from_srv(client, config, targets, service, &name).await?
        }
        Records::Addresses { pattern, port } => {
            let name = name_of(pattern, service)?;
            from_addresses(client, config, service, &name, *port).await?
        }
    };
    Ok(Answer {
        again: again(config, instances.is_empty(), ttl),
        list: InstanceList::new(instances, 0),
    })
}

/// How long an answer is believed: its time to live, within the bounds that are set.
fn again(config: &DnsConfig, is_empty: bool, ttl: Option<u32>) -> Duration {
    let longest = if is_empty {
        config.negative_ttl_max.min(config.refresh_max)
    } else {
        config.refresh_max
    };
    let ttl = ttl.map_or(longest, |ttl| Duration::from_secs(u64::from(ttl)));
    ttl.min(longest).max(config.refresh_min)
}

async fn from_addresses(
    client: &Client,
    config: &DnsConfig,
    service: &ServiceName,
    name: &Name,
    port: u16,
) -> Result<(Vec<ServiceInstance>, Option<u32>)> {
    let found = client.addresses(name).await?;
    let places = hosts(config, name, &found.records);
    let instances = places.into_iter();
    let instances = instances.map(|host| instance(config, service, host, port, name));
    Ok((instances.collect(), found.ttl))
}

async fn from_srv(
    client: &Client,
    config: &DnsConfig,
    targets: &Targets,
    service: &ServiceName,
    name: &Name,
) -> Result<(Vec<ServiceInstance>, Option<u32>)> {
    let found = client.srv(name).await?;
    // A target that is the root says that there is decidedly no such service (RFC 2782).
    let records: Vec<Srv> = found
        .records
        .into_iter()
        .filter(|srv| !srv.target.is_root() && srv.port > 0)
        .collect();
    let mut names: Vec<&Name> = records.iter().map(|srv| &srv.target).collect();
    names.sort();
    names.dedup();
    let asked = names.iter().map(|target| client.addresses(target));
    let answers = join_all(asked).await;
    let mut ttl = found.ttl;
    let mut known: BTreeMap<&Name, Vec<IpAddr>> = BTreeMap::new();
    let mut error = None;
    for (target, answer) in names.into_iter().zip(answers) {
        match targets.take_in(target, answer) {
            Ok(found) => {
                ttl = [ttl, found.ttl].into_iter().flatten().min();
                known.insert(target, found.records);
            }
            Err(unknown) => error = Some(unknown),
        }
    }
    if let Some(error) = error {
        if known.values().all(Vec::is_empty) {
            return Err(error);
        }
        tracing::warn!(
            target: "trunkline::discovery",
            %service, error = %error.report(),
            "where a target of SRV records is cannot be found out; it is left out"
        );
    }
    Ok((instances_of(config, service, &records, &known), ttl))
}

impl Targets {
    /// Takes an answer in; for one that failed the addresses that were known last, where they were.
    fn take_in(&self, target: &Name, answer: Result<Found<IpAddr>>) -> Result<Found<IpAddr>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(found) => {
                if known.len() >= REMEMBERED && !known.contains_key(target) {
                    known.pop_first();
                }
                known.insert(target.clone(), found.records.clone());
                Ok(found)
            }
            Err(error) => match known.get(target) {
                Some(records) => Ok(Found {
                    records: records.clone(),
                    ttl: None,
                }),
                None => Err(error),
            },
        }
    }
}

/// One instance for each address of each target. Those of a worse priority are called when there is none left with a better
/// one: the balancer knows the order.
fn instances_of(
    config: &DnsConfig,
    service: &ServiceName,
    records: &[Srv],
    known: &BTreeMap<&Name, Vec<IpAddr>>,
) -> Vec<ServiceInstance> {
    let reachable = |srv: &&Srv| {
        known
            .get(&srv.target)
            .is_some_and(|found| !found.is_empty())
    };
    let mut found: BTreeMap<String, ServiceInstance> = BTreeMap::new();
    for srv in records.iter().filter(reachable) {
        let addresses = known.get(&srv.target).map_or(&[][..], Vec::as_slice);
        for host in hosts(config, &srv.target, addresses) {
            let mut instance = instance(config, service, host, srv.port, &srv.target);
            // 0 is the least share in DNS, and none at all here.
            instance.weight = u32::from(srv.weight).max(1);
            let priority = srv.priority.to_string();
            instance.metadata.insert("priority".to_owned(), priority);
            let entry = found
                .entry(instance.id.clone())
                .or_insert_with(|| instance.clone());
            let rank = |it: &ServiceInstance| (Reverse(it.priority()), it.weight);
            if rank(entry) < rank(&instance) {
                *entry = instance;
            }
        }
    }
    found.into_values().collect()
}

/// What to connect to: addresses, or with TLS the name that certificates are for.
fn hosts(config: &DnsConfig, name: &Name, addresses: &[IpAddr]) -> Vec<String> {
    if config.protocol == "https" {
        let name = plain(name);
        return (!addresses.is_empty())
            .then_some(name)
            .into_iter()
            .collect();
    }
    let mut hosts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// A name without the dot at its end.
fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

fn instance(
    config: &DnsConfig,
    service: &ServiceName,
    host: String,
    port: u16,
    name: &Name,
) -> ServiceInstance {
    // The same for the same place, whenever it is asked for.
    let id = format!("{service}@{host}:{port}");
    ServiceInstance::new(service.clone(), host, port)
        .with_id(id)
        .with_protocol(config.protocol.as_str())
        .with_health_check_path("")
        .with_metadata("dns.name", plain(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
        Srv {
            priority,
            weight,
            port,
            target: name(target),
        }
    }

    fn shown(
        records: &[Srv],
        known: &[(&str, &[&str])],
        protocol: &str,
    ) -> Vec<(String, u32, u32)> {
        let mut config = DnsConfig::srv("{service}.test");
        config.protocol = protocol.to_owned();
        let names: Vec<(Name, Vec<IpAddr>)> = known
            .iter()
            .map(|(target, hosts)| {
                (
                    name(target),
                    hosts.iter().map(|ip| ip.parse().unwrap()).collect(),
                )
            })
            .collect();
        let known = names
            .iter()
            .map(|(name, hosts)| (name, hosts.clone()))
            .collect();
        let users = ServiceName::new("users").unwrap();
        let instances = instances_of(&config, &users, records, &known);
        let instances = instances.into_iter();
        instances
            .map(|it| (it.base_url(), it.weight, it.priority()))
            .collect()
    }

    #[test]
    fn priorities_are_the_order_of_failing_over() {
        let records = [
            srv(0, 5, 80, "nowhere.test."),
            srv(1, 0, 80, "a.test."),
            srv(1, 7, 81, "b.test."),
            srv(2, 9, 80, "c.test."),
            srv(3, 60, 80, "a.test."),
        ];
        let known: &[(&str, &[&str])] = &[
            ("a.test.", &["10.0.0.1", "fd00::1"]),
            ("b.test.", &["10.0.0.2"]),
            ("c.test.", &["10.0.0.3"]),
            ("nowhere.test.", &[]),
        ];
        let shown = shown(&records, known, "http");
        let wanted = [
            ("http://10.0.0.1:80", 1, 1),
            ("http://10.0.0.2:81", 7, 1),
            ("http://10.0.0.3:80", 9, 2),
            ("http://[fd00::1]:80", 1, 1),
        ];
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(url, weight, priority)| ((*url).to_owned(), *weight, *priority))
            .collect();
        assert_eq!(shown, wanted);
    }

    #[test]
    fn answers_are_believed_for_their_time_within_bounds() {
        let config = DnsConfig::srv("{service}.test");
        for (is_empty, ttl, seconds) in [
            (false, Some(7), 7),
            (false, Some(0), 1),
            (false, Some(86_400), 30),
            (false, None, 30),
            (true, Some(3), 3),
            (true, Some(86_400), 5),
            (true, None, 5),
        ] {
            let believed = again(&config, is_empty, ttl);
            assert_eq!(believed, Duration::from_secs(seconds), "{is_empty} {ttl:?}");
        }
    }

    #[test]
    fn with_tls_the_name_stays() {
        let known: &[(&str, &[&str])] = &[("A.test.", &["10.0.0.1", "10.0.0.2"])];
        let shown = shown(&[srv(1, 3, 443, "A.test.")], known, "https");
        assert_eq!(shown, [("https://a.test:443".to_owned(), 3, 1)]);
    }

    #[test]
    fn one_place_that_is_named_twice_is_one_instance() {
        let known: &[(&str, &[&str])] = &[("a.test.", &["10.0.0.1"]), ("b.test.", &["10.0.0.1"])];
        let records = [srv(2, 3, 80, "a.test."), srv(1, 1, 80, "b.test.")];
        assert_eq!(
            shown(&records, known, "http"),
            [("http://10.0.0.1:80".to_owned(), 1, 1)]
        );
    }

    #[test]
    fn a_target_that_cannot_be_asked_is_where_it_was() {
        let targets = Targets::default();
        let a = name("a.test.");
        let failed = || Err(trunkline_core::Error::unavailable("away"));
        assert!(targets.take_in(&a, failed()).is_err());
        let records = vec!["10.0.0.1".parse().unwrap()];
        let found = Found {
            records,
            ttl: Some(5),
        };
        targets.take_in(&a, Ok(found)).unwrap();
        assert_eq!(targets.take_in(&a, failed()).unwrap().records.len(), 1);
    }
}
