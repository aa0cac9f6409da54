//! Discovery by DNS, on a real server.
#![allow(clippy::unwrap_used, reason = "test code")]

mod conformance;
mod families;
mod outages;
mod records;
mod zone;
