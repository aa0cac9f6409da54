//! What the vocabulary promises.
#![allow(clippy::unwrap_used, reason = "test code")]

mod clock;
mod context;
mod error;
mod health;
mod lifecycle;
mod metadata;
mod problem;
mod task;
mod units;
