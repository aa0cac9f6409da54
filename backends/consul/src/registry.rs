//! Announcing instances.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, ErrorKind, Id, Result};
use trunkline_discovery::{Lease, Registry, ServiceInstance};

use crate::agent::{Agent, escaped};
use crate::announcement::Announcement;
use crate::catalog::{Asking, shown};
use crate::config::ConsulConfig;
use crate::decode::{Check, Service};
use crate::encode::{LEASE, lease_check, service_id};
use crate::error::is_unknown_check;
use crate::turns::Turns;

pub(crate) const KIND: &str = "consul";

/// Announces instances to an agent of Consul and finds those that any agent knows. Clones share connections.
///
/// Of instances that others registered, the protocol is taken from the metadata or tags `protocol`, `scheme`,
/// `secure=true`, `https` (else `http`), version and zone from those of these names, the zone also from the metadata of
/// the node; the status from the checks: any that fails means down, maintenance means draining. The metadata `tags` holds
/// the tags. Services whose names have an underscore, and those without a port, cannot be called and are left out.
///
/// ```no_run
/// use trunkline_consul::{ConsulConfig, ConsulRegistry};
///
/// let registry = ConsulRegistry::new(&ConsulConfig::default().with_token("secret"))?;
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ConsulRegistry(Arc<Shared>);

/// What announcing and finding share.
pub(crate) struct Shared {
    pub(crate) agent: Agent,
    pub(crate) asking: Asking,
    pub(crate) turns: Arc<Turns>,
    config: ConsulConfig,
    /// What was begun is brought to its end, whoever stops waiting for it.
    scope: Scope,
    /// One change of an instance at a time.
    busy: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl ConsulRegistry {
    /// Makes a registry; connects when it is first used.
    ///
    /// # Errors
    /// `Config` when the host cannot stand in a URL, the token is none, or a file of certificates cannot be read.
    pub fn new(config: &ConsulConfig) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            agent: Agent::new(config)?,
            asking: Asking::new(config),
            turns: Arc::new(Turns::new(config.max_blocking_queries, config.wait)),
            config: config.clone(),
            scope: Scope::new(),
            busy: Mutex::default(),
        })))
    }

    /// Ends it: watches end, later calls fail with `Cancelled`. What was announced and not withdrawn stands until its
    /// time is over. Connections are closed when the last clone is dropped.
    pub fn close(&self) {
        self.0.agent.closed().cancel();
        self.0.scope.stop();
    }

    /// Ends it as [`ConsulRegistry::close`] does, closes the connections and waits until nothing runs any more, until the
    /// deadline at most.
    ///
    /// # Cancel safety
    /// Dropping it stops the waiting; it is closed all the same.
    pub async fn shutdown(&self, deadline: Instant) {
        self.close();
        self.0.scope.shutdown(deadline).await;
        self.0.agent.shutdown(deadline).await;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Changes an instance in a task of its own, one change at a time: one that is given up half way is brought to its
    /// end before the next begins, and cannot overtake it.
    async fn change<T, F, Fut>(&self, operation: &'static str, id: &str, change: F) -> Result<T>
    where
        F: FnOnce(Arc<Shared>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send,
        T: Send + 'static,
    {
        self.0.agent.check_open()?;
        let turn = self.0.turn_of(id);
        let shared = Arc::clone(&self.0);
        let context = Context::current();
        let (answer, answered) = oneshot::channel();
        self.0.scope.spawn("consul registration", async move {
            let _turn = turn.lock().await;
            let changing = change(shared);
            let outcome = match context {
                Some(context) => context.scope(changing).await,
                None => changing.await,
            };
            // Who asked may have stopped waiting.
            drop(answer.send(outcome));
        });
        let outcome = answered
            .await
            .unwrap_or_else(|_| Err(Error::cancelled("the registry was shut down")));
        outcome.map_err(|error| error.with_operation(operation))
    }
}

impl fmt::Debug for ConsulRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.0.config;
        f.debug_struct("ConsulRegistry")
            .field("host", &config.host)
            .field("port", &config.port)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn turn_of(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = busy.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        busy.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        busy.insert(id.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// Tells the agent, and waits until the catalog shows it.
    async fn announce(&self, announcement: &Announcement) -> Result<()> {
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.agent.put(path, announcement).await?;
        let ours = announcement
            .meta
            .get(LEASE)
            .map(String::as_str)
            .unwrap_or_default();
        shown(
            &self.agent,
            &announcement.name,
            &announcement.id,
            |listed| {
                listed.iter().any(|service| {
                    // A younger announcement took its place: it was seen, or would have been.
                    let taken_over = service.meta(LEASE).is_some_and(|token| token > ours);
                    taken_over || announcement.is_known_as(service)
                })
            },
        )
        .await
    }

    /// What the agent itself knows of an instance.
    async fn known(&self, service_id: &str) -> Result<Option<Known>> {
        let path = format!("/v1/agent/health/service/id/{}", escaped(service_id));
        match self.agent.get(&path, self.agent.request_timeout()).await {
            Ok(answer) => {
                let known: Told = answer.json()?;
                Ok(known.service.map(|service| Known {
                    service,
                    checks: known.checks.unwrap_or_default(),
                }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn renew(&self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        let id = service_id(&lease.instance_id);
        let check = lease_check(&id, &lease.token);
        let known = self.known(&id).await?.ok_or_else(|| lost(lease))?;
        if known.service.meta(LEASE) != Some(lease.token.as_str()) {
            return Err(lost(lease));
        }
        if known.service.service != instance.name.as_str() {
            return Err(Error::invalid(format!(
                "the lease is of service {}, not of {}",
                known.service.service, instance.name
            )));
        }
        // Passing a check that has failed would bring a lease back that others have seen to end.
        let mut checks = known.checks.iter();
        if !checks.any(|known| known.check_id == check && !known.is_critical()) {
            return Err(lost(lease));
        }
        let path = format!("/v1/agent/check/update/{}", escaped(&check));
        let passed = self.agent.put(&path, &json!({ "Status": "passing" })).await;
        passed.map_err(|error| {
            if is_unknown_check(&error) {
                lost(lease)
            } else {
                error
            }
        })?;
        let announcement = Announcement::new(instance, &lease.token, lease.ttl, &self.config);
        if !announcement.is_known_as(&known.service) {
            self.announce(&announcement).await?;
        }
        Ok(())
    }

    async fn withdraw(&self, lease: &Lease) -> Result<()> {
        let id = service_id(&lease.instance_id);
        let Some(known) = self.known(&id).await? else {
            return Ok(());
        };
        let token = known.service.meta(LEASE).unwrap_or_default();
        if !lease.token.is_empty() && token != lease.token {
            return Ok(());
        }
        let path = format!("/v1/agent/service/deregister/{}", escaped(&id));
        match self.agent.put(&path, &json!({})).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            outcome => outcome?,
        }
        shown(&self.agent, &known.service.service, &id, |listed| {
            listed
                .iter()
                .all(|service| service.meta(LEASE).unwrap_or_default() != token)
        })
        .await
    }
}

struct Known {
    service: Service,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    service: Option<Service>,
    checks: Option<Vec<Check>>,
}

impl Registry for ConsulRegistry {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn register(&self, instance: ServiceInstance, ttl: Duration) -> Result<Lease> {
        instance.validate()?;
        if ttl.is_zero() {
            return Err(Error::invalid("a registration must last longer than 0 s"));
        }
        let id = instance.id.clone();
        self.change("register", &id, move |shared| async move {
            // Made when it is its turn, so that younger announcements have younger tokens.
            let token = Id::new().to_string();
            let announcement = Announcement::new(&instance, &token, ttl, &shared.config);
            shared.announce(&announcement).await?;
            Ok(Lease::new(instance.id, token, ttl))
        })
        .await
    }

    async fn renew(&self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        instance.validate()?;
        if instance.id != lease.instance_id {
            return Err(Error::invalid(format!(
                "the lease is of instance {}, not of {}",
                lease.instance_id, instance.id
            )));
        }
        let (lease, instance) = (lease.clone(), instance.clone());
        let id = instance.id.clone();
        self.change("renew", &id, move |shared| async move {
            shared.renew(&lease, &instance).await
        })
        .await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        let (id, lease) = (lease.instance_id.clone(), lease.clone());
        self.change("deregister", &id, move |shared| async move {
            shared.withdraw(&lease).await
        })
        .await
    }

    async fn health_check(&self) -> Result<()> {
        let agent = &self.0.agent;
        let answer = agent
            .get("/v1/status/leader", agent.request_timeout())
            .await;
        let leader: String = answer
            .map_err(|error| error.with_operation("health_check"))?
            .json()?;
        if leader.is_empty() {
            return Err(Error::unavailable("the servers of Consul have no leader")
                .with_operation("health_check"));
        }
        Ok(())
    }
}

fn lost(lease: &Lease) -> Error {
    Error::not_found(format!(
        "the registration of {} is gone; register again",
        lease.instance_id
    ))
}
