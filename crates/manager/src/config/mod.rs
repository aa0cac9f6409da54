//! Configuration: from files, the environment and code, with every problem reported at once.
//!
//! Layers, weakest first: defaults < base file < profile file < environment < code. Every value knows where it was
//! written, so that an error says `file:line: key: what is wrong; what is allowed`, and
//! [`CommunicationConfig::explain`] says where each effective value of a policy came from.
//!
//! Files may be YAML, TOML or JSON. The sections stand under the key `communication` or at the root of the file. Values
//! may hold `${VARIABLE:default}`. Variables have the names of the guides (`MESSAGE_BROKER_HOST`, `LOG_LEVEL` …) or a
//! path (`TRUNKLINE__HTTP_CLIENTS__DEFAULT__TIMEOUT=5s`).

mod access;
mod builder;
mod check;
mod diagnostics;
mod expand;
mod explain;
pub mod kinds;
mod layers;
mod loader;
mod merge;
mod model;
mod place;
mod profile;
mod provenance;
mod reload;
#[cfg(feature = "http")]
mod response_cache;
mod schema;
mod seeds;
mod show;
mod source;
mod tree;

pub use builder::ConfigBuilder;
pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use explain::{PolicyExplanation, Setting};
#[cfg(feature = "http")]
pub(crate) use layers::fixed_segments;
pub use loader::ConfigLoader;
pub use model::{CommunicationConfig, EmbeddedConfig, HealthConfig, ServiceInfo};
pub use place::{Place, Source};
#[cfg(feature = "http")]
pub(crate) use profile::is_production;
pub use reload::{ConfigState, ConfigWatch, RELOAD_INTERVAL};
#[cfg(feature = "http")]
pub use response_cache::ResponseCacheConfig;
pub use schema::schema;
pub use source::env::Environment;
