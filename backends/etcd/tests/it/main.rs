//! The etcd registry, on real servers.
#![allow(clippy::unwrap_used, reason = "test code")]

mod access;
mod cluster;
mod conformance;
mod recovery;
mod world;
