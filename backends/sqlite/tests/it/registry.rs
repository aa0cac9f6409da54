//! The registry suite over the embedded registry, and what only it promises.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_core::ErrorKind;
use trunkline_discovery::{
    Discovery, RegistrationState, Registry, Resolver, ServiceInstance, ServiceName,
};
use trunkline_messaging::MessageBroker as _;
use trunkline_sqlite::{Connection, EmbeddedRegistry};
use trunkline_testing::Scope;
use trunkline_testing::registry::{OpenRegistry, RegistryHarness};

use crate::directory::named;
use crate::process::Process;
use crate::roles::{connect, message};

struct Embedded;

impl RegistryHarness for Embedded {
    async fn open(&self, scope: &Scope) -> Option<OpenRegistry> {
        let directory = named(scope.unique());
        let registry = EmbeddedRegistry::new(&directory);
        let closing = registry.clone();
        Some(OpenRegistry::new(
            registry.clone(),
            registry,
            async move || closing.shutdown(),
        ))
    }

    fn is_shared(&self) -> bool {
        true
    }
}

mod embedded {
    trunkline_testing::registry_conformance!(super::Embedded);
}

#[tokio::test]
async fn a_watch_ends_when_the_registry_is_shut_down() {
    let directory = tempfile::tempdir().unwrap();
    let registry = EmbeddedRegistry::new(directory.path());
    let users = ServiceName::new("users").unwrap();
    let mut watch = registry.watch(&users).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().instances.is_empty());
    registry.shutdown();
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn an_empty_token_withdraws_whatever_stands() {
    let directory = tempfile::tempdir().unwrap();
    let registry = EmbeddedRegistry::new(directory.path());
    let users = ServiceName::new("users").unwrap();
    let instance = ServiceInstance::new(users.clone(), "127.0.0.1", 8001);
    let ttl = Duration::from_secs(10);
    let lease = registry.register(instance, ttl).await.unwrap();
    let mut other = lease.clone();
    other.token = "of an earlier announcement".to_owned();
    registry.deregister(&other).await.unwrap();
    assert_eq!(registry.resolve(&users).await.unwrap().instances.len(), 1);
    other.token = String::new();
    registry.deregister(&other).await.unwrap();
    assert!(registry.resolve(&users).await.unwrap().instances.is_empty());
}

/// Nobody else writes a database while this is held: not through the lock files, and not past them.
struct Seized {
    _locks: Vec<File>,
    connection: Connection,
}

impl Seized {
    fn of(database: &Path) -> Self {
        let lock = |extension: &str| {
            let file = File::options()
                .write(true)
                .open(database.with_extension(extension))
                .unwrap();
            file.lock().unwrap();
            file
        };
        let locks = ["gate", "write"].map(lock).into();
        let connection = Connection::open(database).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self {
            _locks: locks,
            connection,
        }
    }

    fn release(self) {
        self.connection.execute_batch("ROLLBACK").unwrap();
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

/// When the one registration of a directory ends unless it is renewed, in microseconds.
fn expires(directory: &Path) -> i64 {
    let connection = Connection::open(directory.join("registry.db")).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    let row = connection.query_row("SELECT max(expires) FROM instance", [], |row| row.get(0));
    row.unwrap()
}

/// Waits until the registration was renewed for several of its times.
async fn renewed_for_long(directory: &Path, ttl: Duration) {
    let began = Instant::now();
    let enough = expires(directory) + i64::try_from((ttl * 2).as_micros()).unwrap();
    while expires(directory) < enough {
        assert!(began.elapsed() < PATIENCE, "it is not renewed");
        sleep(ttl / 10).await;
    }
}

/// The file of the broker in a directory.
fn broker_file(directory: &Path) -> std::path::PathBuf {
    let files = directory
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut brokers = files.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("broker") && name.ends_with(".db")
    });
    let only = brokers.next().unwrap();
    assert_eq!(brokers.next(), None);
    only
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_broker_never_delays_a_heartbeat() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let ttl = Duration::from_secs(2);
    let broker = connect(path.to_str().unwrap()).await;
    let registry = EmbeddedRegistry::new(path);
    let discovery = Discovery::builder()
        .registry(registry.clone())
        .resolver(registry.clone())
        .lease_ttl(ttl)
        .build();
    let users = ServiceName::new("users").unwrap();
    let instance = ServiceInstance::new(users.clone(), "127.0.0.1", 8001);
    let registration = discovery.register(instance).unwrap();
    registration
        .registered(Instant::now() + PATIENCE)
        .await
        .unwrap();

    // As much as other processes can publish.
    let busy = [(); 2].map(|()| Process::start("publish", path, &[]));
    busy.iter()
        .for_each(|process| assert!(process.line().is_some()));
    renewed_for_long(path, ttl).await;
    drop(busy);

    // And nobody gets to write to the broker at all, this process included.
    let file = broker_file(path);
    let seized = tokio::task::spawn_blocking(move || Seized::of(&file))
        .await
        .unwrap();
    let stuck = trunkline_core::task::spawn("stuck", async move {
        let published = broker.publish(message("stuck")).await;
        (broker, published)
    });
    renewed_for_long(path, ttl).await;
    let gave_up = stuck.is_finished();
    seized.release();
    let (broker, published) = stuck.await.unwrap();
    let late = published.is_err_and(|error| error.kind() == ErrorKind::Timeout);
    assert!(
        late || !gave_up,
        "it was published: the broker was not busy"
    );

    assert_eq!(registration.state(), RegistrationState::Registered);
    assert_eq!(registration.announcements(), 1, "it was never forgotten");
    assert_eq!(registry.resolve(&users).await.unwrap().instances.len(), 1);
    discovery.shutdown(Instant::now() + PATIENCE).await.unwrap();
    broker.disconnect(Instant::now() + PATIENCE).await.unwrap();
}
