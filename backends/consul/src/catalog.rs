//! What is read from the catalog.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use trunkline_core::{Error, ErrorKind, Result, Retry};
use trunkline_discovery::{InstanceList, ServiceName};

use crate::agent::{Agent, Answer, escaped};
use crate::announcement::span;
use crate::config::{Consistency, ConsulConfig};
use crate::decode::{Entry, Service, instances};

/// How long one look waits for an announcement to be seen; the next one sees what this one missed.
const LOOK: Duration = Duration::from_millis(500);

/// The consistency that one question is asked with.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    datacenter: String,
    consistency: Consistency,
    max_stale: Duration,
}

/// A service at one moment.
pub(crate) struct Seen {
    pub(crate) list: InstanceList,
    /// What a blocking query waits for something newer than; 0 when there is nothing to wait for.
    pub(crate) index: u64,
}

impl Asking {
    pub(crate) fn new(config: &ConsulConfig) -> Self {
        let datacenter = config.datacenter.as_deref();
        let datacenter = datacenter.map(|dc| format!("&dc={}", escaped(dc)));
        Self {
            datacenter: datacenter.unwrap_or_default(),
            consistency: config.consistency,
            max_stale: config.max_stale,
        }
    }

    fn words(&self) -> String {
        let consistency = match self.consistency {
            Consistency::Default => "",
            Consistency::Consistent => "&consistent",
            Consistency::Stale => "&stale",
        };
        format!("{}{consistency}", self.datacenter)
    }

    /// The instances of a service; waits for something newer than an index where there is one.
    pub(crate) async fn service(
        &self,
        agent: &Agent,
        service: &ServiceName,
        newer_than: u64,
        wait: Duration,
    ) -> Result<Seen> {
        let mut within = agent.request_timeout();
        let mut path = format!(
            "/v1/health/service/{}?{}",
            escaped(service.as_str()),
            self.words()
        );
        if newer_than > 0 {
            path.push_str(&format!("&index={newer_than}&wait={}", span(wait)));
            // Consul adds up to a sixteenth of its own accord.
            within += wait + wait / 16;
        }
        let mut answer = agent.get(&path, within).await?;
        if self.is_too_old(&answer) {
            let path = format!(
                "/v1/health/service/{}?{}",
                escaped(service.as_str()),
                self.datacenter
            );
            answer = agent.get(&path, agent.request_timeout()).await?;
        }
        // A blocking query of newer releases says that no leader is known where there is one: it means nothing.
        let index = answer.number("x-consul-index").unwrap_or_default();
        let entries: Vec<Entry> = answer.json()?;
        if entries.is_empty() && answer.is_filtered() {
            // An empty list would be believed, and everybody would lose their instances because of a policy.
            return Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "the token may not read the service {service} or its nodes: Consul leaves them out of the answer"
                ),
            ));
        }
        Ok(Seen {
            list: InstanceList::new(instances(service, entries), index),
            index,
        })
    }

    fn is_too_old(&self, answer: &Answer) -> bool {
        let age = answer
            .number("x-consul-lastcontact")
            .map(Duration::from_millis);
        self.consistency == Consistency::Stale && age.is_some_and(|age| age > self.max_stale)
    }

    /// The names of services that have an instance.
    pub(crate) async fn names(&self, agent: &Agent) -> Result<Vec<ServiceName>> {
        let within = agent.request_timeout();
        let path = format!("/v1/catalog/services?{}", self.words());
        let known: serde_json::Map<String, serde_json::Value> =
            agent.get(&path, within).await?.json()?;
        // Consul goes on naming a service until it forgets the last instance, whose lease may be long over.
        let filter = escaped("CheckID matches \"^trunkline:\"").to_string();
        let path = format!("/v1/health/state/critical?{}&filter={filter}", self.words());
        let over: Vec<OverLease> = agent.get(&path, within).await?.json()?;
        let over: BTreeSet<String> = over.into_iter().map(|lease| lease.service_name).collect();
        let mut names = BTreeSet::new();
        for name in known.keys() {
            // A name that is spelt otherwise here would not be found by what it is called.
            let Some(service) = ServiceName::new(name)
                .ok()
                .filter(|found| is_spelt(found, name))
            else {
                continue;
            };
            if over.contains(name) {
                let seen = self.service(agent, &service, 0, Duration::ZERO).await?;
                if seen.list.instances.is_empty() {
                    continue;
                }
            }
            names.insert(service);
        }
        Ok(names.into_iter().collect())
    }
}

/// Consul does not tell upper from lower case.
fn is_spelt(service: &ServiceName, name: &str) -> bool {
    service.as_str().eq_ignore_ascii_case(name)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OverLease {
    service_name: String,
}

/// One entry of `/v1/catalog/service/…`.
#[derive(Deserialize)]
struct Listed {
    #[serde(flatten)]
    fields: ListedFields,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedFields {
    #[serde(rename = "ServiceID")]
    service_id: String,
    service_address: String,
    service_port: u32,
    #[serde(default)]
    service_tags: Option<Vec<String>>,
    #[serde(default)]
    service_meta: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    service_weights: crate::decode::Weights,
}

impl From<Listed> for Service {
    fn from(listed: Listed) -> Self {
        let listed = listed.fields;
        Self {
            id: listed.service_id,
            service: String::new(),
            tags: listed.service_tags,
            meta: listed.service_meta,
            address: listed.service_address,
            port: listed.service_port,
            weights: listed.service_weights,
        }
    }
}

/// Waits until the catalog shows a service as it should be: an agent answers first and tells the servers afterwards.
pub(crate) async fn shown(
    agent: &Agent,
    name: &str,
    service_id: &str,
    is_right: impl Fn(&[Service]) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + agent.request_timeout();
    let filter = format!("ServiceID == \"{service_id}\"");
    let path = format!(
        "/v1/catalog/service/{}?filter={}",
        escaped(name),
        escaped(&filter)
    );
    let mut index = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let look = LOOK.min(left);
        let asked = if index > 0 {
            format!("{path}&index={index}&wait={}", span(look))
        } else {
            path.clone()
        };
        let answer = agent.get(&asked, look + agent.request_timeout()).await?;
        let listed: Vec<Listed> = answer.json()?;
        let services: Vec<Service> = listed.into_iter().map(Service::from).collect();
        if is_right(&services) {
            return Ok(());
        }
        if left.is_zero() {
            return Err(Error::timeout(
                "the agent of Consul took it, but the catalog does not show it: does the agent reach its servers, and may it \
                 write the service?",
            )
            .with_retry(Retry::Safe));
        }
        let newer = answer.number("x-consul-index").unwrap_or_default();
        index = if newer < index { 0 } else { newer };
        if index == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
