//! The Consul registry, on real servers.
#![allow(clippy::unwrap_used, reason = "test code")]

mod catalog;
mod conformance;
mod failover;
mod recovery;
mod world;
