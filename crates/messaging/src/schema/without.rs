//! A build that checks no payloads.

use std::sync::Arc;

use serde_json::Value;
use trunkline_core::{Error, Result};

use super::PayloadCheck;

pub(super) fn compile(_: &Value) -> Result<Arc<dyn PayloadCheck>> {
    Err(Error::config(
        "this build checks no payloads: it was made without the feature `json-schema`",
    ))
}
