#![allow(clippy::unwrap_used, reason = "test code")]
//! Tests of RabbitMQ on the real server.

mod conformance;
mod crashes;
mod fixture;
mod foreign;
mod heartbeat;
mod letters;
mod native;
mod recovery;
mod refused;
mod tls;
