#![allow(clippy::unwrap_used, reason = "test code")]
//! Tests of Redis.

mod cache;
mod conformance;
mod groups;
mod inbox;
mod place;
mod publishing;
mod pubsub;
mod reaching;
mod recovery;
