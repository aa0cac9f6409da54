//! Service discovery by etcd.
//!
//! It is for services that announce themselves in etcd, or look up others there. Applications meet it through the
//! `trunkline` facade, feature `etcd`; depend on this crate to use it without the rest.
//!
//! ```no_run
//! use std::time::Duration;
//! use trunkline_discovery::{Registry, Resolver, ServiceInstance, ServiceName};
//! use trunkline_etcd::{EtcdConfig, EtcdRegistry};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
//! let registry = EtcdRegistry::new(&EtcdConfig::at(["localhost:2379"]))?;
//! let users = ServiceName::new("users")?;
//! let instance = ServiceInstance::new(users.clone(), "10.0.0.7", 8001);
//! registry.register(instance, Duration::from_secs(10)).await?;
//! assert_eq!(registry.resolve(&users).await?.instances.len(), 1);
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! - An announcement has a lease of its own and two keys below the prefix: `services/<service>/<id>`, an instance as JSON,
//!   and `ids/<id>`, the name of the service. Both go with the lease. Announcing an id again moves the keys to the new lease,
//!   in one transaction, so that the older lease can neither change nor withdraw anything.
//! - A watch begins with the list and follows the prefix from its revision on. A compaction, a history that begins anew,
//!   another member that is asked: all end in the whole list.
//! - etcd is asked through its JSON gateway, on the same ports as gRPC; it needs neither protoc nor a stack of gRPC.
//!
//! This crate has no features.
//!
//! # What is promised
//! - What a call has announced, changed or withdrawn is seen by every later question: reads are linearizable.
//! - A lease that has ended is told when it is renewed, though etcd itself answers such renewals without an error.
//! - A member that is away or has no leader is left for the next one.
//!
//! Not promised: leases shorter than etcd's least, one and a half election timeouts (2 s by default).
//!
//! Siblings: `trunkline-discovery` has the contracts, the cache, the supervision of registrations and balancing.

mod client;
mod config;
mod error;
mod keys;
mod lines;
mod login;
mod message;
mod registry;
mod resolver;
mod watch;

pub use config::EtcdConfig;
pub use registry::EtcdRegistry;
