//! Service discovery by DNS.
//!
//! It is for services whose instances stand in DNS already: records of Kubernetes' headless services, of Consul, of a cloud, or
//! of a zone that somebody keeps. Applications meet it through the `trunkline` facade, feature `dns`; depend on this crate to
//! use it without the rest.
//!
//! ```no_run
//! use trunkline_discovery::{Resolver, ServiceName};
//! use trunkline_dns::{DnsConfig, DnsRegistry};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
//! let dns = DnsRegistry::new(&DnsConfig::srv("_http._tcp.{service}.shop.internal"))?;
//! for instance in dns.resolve(&ServiceName::new("users")?).await?.instances {
//!     println!("{}", instance.base_url());
//! }
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! - A pattern makes a name out of that of a service. It is looked up for SRV records, which tell hosts, ports and weights, or
//!   for addresses alone, which share one port.
//! - A watch asks again when the records' time to live is over, within bounds, and somewhat later at random.
//! - Nothing is announced: `register`, `renew` and `deregister` are `Unsupported`.
//!
//! This crate has no features.
//!
//! # What is promised
//! - That there is no such name, or no such record, is an empty list, and asked again soon. That the server fails, refuses or
//!   does not answer is an error, and no list.
//! - Answers that do not fit into a datagram are fetched by TCP.
//!
//! Not promised: that a change is seen before the time to live of what was there is over, nor that DNS knows which instance is well.
//!
//! Siblings: `trunkline-discovery` has the contracts, the cache and balancing.

mod answer;
mod client;
mod config;
mod error;
mod pattern;
mod registry;
mod watch;

pub use config::{DnsConfig, IpFamilies};
pub use registry::DnsRegistry;
