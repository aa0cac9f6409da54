//! Extractors whose refusals are problem documents.

mod json;
mod parts;

pub use json::Json;
pub(crate) use json::{too_large, unread};
pub use parts::{Path, Query};
