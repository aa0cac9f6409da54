#![allow(clippy::unwrap_used, reason = "test code")]
//! Tests of the server side over real sockets and through the public API.

mod app;
mod client;
mod extract;
mod idempotency;
mod inbox;
mod layers;
mod limits;
mod routes;
mod serve;
