//! Every case, as a plain function over any broker.
#![allow(clippy::missing_panics_doc, reason = "a case fails by panicking")]

pub mod eventing;
pub mod failing;
pub mod handling;
pub mod once;
pub mod reviving;
pub mod stopping;
pub mod talking;
