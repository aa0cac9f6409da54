//! The registry suite over the embedded registry, and what only it promises.

use std::time::Duration;

use trunkline_discovery::{Registry, Resolver, ServiceInstance, ServiceName};
use trunkline_sqlite::EmbeddedRegistry;
use trunkline_testing::Scope;
use trunkline_testing::registry::{OpenRegistry, RegistryHarness};

use crate::directory::named;

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
