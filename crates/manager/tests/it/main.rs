//! Integration tests of the manager.

#![allow(clippy::unwrap_used, reason = "test code")]

mod config;
