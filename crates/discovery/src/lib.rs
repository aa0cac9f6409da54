//! Service discovery: who offers a service, where, and which instance to ask.
//!
//! It is for whoever calls services by name: the HTTP client and the gateway use it, and an application may. Applications
//! meet it through the `trunkline` facade; depend on this crate to write a registry, or to find services without the
//! rest. Who knows one fixed address of everything needs no discovery.
//!
//! ```
//! use std::time::Duration;
//! use tokio::time::Instant;
//! use trunkline_discovery::{Discovery, MemoryRegistry, PickRequest, ServiceInstance, ServiceName};
//! use trunkline_resilience::Outcome;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
//! let registry = MemoryRegistry::new();
//! let discovery = Discovery::builder().resolver(registry.clone()).registry(registry).build();
//! let users = ServiceName::new("user-service")?;
//!
//! // The service that offers it announces itself, and is kept announced.
//! discovery.register(ServiceInstance::new(users.clone(), "127.0.0.1", 8001))?;
//!
//! // Whoever calls it picks an instance, and says how the request went.
//! let instances = discovery.instances(&users);
//! instances.ready(Instant::now() + Duration::from_secs(5)).await?;
//! let picked = instances.pick(&PickRequest::any())?;
//! assert_eq!(picked.instance().base_url(), "http://127.0.0.1:8001");
//! picked.finish(Outcome::Success, Duration::from_millis(2));
//! discovery.shutdown(Instant::now() + Duration::from_secs(5)).await?;
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! - A backend implements [`Registry`] (announce an instance) and [`Resolver`] (list and watch instances), and nothing
//!   else. Everything below is done once, above the traits.
//! - [`Discovery`] watches each service that somebody asked for, once. [`Instances`] is what is known of one service;
//!   its [`InstanceSet`] is replaced as a whole, so that picking takes no lock.
//! - [`Picked`] guards one request: it counts as under way until it is dropped, and what is said about it takes failing
//!   instances out of rotation for a while ([`EjectionConfig`]).
//! - [`Registration`] keeps an announcement: renewed in time, made again when the registry has forgotten it, its status
//!   following readiness, withdrawn at the end.
//! - A [`Probe`] asks instances whether they are well, where that is asked for ([`Discovery::start_checks`]).
//! - [`Several`] makes one registry of several.
//! - Kinds of this crate: [`MemoryRegistry`] and [`StaticList`]; the embedded registry is `trunkline-sqlite`.
//!
//! This crate has no features.
//!
//! # What is promised
//! - Instances that say they drain or are down get no new requests as soon as that is known; a lease that is not renewed
//!   ends within its time.
//! - A registry that is away or fails never empties a pool: the last known good is used, marked stale, with its age in
//!   metrics and health. Neither does one that suddenly lists nobody, having lost its memory or let leases run out that
//!   could not be renewed: those that were listed are asked for a while, each until it cannot be connected to
//!   ([`DiscoveryCacheConfig::keep_vanished`]).
//! - A registry that falls silent is noticed within seconds, though connections stay; when it is back, everything is asked
//!   for again at once.
//! - The last instance in rotation is never taken out for failing; when checks fail all of them, all are used.
//! - Picking is a few loads from memory, as quick for ten thousand instances as for ten, but for the caches of the
//!   machine.
//!
//! Not promised: that an instance answers. Between its death and the end of its lease it may be picked; retry elsewhere
//! ([`PickRequest::excluding`]).
//!
//! Siblings: `trunkline-http` calls what is found here, `trunkline-resilience` decides what a failure is.

mod backoff;
mod balance;
mod cache;
mod change;
mod check;
mod config;
mod departures;
mod discovery;
mod erased;
mod instance;
mod instances;
mod memory;
mod onlooker;
mod pulse;
mod registration;
mod registry;
mod report;
mod resolver;
mod set;
mod several;
mod static_list;

pub use balance::{NoInstance, NoInstanceReason, PickRequest, Picked};
pub use change::{ServiceChange, ServiceWatch};
pub use check::{
    AnyProbe, CheckResult, EndpointCheck, InstanceHealth, Probe, ServiceHealth, ServiceHealthChange,
};
pub use config::{
    BalanceStrategy, CheckKind, DiscoveryCacheConfig, EjectionConfig, EndpointConfig,
    HealthCheckConfig, LatencyOutlierConfig, LoadBalancerConfig, OptionReader, Protocol,
    ServiceConfig, ServiceDiscoveryConfig, StickyConfig, SuccessRateConfig,
};
pub use departures::Departures;
pub use discovery::{Discovery, DiscoveryBuilder};
pub use erased::{AnyRegistry, AnyResolver};
pub use instance::{InstanceStatus, ServiceInstance, ServiceName};
pub use instances::Instances;
pub use memory::MemoryRegistry;
pub use onlooker::Onlooker;
pub use registration::{Registration, RegistrationState};
pub use registry::{Lease, Registry};
pub use resolver::{InstanceList, InstanceWatch, Resolver};
pub use set::InstanceSet;
pub use several::{Disagreement, MemberStanding, ResolveRule, Several, SeveralBuilder};
pub use static_list::StaticList;
