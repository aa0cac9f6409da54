//! The registry in the embedded directory: instances of services on this machine, for as long as they renew.
//!
//! It has a file and a writer of its own, so that a busy broker never delays a heartbeat. What is announced need not
//! survive the machine: registrations are written without waiting for the disk.

mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use trunkline_core::{Error, Id, Result, SharedClock, SystemClock};
use trunkline_discovery::{
    InstanceList, InstanceWatch, Lease, Registry, Resolver, ServiceInstance, ServiceName,
};

use crate::engine::{Database, EmbeddedDirectory, Manner, Schema, Stop, Tx};
use crate::error::Failure;
use crate::part::Part;

const KIND: &str = "embedded";

static SCHEMA: Schema = Schema {
    steps: &["CREATE TABLE instance (
            id TEXT PRIMARY KEY,
            service TEXT NOT NULL,
            -- Another announcement of the same id has another token.
            token TEXT NOT NULL,
            -- The process that renews it, by its sign of life; empty when it left in good order.
            owner TEXT NOT NULL,
            expires INTEGER NOT NULL,
            body TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX instance_service ON instance (service);
        CREATE TABLE revision (one INTEGER PRIMARY KEY CHECK (one = 1), count INTEGER NOT NULL) STRICT;
        INSERT INTO revision VALUES (1, 0);"],
};

/// Announces and finds instances of services on this machine. Clones share one registry.
///
/// An instance disappears when it is not renewed in time, and within a second when the process that announced it dies.
///
/// ```
/// use std::time::Duration;
/// use trunkline_discovery::{Registry, Resolver, ServiceInstance, ServiceName};
/// use trunkline_sqlite::EmbeddedRegistry;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let directory = directory.path();
/// let registry = EmbeddedRegistry::new(directory);
/// let users = ServiceName::new("users")?;
/// let instance = ServiceInstance::new(users.clone(), "127.0.0.1", 8001);
/// registry.register(instance, Duration::from_secs(10)).await?;
/// assert_eq!(registry.resolve(&users).await?.instances.len(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EmbeddedRegistry {
    part: Part,
    clock: SharedClock,
}

impl EmbeddedRegistry {
    /// The registry of a directory; opened when it is first used.
    #[must_use]
    pub fn new(directory: impl AsRef<Path>) -> Self {
        Self::with_clock(directory, SystemClock::shared())
    }

    /// A registry that takes the time from another clock. All processes of a directory must agree about the time.
    #[must_use]
    pub fn with_clock(directory: impl AsRef<Path>, clock: SharedClock) -> Self {
        let part = Part::new(directory.as_ref(), "registry".to_owned(), &SCHEMA);
        Self { part, clock }
    }

    /// Ends it: watches end, later calls fail with `Cancelled`. What was announced and not withdrawn stands until its
    /// time is over.
    pub fn shutdown(&self) {
        if let Some(database) = self.part.if_open() {
            release(&database);
        }
        self.part.close();
    }

    async fn write<T, F>(&self, operation: &'static str, function: F) -> Result<T>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, Stop> + Send + 'static,
        T: Send + 'static,
    {
        let database = self.part.database(operation).await?;
        let manner = Manner::relaxed(operation, Part::deadline());
        database.calls().write(manner, function).await
    }

    async fn read<T, F>(&self, operation: &'static str, function: F) -> Result<T>
    where
        F: FnOnce(&Connection, &Found) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let database = self.part.database(operation).await?;
        let found = Found::new(database.directory(), &self.clock);
        let read = move |connection: &Connection| function(connection, &found);
        database
            .readers()
            .read(operation, Part::deadline(), read)
            .await
    }
}

impl Registry for EmbeddedRegistry {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn register(&self, instance: ServiceInstance, ttl: Duration) -> Result<Lease> {
        let database = self.part.database("register").await?;
        let owner = Arc::clone(database.directory().liveness().token());
        drop(database);
        if ttl.is_zero() {
            return Err(Error::invalid("a registration must last longer than 0 s"));
        }
        let body = body_of(&instance)?;
        let (token, now) = (Id::new().to_string(), self.clock.now());
        let lease = Lease::new(&instance.id, &token, ttl);
        let expires = now.after(ttl).unix_micros();
        let (id, service) = (instance.id, instance.name);
        self.write("register", move |tx| {
            let connection = tx.connection();
            connection
                .prepare_cached("DELETE FROM instance WHERE expires <= ?1")?
                .execute([now.unix_micros()])?;
            connection
                .prepare_cached("INSERT OR REPLACE INTO instance VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![id, service.as_str(), token, owner, expires, body])?;
            changed(tx)
        })
        .await?;
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        let database = self.part.database("renew").await?;
        let owner = Arc::clone(database.directory().liveness().token());
        drop(database);
        let body = body_of(instance)?;
        if instance.id != lease.instance_id {
            return Err(Error::invalid(format!(
                "the lease is of instance {}, not of {}",
                lease.instance_id, instance.id
            )));
        }
        let (lease, service, now) = (lease.clone(), instance.name.clone(), self.clock.now());
        let expires = now.after(lease.ttl).unix_micros();
        self.write("renew", move |tx| {
            let connection = tx.connection();
            let standing: Option<(String, String)> = connection
                .prepare_cached(
                    "SELECT service, body FROM instance WHERE id = ?1 AND token = ?2 AND expires > ?3",
                )?
                .query_row(
                    params![lease.instance_id, lease.token, now.unix_micros()],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            let Some((before_service, before)) = standing else {
                return Err(Stop::Refused(lost(&lease)));
            };
            if before_service != service.as_str() {
                return Err(Stop::Refused(Error::invalid(format!(
                    "the lease is of service {before_service}, not of {service}"
                ))));
            }
            connection
                .prepare_cached("UPDATE instance SET expires = ?2, body = ?3, owner = ?4 WHERE id = ?1")?
                .execute(params![lease.instance_id, expires, body, owner])?;
            // A mere sign of life is no news.
            if before == body { Ok(()) } else { changed(tx) }
        })
        .await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.write("deregister", move |tx| {
            let removed = tx
                .connection()
                .prepare_cached("DELETE FROM instance WHERE id = ?1 AND (token = ?2 OR ?2 = '')")?
                .execute(params![lease.instance_id, lease.token])?;
            if removed > 0 { changed(tx) } else { Ok(()) }
        })
        .await
    }

    async fn health_check(&self) -> Result<()> {
        let database = self.part.database("health_check").await?;
        database.health_check(Part::deadline()).await
    }
}

impl Resolver for EmbeddedRegistry {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        let service = service.clone();
        self.read("resolve", move |connection, found| {
            found.list(connection, &service)
        })
        .await
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.read("services", |connection, found| found.services(connection))
            .await
    }

    async fn watch(&self, service: &ServiceName) -> Result<InstanceWatch> {
        let database = self.part.database("watch").await?;
        let found = Found::new(database.directory(), &self.clock);
        watch::watch(&self.part, database, found, service.clone())
    }
}

/// Counts a change and wakes whoever watches.
fn changed(tx: &mut Tx<'_>) -> Result<(), Stop> {
    tx.connection()
        .prepare_cached("UPDATE revision SET count = count + 1")?
        .execute([])?;
    tx.ring();
    Ok(())
}

fn lost(lease: &Lease) -> Error {
    Error::not_found(format!(
        "the registration of {} is gone; register again",
        lease.instance_id
    ))
}

/// Leaves what this process announced to its time: it does not die with the process that ends in good order.
fn release(database: &Database) {
    let owner = Arc::clone(database.directory().liveness().token());
    database.queue().errand(
        false,
        move |tx| {
            tx.connection()
                .prepare_cached("UPDATE instance SET owner = '' WHERE owner = ?1")?
                .execute([&owner])
        },
        |outcome: std::result::Result<usize, &Failure>| {
            if let Err(failure) = outcome {
                let error = failure.to_error("shutdown");
                tracing::warn!(target: "trunkline", error = %error.report(), "registrations end with the process");
            }
        },
    );
}

fn body_of(instance: &ServiceInstance) -> Result<String> {
    instance.validate()?;
    serde_json::to_string(instance).map_err(|error| {
        Error::invalid("the instance cannot be written as JSON").with_source(error)
    })
}

/// Tells the instances that stand from those that do not.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    directory: EmbeddedDirectory,
    clock: SharedClock,
}

impl Found {
    fn new(directory: &EmbeddedDirectory, clock: &SharedClock) -> Self {
        Self {
            directory: directory.clone(),
            clock: SharedClock::clone(clock),
        }
    }

    fn lives(&self, owner: &str) -> bool {
        owner.is_empty() || self.directory.liveness().is_alive(owner)
    }

    fn list(
        &self,
        connection: &Connection,
        service: &ServiceName,
    ) -> rusqlite::Result<InstanceList> {
        self.look(connection, service).map(|looked| looked.list)
    }

    fn look(&self, connection: &Connection, service: &ServiceName) -> rusqlite::Result<Looked> {
        // Before the list, so that a change in between is one that the list may have and the revision has not.
        let revision = revision(connection)?;
        let mut select = connection.prepare_cached(
            "SELECT body, owner, expires FROM instance WHERE service = ?1 AND expires > ?2",
        )?;
        let now = self.clock.now().unix_micros();
        let rows = select.query_map(params![service.as_str(), now], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        let mut instances = Vec::new();
        let mut owners = BTreeMap::new();
        let mut first_end = None;
        for row in rows {
            let (body, owner, expires): (String, String, i64) = row?;
            let lives = *owners
                .entry(owner)
                .or_insert_with_key(|owner| self.lives(owner));
            if lives {
                instances.extend(instance_of(&body));
            }
            first_end = Some(first_end.map_or(expires, |first: i64| first.min(expires)));
        }
        Ok(Looked {
            list: InstanceList::new(instances, revision),
            owners,
            first_end,
        })
    }

    fn services(&self, connection: &Connection) -> rusqlite::Result<Vec<ServiceName>> {
        let mut select = connection.prepare_cached(
            "SELECT DISTINCT service, owner FROM instance WHERE expires > ?1 ORDER BY service",
        )?;
        let now = self.clock.now().unix_micros();
        let rows = select.query_map([now], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        let mut names: Vec<ServiceName> = Vec::new();
        for row in rows {
            let (service, owner) = row?;
            if self.lives(&owner) {
                names.extend(ServiceName::new(service));
            }
        }
        names.dedup();
        Ok(names)
    }

    /// Whether a look would tell the same again, which costs less than looking: `changed` says that the file is another one.
    fn would_tell(
        &self,
        connection: &Connection,
        service: &ServiceName,
        looked: &mut Looked,
        changed: bool,
    ) -> rusqlite::Result<bool> {
        if looked.is_over(&self.clock) {
            return Ok(false);
        }
        if changed {
            if revision(connection)? != looked.list.revision {
                return Ok(false);
            }
            // Signs of life are no news, but put the end off.
            let now = self.clock.now().unix_micros();
            looked.first_end = connection
                .prepare_cached(
                    "SELECT min(expires) FROM instance WHERE service = ?1 AND expires > ?2",
                )?
                .query_row(params![service.as_str(), now], |row| row.get(0))?;
        }
        let mut owners = looked.owners.iter();
        Ok(owners.all(|(owner, lived)| self.lives(owner) == *lived))
    }
}

/// What was found of a service, and what it depends on besides the file.
struct Looked {
    list: InstanceList,
    /// The processes that renew, and whether they live.
    owners: BTreeMap<String, bool>,
    /// When the first lease ends that is not renewed.
    first_end: Option<i64>,
}

impl Looked {
    fn is_over(&self, clock: &SharedClock) -> bool {
        let now = clock.now().unix_micros();
        self.first_end.is_some_and(|end| end <= now)
    }

    /// Time until an instance may be gone without anybody saying so.
    fn next_end(&self, clock: &SharedClock) -> Option<Duration> {
        let now = clock.now().unix_micros();
        let left = |end: i64| end.saturating_sub(now).max(0).cast_unsigned();
        self.first_end.map(|end| Duration::from_micros(left(end)))
    }
}

fn revision(connection: &Connection) -> rusqlite::Result<u64> {
    let count = connection
        .prepare_cached("SELECT count FROM revision")?
        .query_row([], |row| row.get::<_, i64>(0))?;
    Ok(count.cast_unsigned())
}

/// A neighbouring release may have written a body that this one cannot read: it is left out, and said so.
fn instance_of(body: &str) -> Option<ServiceInstance> {
    serde_json::from_str(body)
        .inspect_err(|error| {
            tracing::warn!(target: "trunkline", %error, "a registered instance cannot be read");
        })
        .ok()
}
