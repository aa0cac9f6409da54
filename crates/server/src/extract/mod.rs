//! Extractors whose refusals are problem documents.

mod json;
mod parts;

pub use json::Json;
#[cfg(feature = "interface")]
pub(crate) use json::{is_json, read as read_json};
pub(crate) use json::{too_large, unread};
pub use parts::{Path, Query};
