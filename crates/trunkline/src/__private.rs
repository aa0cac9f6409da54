//! What generated code names. Not part of the interface: it changes with the macros.

pub use trunkline_core::{Problem, Result};
pub use trunkline_discovery::ServiceHealth;
pub use trunkline_http::interface::{
    Answer, Call, Caller, Check, Interface, Making, Maybe, Nothing, Operation, Raw, ServiceClient,
    Streamed, Value, json, settle,
};
pub use trunkline_http::{CallOptions, EnhancedHttpClient, Method, ServiceError};
pub use trunkline_resilience::CircuitStatus;
pub use trunkline_resilience::config::{
    CacheMode, PolicyConfig, RetryableKind, Strategy, VersionFailure, VersionPlace, WindowKind,
};

#[cfg(feature = "cache")]
pub use trunkline_http::Clear;
#[cfg(feature = "validate")]
pub use trunkline_http::interface::validate;
pub use trunkline_http::interface::{JsonValue, mock, openapi};
#[cfg(feature = "server")]
pub use trunkline_server::interface as server;

/// The function of a generated client that clears what is kept, where anything can be.
#[cfg(feature = "cache")]
#[doc(hidden)]
#[macro_export]
macro_rules! __private_clear_cache {
    ($visibility:vis fn) => {
        /// Forgets what is kept of the answers: by key (`"product:123"`), prefix or tag. Says how many keys there were in
        /// this process.
        ///
        /// # Errors
        /// When the tier that processes share cannot be reached; this process has cleared its memory all the same.
        $visibility async fn clear_cache(
            &self,
            what: impl ::core::convert::Into<$crate::__private::Clear>,
        ) -> $crate::__private::Result<u64> {
            self.caller.clear_cache(what.into()).await
        }
    };
}

/// The same where nothing can be kept.
#[cfg(not(feature = "cache"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __private_clear_cache {
    ($visibility:vis fn) => {};
}

/// Refuses `cached` where the crate was built without it.
#[cfg(feature = "cache")]
#[doc(hidden)]
#[macro_export]
macro_rules! __private_needs_cache {
    () => {};
}

/// Refuses `cached` where the crate was built without it.
#[cfg(not(feature = "cache"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __private_needs_cache {
    () => {
        ::core::compile_error!("`cached` needs the feature `cache` of trunkline");
    };
}

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
