#![allow(clippy::unwrap_used, reason = "test code")]

mod http2;
mod pool;
mod rig;
mod streaming;
mod tls;
mod wire;
