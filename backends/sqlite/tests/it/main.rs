#![allow(clippy::unwrap_used, reason = "test code")]
//! Tests of the embedded directory.

mod conformance;
mod database;
mod directory;
mod disk;
mod edges;
mod ending;
mod events;
mod files;
mod inbox;
mod kill;
mod limits;
mod process;
mod registry;
mod roles;
