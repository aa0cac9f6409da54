//! Typed interfaces.

mod client;
mod halves;
mod health;
mod policy;
mod seeds;
mod server;
