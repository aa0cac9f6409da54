//! Service discovery by Consul.
//!
//! It is for services that are registered in Consul, or look up others there. Applications meet it through the
//! `trunkline` facade, feature `consul`; depend on this crate to use it without the rest.
//!
//! ```no_run
//! use std::time::Duration;
//! use trunkline_consul::{ConsulConfig, ConsulRegistry};
//! use trunkline_discovery::{Registry, Resolver, ServiceInstance, ServiceName};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
//! let registry = ConsulRegistry::new(&ConsulConfig::at("localhost", 8500))?;
//! let users = ServiceName::new("users")?;
//! let instance = ServiceInstance::new(users.clone(), "10.0.0.7", 8001);
//! registry.register(instance, Duration::from_secs(10)).await?;
//! assert_eq!(registry.resolve(&users).await?.instances.len(), 1);
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! - An instance is a service of the *agent* that is asked, so ask the agent of the node the instance runs on. Its lease
//!   is a TTL check, whose id names the announcement: whoever announces the same id again takes it over, and the older
//!   one can neither renew nor withdraw it.
//! - What Consul cannot say itself (drain, weight 0) stands in the service's metadata; an instance that takes no requests
//!   has a failing check besides, so that other clients of Consul leave it out, too.
//! - Services that others registered are found as well: see [`ConsulRegistry`].
//! - Watches are blocking queries. As many wait at a time as `max_blocking_queries` says; more services share them.
//!
//! This crate has no features.
//!
//! # What is promised
//! - When an announcement, a change of it or a withdrawal has succeeded, the catalog shows it.
//! - A lease that is not renewed ends at its time; Consul forgets the instance after `deregister_after`.
//! - A watch misses nothing for good: Consul's index going backwards, a restart or a loss of all data end in a whole list.
//!
//! Not promised: that two agents do not announce the same id; the younger announcement is the one that is seen.
//!
//! Siblings: `trunkline-discovery` has the contracts, the cache, the supervision of registrations and balancing.

mod agent;
mod announcement;
mod catalog;
mod config;
mod decode;
mod encode;
mod error;
mod pace;
mod registry;
mod resolver;
mod token;
mod turns;
mod watch;

pub use config::{ActiveCheck, Consistency, ConsulConfig};
pub use registry::ConsulRegistry;
