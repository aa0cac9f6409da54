//! The facade as a user's crate sees it.
#![allow(clippy::unwrap_used, reason = "test code")]
#![cfg(all(feature = "macros", feature = "server"))]

mod interface;
mod settled;
