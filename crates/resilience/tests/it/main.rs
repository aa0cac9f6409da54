//! The policies as users meet them, on a paused clock.
#![allow(clippy::unwrap_used, reason = "test code")]

mod breaker;
mod budget;
mod bulkhead;
mod cache_tier;
mod config;
mod conformance;
mod failure;
mod fallback;
mod hedge;
mod late;
mod layers;
mod limits;
mod policy;
mod ratelimit;
mod registry;
mod retry;
mod watch;
