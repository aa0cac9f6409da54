#![allow(clippy::unwrap_used, reason = "test code")]
//! Tests of the gateway over real sockets, in front of real services.

mod failing;
mod hostile;
mod passing;
mod system;
