//! The cases, by what they are about. Each is a plain function over any registry.
#![allow(clippy::missing_panics_doc, reason = "a case fails by panicking")]

pub mod announcing;
pub mod ending;
pub mod leases;
pub mod sharing;
pub mod watching;
