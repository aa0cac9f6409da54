//! The test kit, tested.
#![allow(clippy::unwrap_used, reason = "test code")]

#[cfg(feature = "faults")]
mod faults;
#[cfg(feature = "servers")]
mod servers;
#[cfg(feature = "broker")]
mod smallest_broker;
