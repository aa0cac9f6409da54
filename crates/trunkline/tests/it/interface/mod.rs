//! Typed interfaces.

mod client;
mod halves;
mod health;
pub(crate) mod policy;
mod problems;
mod seeds;
pub(crate) mod server;
