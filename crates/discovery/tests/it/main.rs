//! Promises of service discovery.

#![allow(clippy::unwrap_used, reason = "test code")]

mod affinity;
mod balance;
mod cache;
mod check;
mod confirming;
mod conformance;
mod crowded;
mod doubted;
mod ejection;
mod endpoint_check;
mod idle;
mod instance;
mod registration;
mod resync;
mod round;
mod scripted;
mod several;
mod several_slow;
mod snapshot;
mod static_list;
mod sticky;
mod vanished;
mod watch;
mod zones;
