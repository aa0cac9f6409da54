#![allow(clippy::unwrap_used, reason = "test code")]
//! Tests of Redis.

mod conformance;
mod groups;
mod place;
mod reaching;
mod recovery;
