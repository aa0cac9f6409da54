//! Typed interfaces.

mod client;
mod policy;
mod server;
