#![allow(clippy::unwrap_used, reason = "test code")]
//! Tests of the embedded directory.

mod conformance;
mod database;
mod directory;
mod events;
mod inbox;
mod registry;
