//! Promises of event stores and of the relay.
#![allow(clippy::unwrap_used, reason = "test code")]

mod conformance;
mod event;
mod relay;
