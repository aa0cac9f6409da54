//! Announcing instances.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use trunkline_core::{Error, ErrorKind, Result, Retry};
use trunkline_discovery::{Lease, Registry, ServiceInstance};

use crate::client::Client;
use crate::config::EtcdConfig;
use crate::error::from_fault;
use crate::keys::{Keys, decoded, encoded};
use crate::message::{Compare, Granted, Kept, KeyValue, Range, Txn};

pub(crate) const KIND: &str = "etcd";

/// The longest lease that etcd grants, in seconds.
const LONGEST_TTL: u64 = 9_000_000_000;

/// How often an announcement is tried while others announce the same id.
const TRIES: u32 = 100;

/// Announces instances in etcd and finds them. Clones share connections.
///
/// ```no_run
/// use trunkline_etcd::{EtcdConfig, EtcdRegistry};
///
/// let registry = EtcdRegistry::new(&EtcdConfig::at(["one:2379", "two:2379", "three:2379"]))?;
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone)]
pub struct EtcdRegistry(Arc<Shared>);

/// What announcing and finding share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) wait: Duration,
    endpoints: Vec<String>,
}

impl EtcdRegistry {
    /// Makes a registry; connects when it is first used.
    ///
    /// # Errors
    /// `Config` when an endpoint is none, or a file of certificates cannot be read.
    pub fn new(config: &EtcdConfig) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            client: Client::new(config)?,
            keys: Keys::new(&config.prefix),
            wait: config.wait,
            endpoints: config.endpoints.clone(),
        })))
    }

    /// Ends it: watches end, later calls fail with `Cancelled`. What was announced and not withdrawn stands until its
    /// time is over. Connections are closed when the last clone is dropped.
    pub fn close(&self) {
        self.0.client.closed().cancel();
    }

    /// Ends it as [`EtcdRegistry::close`] does and closes the connections, until the deadline at most.
    ///
    /// # Cancel safety
    /// Dropping it stops the waiting; it is closed all the same.
    pub async fn shutdown(&self, deadline: Instant) {
        self.close();
        self.0.client.shutdown(deadline).await;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl fmt::Debug for EtcdRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdRegistry")
            .field("endpoints", &self.0.endpoints)
            .finish_non_exhaustive()
    }
}

impl Registry for EtcdRegistry {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn register(&self, instance: ServiceInstance, ttl: Duration) -> Result<Lease> {
        let body = body_of(&instance)?;
        if ttl.is_zero() {
            return Err(Error::invalid("a registration must last longer than 0 s"));
        }
        let lease = self.0.announce(&instance, &body, ttl).await;
        let lease = lease.map_err(|error| error.with_operation("register"))?;
        Ok(Lease::new(instance.id, lease.to_string(), ttl))
    }

    async fn renew(&self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        let body = body_of(instance)?;
        if instance.id != lease.instance_id {
            return Err(Error::invalid(format!(
                "the lease is of instance {}, not of {}",
                lease.instance_id, instance.id
            )));
        }
        let renewed = self.0.renew(lease, instance, &body).await;
        renewed.map_err(|error| error.with_operation("renew"))
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        let withdrawn = self.0.withdraw(lease).await;
        withdrawn.map_err(|error| error.with_operation("deregister"))
    }

    async fn health_check(&self) -> Result<()> {
        let health = self.0.client.health().await;
        health.map_err(|error| error.with_operation("health_check"))
    }
}

impl Shared {
    /// Makes a lease and moves the keys of the instance to it, in one step with what stands there now.
    async fn announce(&self, instance: &ServiceInstance, body: &str, ttl: Duration) -> Result<u64> {
        // Whole seconds; a moment longer is better than a moment less.
        let more = u64::from(ttl.subsec_nanos() > 0);
        let seconds = ttl.as_secs().saturating_add(more);
        let asked = json!({ "TTL": seconds.min(LONGEST_TTL).to_string() });
        // One that is made and not used ends by itself.
        let lease: Granted = self.client.ask("/v3/lease/grant", &asked).await?;
        let mut before = self.owner(&instance.id).await?;
        for _ in 0..TRIES {
            match self.take(instance, body, lease.id, before.as_ref()).await? {
                Taken::Yes => {
                    if let Some(old) = before.filter(|old| old.lease != 0 && old.lease != lease.id)
                    {
                        self.forget(old.lease).await;
                    }
                    return Ok(lease.id);
                }
                // It was done by an attempt whose answer was lost.
                Taken::By(Some(now)) if now.lease == lease.id => return Ok(lease.id),
                Taken::By(now) => before = now,
            }
            // Whoever announces the same id does so at the same moment.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20))).await;
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "instance {} is announced again and again by others",
                instance.id
            ),
        )
        .with_retry(Retry::Safe))
    }

    async fn take(
        &self,
        instance: &ServiceInstance,
        body: &str,
        lease: u64,
        before: Option<&Owner>,
    ) -> Result<Taken> {
        let (id, name) = (encoded(self.keys.id(&instance.id)), instance.name.as_str());
        let put = |key: String, value: &str| json!({ "request_put": { "key": key, "value": encoded(value), "lease": lease.to_string() } });
        let mut success = vec![
            put(id.clone(), name),
            put(encoded(self.keys.instance(name, &instance.id)), body),
        ];
        if let Some(old) = before.filter(|old| old.service != name) {
            let key = encoded(self.keys.instance(&old.service, &instance.id));
            success.push(json!({ "request_delete_range": { "key": key } }));
        }
        let seen = before.map_or(0, |old| old.mod_revision);
        let compare = [Compare::mod_revision(id.clone(), seen)];
        let failure = [json!({ "request_range": { "key": id } })];
        let answer = self.transact(&compare, &success, &failure).await?;
        if answer.succeeded {
            return Ok(Taken::Yes);
        }
        Ok(Taken::By(owner_of(
            answer
                .responses
                .first()
                .map(|one| one.response_range.kvs.as_slice()),
        )?))
    }

    async fn renew(&self, lease: &Lease, instance: &ServiceInstance, body: &str) -> Result<()> {
        // Another backend's token is nobody's lease here.
        let id: u64 = lease.token.parse().map_err(|_| lost(lease))?;
        let owner_key = encoded(self.keys.id(&lease.instance_id));
        let key = encoded(self.keys.instance(instance.name.as_str(), &instance.id));
        let mine = Compare::lease(owner_key.clone(), id);
        let as_known = [
            mine,
            Compare::value(owner_key.clone(), encoded(instance.name.as_str())),
            Compare::value(key.clone(), encoded(body)),
        ];
        let look = [json!({ "request_range": { "key": owner_key.clone() } })];
        let answer = self.transact(&as_known, &[], &look).await?;
        if !answer.succeeded {
            let found = answer
                .responses
                .first()
                .map(|one| one.response_range.kvs.as_slice());
            let owner = owner_of(found)?.filter(|owner| owner.lease == id);
            let owner = owner.ok_or_else(|| lost(lease))?;
            if owner.service != instance.name.as_str() {
                return Err(Error::invalid(format!(
                    "the lease is of service {}, not of {}",
                    owner.service, instance.name
                )));
            }
            self.tell(lease, id, owner_key, key, body).await?;
        }
        self.keep_alive(lease, id).await
    }

    /// Says what has changed of an instance, if the lease still has it.
    async fn tell(
        &self,
        lease: &Lease,
        id: u64,
        owner_key: String,
        key: String,
        body: &str,
    ) -> Result<()> {
        let put = [
            json!({ "request_put": { "key": key, "value": encoded(body), "lease": id.to_string() } }),
        ];
        let told = self
            .transact(&[Compare::lease(owner_key, id)], &put, &[])
            .await;
        match told {
            Ok(answer) if answer.succeeded => Ok(()),
            Ok(_) => Err(lost(lease)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(lost(lease)),
            Err(error) => Err(error),
        }
    }

    /// Etcd answers the renewal of a lease that has ended without an error, and without a time.
    async fn keep_alive(&self, lease: &Lease, id: u64) -> Result<()> {
        let kept: Kept = self
            .client
            .ask("/v3/lease/keepalive", &json!({ "ID": id.to_string() }))
            .await?;
        match kept.error {
            Some(fault) => Err(from_fault(&fault)),
            None if kept.result.ttl == 0 => Err(lost(lease)),
            None => Ok(()),
        }
    }

    async fn withdraw(&self, lease: &Lease) -> Result<()> {
        self.client.check_open()?;
        let id = if lease.token.is_empty() {
            // Whoever announced it.
            match self.owner(&lease.instance_id).await? {
                Some(owner) if owner.lease != 0 => owner.lease,
                _ => return Ok(()),
            }
        } else {
            match lease.token.parse() {
                Ok(id) => id,
                Err(_) => return Ok(()),
            }
        };
        // What it still has goes with it; what others have taken over stays.
        match self.revoke(id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    async fn revoke(&self, lease: u64) -> Result<()> {
        let _: Value = self
            .client
            .ask("/v3/lease/revoke", &json!({ "ID": lease.to_string() }))
            .await?;
        Ok(())
    }

    /// Gives a lease back that holds nothing any more; if that fails, it ends by itself.
    async fn forget(&self, lease: u64) {
        if let Err(error) = self.revoke(lease).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(target: "trunkline::discovery", error = %error.report(), "a lease without keys stays until its end");
        }
    }

    /// Who has announced an id.
    async fn owner(&self, id: &str) -> Result<Option<Owner>> {
        let key = encoded(self.keys.id(id));
        let found: Range = self
            .client
            .ask("/v3/kv/range", &json!({ "key": key }))
            .await?;
        owner_of(Some(&found.kvs))
    }

    async fn transact(
        &self,
        compare: &[Compare],
        success: &[Value],
        failure: &[Value],
    ) -> Result<Txn> {
        let asked = json!({ "compare": compare, "success": success, "failure": failure });
        self.client.ask("/v3/kv/txn", &asked).await
    }
}

/// The announcement that has an id.
struct Owner {
    service: String,
    lease: u64,
    mod_revision: u64,
}

enum Taken {
    Yes,
    /// Somebody was quicker; this is what stands now.
    By(Option<Owner>),
}

fn owner_of(found: Option<&[KeyValue]>) -> Result<Option<Owner>> {
    let Some(found) = found.and_then(<[KeyValue]>::first) else {
        return Ok(None);
    };
    Ok(Some(Owner {
        service: String::from_utf8_lossy(&decoded(&found.value)?).into_owned(),
        lease: found.lease,
        mod_revision: found.mod_revision,
    }))
}

fn body_of(instance: &ServiceInstance) -> Result<String> {
    instance.validate()?;
    serde_json::to_string(instance).map_err(|error| {
        Error::invalid("the instance cannot be written as JSON").with_source(error)
    })
}

fn lost(lease: &Lease) -> Error {
    Error::not_found(format!(
        "the registration of {} is gone; register again",
        lease.instance_id
    ))
}
