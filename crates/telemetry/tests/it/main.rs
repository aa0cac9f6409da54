#![allow(clippy::unwrap_used, reason = "test code")]
//! Tests of logs and metrics through the public API.

mod install;
mod logs;
mod metrics;
