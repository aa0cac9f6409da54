//! What is read from the catalog.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use tokio::time::Instant;
use trunkline_core::{Error, ErrorKind, Result, Retry};
use trunkline_discovery::{InstanceList, InstanceStatus, ServiceInstance, ServiceName};

use crate::agent::{Agent, Answer, escaped};
use crate::announcement::span;
use crate::config::{Consistency, ConsulConfig};
use crate::decode::{Entry, Service, instances};

/// How long one look waits for an announcement to be seen; the next one sees what this one missed.
const LOOK: Duration = Duration::from_millis(500);

/// Questions at a time about services that may have nobody left; short ones have few connections.
const AT_ONCE: usize = 16;

/// The metadata that says which other datacentre an instance was found in.
const DATACENTER: &str = "consul.datacenter";

/// Where instances are looked for, and the consistency that one question is asked with.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    datacenter: String,
    /// Those whose instances are taken when the one above has none that is up, in their order.
    failover: Vec<String>,
    consistency: Consistency,
    max_stale: Duration,
}

/// A service at one moment.
pub(crate) struct Seen {
    pub(crate) list: InstanceList,
    /// What a blocking query waits for something newer than; 0 when there is nothing to wait for.
    pub(crate) index: u64,
    /// Other datacentres were asked as well, whose changes the index does not tell.
    pub(crate) looked_elsewhere: bool,
}

impl Asking {
    pub(crate) fn new(config: &ConsulConfig) -> Self {
        Self {
            datacenter: config.datacenter.as_deref().map(named).unwrap_or_default(),
            failover: config.failover.clone(),
            consistency: config.consistency,
            max_stale: config.max_stale,
        }
    }

    fn words(&self, datacenter: &str) -> String {
        let consistency = match self.consistency {
            Consistency::Default => "",
            Consistency::Consistent => "&consistent",
            Consistency::Stale => "&stale",
        };
        format!("{datacenter}{consistency}")
    }

    /// The instances of a service; waits for something newer than an index where there is one.
    pub(crate) async fn service(
        &self,
        agent: &Agent,
        service: &ServiceName,
        newer_than: u64,
        wait: Duration,
    ) -> Result<Seen> {
        let within = agent.request_timeout();
        let asked = self.one(agent, service, &self.datacenter, newer_than, wait, within);
        let own = asked.await?;
        if self.failover.is_empty() || is_served(&own.list) {
            return Ok(own);
        }
        self.elsewhere(agent, service, own).await
    }

    /// The instances of the first other datacentre that has one that is up.
    async fn elsewhere(&self, agent: &Agent, service: &ServiceName, own: Seen) -> Result<Seen> {
        // One that does not answer must leave time for the next one.
        let within = agent.request_timeout() / 2;
        let mut asked = Vec::new();
        for datacenter in &self.failover {
            asked.push(async move {
                let there = named(datacenter);
                let seen = self.one(agent, service, &there, 0, Duration::ZERO, within);
                (datacenter, seen.await)
            });
        }
        let mut answers = stream::iter(asked).buffered(AT_ONCE);
        let mut unknown = None;
        while let Some((datacenter, answer)) = answers.next().await {
            match answer {
                Ok(seen) if is_served(&seen.list) => {
                    let found = seen.list.instances.into_iter();
                    let found = found.map(|instance| of_datacenter(instance, datacenter));
                    return Ok(Seen {
                        list: InstanceList::new(found.collect(), own.index),
                        index: own.index,
                        looked_elsewhere: true,
                    });
                }
                Ok(_) => {}
                Err(error) => unknown = unknown.or(Some((datacenter, error))),
            }
        }
        match unknown {
            None => Ok(Seen {
                looked_elsewhere: true,
                ..own
            }),
            // Who cannot be asked may have all that there is: an empty list would be believed.
            Some((datacenter, error)) => Err(Error::new(
                error.kind(),
                format!("the datacentre {datacenter} cannot be asked, and no other has an instance of {service} that is up"),
            )
            .with_retry(error.retry())
            .with_source(error)),
        }
    }

    async fn one(
        &self,
        agent: &Agent,
        service: &ServiceName,
        datacenter: &str,
        newer_than: u64,
        wait: Duration,
        mut within: Duration,
    ) -> Result<Seen> {
        let mut path = format!(
            "/v1/health/service/{}?{}",
            escaped(service.as_str()),
            self.words(datacenter)
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
                datacenter
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
            looked_elsewhere: false,
        })
    }

    fn is_too_old(&self, answer: &Answer) -> bool {
        let age = answer
            .number("x-consul-lastcontact")
            .map(Duration::from_millis);
        self.consistency == Consistency::Stale && age.is_some_and(|age| age > self.max_stale)
    }

    /// The names of services that have an instance, also where a failover leads to.
    pub(crate) async fn names(&self, agent: &Agent) -> Result<Vec<ServiceName>> {
        let mut names = self.names_of(agent, &self.datacenter).await?;
        for datacenter in &self.failover {
            match self.names_of(agent, &named(datacenter)).await {
                Ok(more) => names.extend(more),
                Err(error) => tracing::warn!(
                    target: "trunkline::discovery",
                    datacenter, error = %error.report(),
                    "the services of another datacentre cannot be listed"
                ),
            }
        }
        Ok(names.into_iter().collect())
    }

    async fn names_of(&self, agent: &Agent, datacenter: &str) -> Result<BTreeSet<ServiceName>> {
        let within = agent.request_timeout();
        let words = self.words(datacenter);
        let path = format!("/v1/catalog/services?{words}");
        let known: serde_json::Map<String, serde_json::Value> =
            agent.get(&path, within).await?.json()?;
        // Consul goes on naming a service until it forgets the last instance, whose lease may be long over.
        let filter = escaped("CheckID matches \"^trunkline:\"").to_string();
        let path = format!("/v1/health/state/critical?{words}&filter={filter}");
        let over: Vec<OverLease> = agent.get(&path, within).await?.json()?;
        let over: BTreeSet<String> = over.into_iter().map(|lease| lease.service_name).collect();
        let (mut names, mut doubtful) = (BTreeSet::new(), Vec::new());
        for name in known.keys() {
            // A name that is spelt otherwise here would not be found by what it is called.
            let Some(service) = ServiceName::new(name)
                .ok()
                .filter(|found| is_spelt(found, name))
            else {
                continue;
            };
            if over.contains(name) {
                doubtful.push(service);
            } else {
                names.insert(service);
            }
        }
        // After a crash these may be all that there were.
        let mut asked = Vec::new();
        for service in doubtful {
            asked.push(async move {
                let seen = self.one(agent, &service, datacenter, 0, Duration::ZERO, within);
                let is_there = !seen.await?.list.instances.is_empty();
                Ok::<_, Error>(is_there.then_some(service))
            });
        }
        let asked = stream::iter(asked).buffer_unordered(AT_ONCE);
        let there: Vec<Option<ServiceName>> = asked.try_collect().await?;
        names.extend(there.into_iter().flatten());
        Ok(names)
    }
}

fn named(datacenter: &str) -> String {
    format!("&dc={}", escaped(datacenter))
}

fn is_served(list: &InstanceList) -> bool {
    let mut instances = list.instances.iter();
    instances.any(|instance| instance.status == InstanceStatus::Up)
}

/// Says where an instance was found.
fn of_datacenter(instance: ServiceInstance, datacenter: &str) -> ServiceInstance {
    let mut told = instance.clone().with_metadata(DATACENTER, datacenter);
    told.zone.get_or_insert_with(|| datacenter.to_owned());
    // It may be full.
    if told.validate().is_ok() {
        told
    } else {
        instance
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
