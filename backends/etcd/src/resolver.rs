//! Finding instances.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use trunkline_core::Result;
use trunkline_discovery::{InstanceList, InstanceWatch, Resolver, ServiceInstance, ServiceName};

use crate::keys::{decoded, encoded, end_of};
use crate::message::{KeyValue, Range};
use crate::registry::{EtcdRegistry, KIND, Shared};
use crate::watch;

impl Resolver for EtcdRegistry {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        let listed = self.shared().list(service).await;
        Ok(listed
            .map_err(|error| error.with_operation("resolve"))?
            .list())
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let names = self.shared().names().await;
        names.map_err(|error| error.with_operation("services"))
    }

    async fn watch(&self, service: &ServiceName) -> Result<InstanceWatch> {
        self.shared().client.check_open()?;
        Ok(watch::watch(self.shared(), service))
    }
}

/// The instances of one service by their keys, at one revision.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) instances: BTreeMap<String, ServiceInstance>,
    pub(crate) revision: u64,
}

impl Known {
    pub(crate) fn list(&self) -> InstanceList {
        InstanceList::new(self.instances.values().cloned().collect(), self.revision)
    }

    pub(crate) fn put(&mut self, service: &ServiceName, entry: &KeyValue) -> Result<()> {
        match instance_of(service, entry)? {
            Some(instance) => self.instances.insert(entry.key.clone(), instance),
            None => self.instances.remove(&entry.key),
        };
        Ok(())
    }
}

impl Shared {
    /// The instances of a service, as of now.
    pub(crate) async fn list(&self, service: &ServiceName) -> Result<Known> {
        let found = self.range(&self.keys.service(service), false).await?;
        let mut known = Known {
            revision: found.header.revision,
            ..Known::default()
        };
        for entry in &found.kvs {
            known.put(service, entry)?;
        }
        Ok(known)
    }

    async fn names(&self) -> Result<Vec<ServiceName>> {
        let found = self.range(&self.keys.services(), true).await?;
        let mut names = BTreeSet::new();
        for entry in &found.kvs {
            names.extend(self.keys.service_of(&decoded(&entry.key)?));
        }
        Ok(names.into_iter().collect())
    }

    async fn range(&self, prefix: &str, keys_only: bool) -> Result<Range> {
        let asked = json!({
            "key": encoded(prefix),
            "range_end": encoded(end_of(prefix)),
            "keys_only": keys_only,
        });
        self.client.ask("/v3/kv/range", &asked).await
    }
}

/// A neighbouring release may have written what this one cannot read: it is left out, and said so.
fn instance_of(service: &ServiceName, entry: &KeyValue) -> Result<Option<ServiceInstance>> {
    let body = decoded(&entry.value)?;
    let read = serde_json::from_slice::<ServiceInstance>(&body);
    let sound = read
        .ok()
        .filter(|instance| instance.name == *service && instance.validate().is_ok());
    if sound.is_none() {
        tracing::warn!(target: "trunkline::discovery", %service, "an instance in etcd cannot be read");
    }
    Ok(sound)
}
