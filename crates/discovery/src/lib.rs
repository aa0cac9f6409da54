//! Service discovery: who offers a service, where, and which instance to ask.
//!
//! Backends implement [`Registry`] (announce an instance) and [`Resolver`] (list and watch instances). Supervision of
//! the own registration, the cache that keeps the last known good, balancing and health checks live here, above the
//! traits.

mod balance;
mod config;
mod erased;
mod instance;
mod instances;
mod registry;
mod resolver;
mod set;

pub use balance::{NoInstance, NoInstanceReason, PickRequest, Picked};
pub use config::{
    BalanceStrategy, DiscoveryCacheConfig, EjectionConfig, EndpointConfig, HealthCheckConfig,
    LoadBalancerConfig, Protocol, ServiceConfig, ServiceDiscoveryConfig,
};
pub use erased::{AnyRegistry, AnyResolver};
pub use instance::{InstanceStatus, ServiceInstance, ServiceName};
pub use instances::Instances;
pub use registry::{Lease, Registry};
pub use resolver::{InstanceList, InstanceWatch, Resolver};
pub use set::InstanceSet;
