//! What generated code names. Not part of the interface: it changes with the macros.

pub use trunkline_core::{Problem, Result};
pub use trunkline_http::interface::{
    Answer, Call, Caller, Interface, Making, Maybe, Nothing, Operation, Raw, ServiceClient,
    Streamed, Value, json,
};
pub use trunkline_http::{CallOptions, EnhancedHttpClient, Method, ServiceError};
pub use trunkline_resilience::CircuitStatus;
pub use trunkline_resilience::config::{PolicyConfig, WindowKind};
