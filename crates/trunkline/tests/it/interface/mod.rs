//! Typed interfaces.

mod client;
mod halves;
mod policy;
mod seeds;
mod server;
