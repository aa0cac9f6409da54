//! Service discovery: who offers a service, where, and which instance to ask.
//!
//! Backends implement [`Registry`] (announce an instance) and [`Resolver`] (list and watch instances). Supervision of
//! the own registration, the cache that keeps the last known good, balancing and health checks live here, above the
//! traits.

mod backoff;
mod balance;
mod cache;
mod change;
mod check;
mod config;
mod discovery;
mod erased;
mod instance;
mod instances;
mod memory;
mod registration;
mod registry;
mod report;
mod resolver;
mod set;
mod static_list;

pub use balance::{NoInstance, NoInstanceReason, PickRequest, Picked};
pub use change::{ServiceChange, ServiceWatch};
pub use check::{AnyProbe, CheckResult, InstanceHealth, Probe, ServiceHealth, ServiceHealthChange};
pub use config::{
    BalanceStrategy, DiscoveryCacheConfig, EjectionConfig, EndpointConfig, HealthCheckConfig,
    LoadBalancerConfig, Protocol, ServiceConfig, ServiceDiscoveryConfig,
};
pub use discovery::{Discovery, DiscoveryBuilder};
pub use erased::{AnyRegistry, AnyResolver};
pub use instance::{InstanceStatus, ServiceInstance, ServiceName};
pub use instances::Instances;
pub use memory::MemoryRegistry;
pub use registration::{Registration, RegistrationState};
pub use registry::{Lease, Registry};
pub use resolver::{InstanceList, InstanceWatch, Resolver};
pub use set::InstanceSet;
pub use static_list::StaticList;
