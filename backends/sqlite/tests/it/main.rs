#![allow(clippy::unwrap_used, reason = "test code")]
//! Tests of the embedded directory.

mod conformance;
mod directory;
