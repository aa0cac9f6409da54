//! The conformance suite of registries and resolvers.
//!
//! Implement [`RegistryHarness`] for your registry and let
//! [`registry_conformance!`](crate::registry_conformance) make one test of every case, from `tests/it/` of your crate:
//!
//! ```
//! use trunkline_discovery::MemoryRegistry;
//! use trunkline_testing::Scope;
//! use trunkline_testing::registry::{OpenRegistry, RegistryHarness};
//!
//! struct Memory;
//!
//! impl RegistryHarness for Memory {
//!     async fn open(&self, _: &Scope) -> Option<OpenRegistry> {
//!         let registry = MemoryRegistry::new();
//!         Some(OpenRegistry::new(registry.clone(), registry.clone(), async move || registry.shutdown()))
//!     }
//! }
//!
//! mod memory {
//!     trunkline_testing::registry_conformance!(super::Memory);
//! }
//! ```

pub mod cases;
mod fixture;
mod harness;
mod macros;

pub use harness::{OpenBoxed, OpenRegistry, RegistryHarness, RegistryUnderTest, run};
