//! Service discovery by Kubernetes.
//!
//! It is for services that run in Kubernetes, or look up others there, and want to choose among the pods themselves. Applications
//! meet it through the `trunkline` facade, feature `kubernetes`; depend on this crate to use it without the rest.
//!
//! ```no_run
//! use trunkline_discovery::{Resolver, ServiceName};
//! use trunkline_kubernetes::{KubernetesConfig, KubernetesRegistry};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
//! // The account of the pod, in its own namespace.
//! let kubernetes = KubernetesRegistry::new(&KubernetesConfig::in_cluster())?;
//! for instance in kubernetes.resolve(&ServiceName::new("users")?).await?.instances {
//!     println!("{} {} {:?}", instance.base_url(), instance.status, instance.zone);
//! }
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! - The instances of a service are the endpoints of its EndpointSlices, all of them together: a service may have several, and an
//!   endpoint may stand in two for a while.
//! - A watch begins with the list and follows from its version on. A version that the server no longer knows (410 Gone), or a
//!   server that was restored, ends in the whole list.
//! - Nothing is announced: Kubernetes does that for its pods. `register`, `renew` and `deregister` are `Unsupported`.
//!
//! This crate has no features.
//!
//! # What is promised
//! - An endpoint that is ready is up, one that terminates and still serves drains, any other is down.
//! - Tokens are read again from their files, and at once when one is refused.
//!
//! Siblings: `trunkline-discovery` has the contracts, the cache and balancing.

mod access;
mod client;
mod config;
mod endpoints;
mod error;
mod family;
mod follow;
mod gaps;
mod kubeconfig;
mod lines;
mod message;
mod plugin;
mod registry;
mod watch;
mod yaml;

pub use config::{IpFamily, KubernetesConfig};
pub use registry::KubernetesRegistry;
