//! What generated code names. Not part of the interface: it changes with the macros.

pub use trunkline_core::{Problem, Result};
pub use trunkline_http::interface::{
    Answer, Call, Caller, Interface, Making, Maybe, Nothing, Operation, Raw, ServiceClient,
    Streamed, Value, json, settle,
};
pub use trunkline_http::{CallOptions, EnhancedHttpClient, Method, ServiceError};
pub use trunkline_resilience::CircuitStatus;
pub use trunkline_resilience::config::{PolicyConfig, RetryableKind, Strategy, WindowKind};

#[cfg(feature = "validate")]
pub use trunkline_http::interface::validate;
pub use trunkline_http::interface::{JsonValue, mock, openapi};
#[cfg(feature = "server")]
pub use trunkline_server::interface as server;

/// Refuses the half `server` where the crate was built without it.
#[cfg(feature = "server")]
#[doc(hidden)]
#[macro_export]
macro_rules! __private_needs_server {
    () => {};
}

/// Refuses the half `server` where the crate was built without it.
#[cfg(not(feature = "server"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __private_needs_server {
    () => {
        ::core::compile_error!("`server` needs the feature `server` of trunkline");
    };
}

/// Refuses `validate` where the crate was built without it.
#[cfg(feature = "validate")]
#[doc(hidden)]
#[macro_export]
macro_rules! __private_needs_validate {
    () => {};
}

/// Refuses `validate` where the crate was built without it.
#[cfg(not(feature = "validate"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __private_needs_validate {
    () => {
        ::core::compile_error!("`validate` needs the feature `validate` of trunkline");
    };
}
