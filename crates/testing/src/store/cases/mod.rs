//! The cases, by what they are about. Each is a plain function over any store.
#![allow(clippy::missing_panics_doc, reason = "a case fails by panicking")]

pub mod appending;
pub mod concurrency;
pub mod ending;
pub mod reading;
pub mod repeating;
pub mod sharing;
