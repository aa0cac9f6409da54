//! JSON Schemas that payloads keep, at both edges: what is published, and what a handler takes.

mod config;
mod edges;
#[cfg(feature = "json-schema")]
mod payload;
#[cfg(not(feature = "json-schema"))]
mod without;

pub use config::SchemaConfig;
pub(crate) use edges::{PayloadCheck, TopicCheck, TopicSchemas, check_payload};
#[cfg(feature = "json-schema")]
pub use payload::{PayloadSchema, SchemaViolation};

#[cfg(feature = "json-schema")]
use payload::compile;
#[cfg(not(feature = "json-schema"))]
use without::compile;

/// Whether this build can check payloads: the feature `json-schema`.
pub const AVAILABLE: bool = cfg!(feature = "json-schema");
