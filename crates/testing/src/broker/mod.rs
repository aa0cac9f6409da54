//! The conformance suite of message brokers.
//!
//! Implement [`BrokerHarness`] for your broker and let [`broker_conformance!`](crate::broker_conformance) make one test
//! of every case, from `tests/it/` of your crate:
//!
//! ```
//! use trunkline_messaging::{AnyBroker, MessageBroker};
//! use trunkline_messaging::memory::MemoryBroker;
//! use trunkline_testing::Scope;
//! use trunkline_testing::broker::BrokerHarness;
//!
//! struct Memory;
//!
//! impl BrokerHarness for Memory {
//!     async fn open(&self, _: &Scope) -> Option<AnyBroker> {
//!         Some(MemoryBroker::default().erase())
//!     }
//! }
//!
//! mod memory {
//!     trunkline_testing::broker_conformance!(super::Memory);
//! }
//! ```
//!
//! A broker with a server takes it from `trunkline_testing::servers` (feature `servers`), which all cases share: give
//! each scope a part of its own there, named after [`Scope::unique`](crate::Scope::unique), and override
//! [`BrokerHarness::system`]. No case stops a server.
//!
//! A case asks [`Capabilities`](trunkline_messaging::Capabilities) first. What is claimed must work; what is not claimed
//! must be refused with `Unsupported`, and the case then says that it was skipped.

pub mod cases;
mod fixture;
mod harness;
mod macros;
mod restricted;

pub(crate) use fixture::{attached, has, next, subscribe};
pub use harness::{BrokerHarness, OpenBroker, run, run_with_harness};
pub use restricted::RestrictedBroker;
