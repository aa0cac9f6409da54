//! Messaging against the brokers and stores of this crate.
#![allow(clippy::unwrap_used, reason = "test code")]

mod abandoning;
mod batches;
mod claiming;
mod describing;
mod edges;
mod holding;
mod lesser_broker;
mod memory_broker;
mod memory_inbox;
mod mending;
mod observing;
#[cfg(feature = "protection")]
mod protecting;
mod router;
#[cfg(feature = "json-schema")]
mod schemas;
mod supervisor;
mod versions;
