//! Test kit: conformance suites, real servers, fixtures.
//!
//! A suite is a set of plain functions over an erased handle, so that it compiles once for every backend, and a macro
//! that makes one named test of each. Use it from `tests/it/` of the crate that implements the trait, never from unit
//! tests: those link another build of the traits.

#[cfg(any(
    feature = "broker",
    feature = "cache",
    feature = "registry",
    feature = "store"
))]
mod live;
mod macros;
#[cfg(any(
    feature = "broker",
    feature = "cache",
    feature = "registry",
    feature = "store"
))]
mod scope;

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "broker")]
pub mod inbox;
#[cfg(feature = "broker")]
pub mod router;

#[cfg(feature = "cache")]
pub mod cache;

#[cfg(feature = "faults")]
pub mod faults;

#[cfg(feature = "registry")]
pub mod registry;

#[cfg(feature = "registry")]
pub mod resolver;

#[cfg(feature = "servers")]
pub mod servers;

#[cfg(feature = "store")]
pub mod store;

#[cfg(any(
    feature = "broker",
    feature = "cache",
    feature = "registry",
    feature = "store"
))]
pub use live::{Missing, block_on, no_task_left, skip};
#[cfg(any(
    feature = "broker",
    feature = "cache",
    feature = "registry",
    feature = "store"
))]
pub use scope::Scope;
