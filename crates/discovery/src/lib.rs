//! Service discovery: who offers a service, where, and which instance to ask.
//!
//! Backends implement [`Registry`] (announce an instance) and [`Resolver`] (list and watch instances). Supervision of
//! the own registration, the cache that keeps the last known good, balancing and health checks live here, above the
//! traits.

mod config;
mod erased;
mod instance;
mod registry;
mod resolver;

pub use config::{
    BalanceStrategy, DiscoveryCacheConfig, EndpointConfig, HealthCheckConfig, LoadBalancerConfig,
    Protocol, ServiceConfig, ServiceDiscoveryConfig,
};
pub use erased::{AnyRegistry, AnyResolver};
pub use instance::{InstanceStatus, ServiceInstance, ServiceName};
pub use registry::{Lease, Registry};
pub use resolver::{InstanceList, InstanceWatch, Resolver};
