//! The conformance suite of event stores.
//!
//! Implement [`StoreHarness`] for your store and let [`store_conformance!`](crate::store_conformance) make one test of
//! every case, from `tests/it/` of your crate:
//!
//! ```
//! use trunkline_events::MemoryEventStore;
//! use trunkline_testing::Scope;
//! use trunkline_testing::store::{OpenStore, StoreHarness};
//!
//! struct Memory;
//!
//! impl StoreHarness for Memory {
//!     async fn open(&self, _: &Scope) -> Option<OpenStore> {
//!         let store = MemoryEventStore::new();
//!         Some(OpenStore::new(store.clone(), async move || store.shutdown()))
//!     }
//! }
//!
//! mod memory {
//!     trunkline_testing::store_conformance!(super::Memory);
//! }
//! ```

pub mod cases;
mod fixture;
mod harness;
mod macros;

pub use harness::{OpenBoxed, OpenStore, StoreHarness, StoreUnderTest, run};
