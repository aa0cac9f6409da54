//! The state of one component.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{Error, Timestamp};

/// How a component, or the whole, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It works.
    Healthy,
    /// It works in part: something optional is missing.
    Degraded,
    /// It does not work.
    Unhealthy,
}

impl Status {
    /// The status as one lower-case word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One component in the health document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ComponentStatus {
    /// The name it was configured under.
    pub name: String,
    /// What it is, such as `message_broker_embedded`.
    #[serde(rename = "type")]
    pub component_type: String,
    /// How it is.
    pub status: Status,
    /// When it last reported, to the second.
    pub last_health_check: Option<Timestamp>,
    /// Errors since the start.
    pub error_count: u64,
    /// The last error, until it works again.
    pub last_error: Option<String>,
    /// Details; never a secret.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub metadata: IndexMap<String, serde_json::Value>,
}

impl ComponentStatus {
    /// A component that has not reported yet.
    #[must_use]
    pub fn new(name: impl Into<String>, component_type: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            component_type: component_type.into(),
            status: Status::Unhealthy,
            last_health_check: None,
            error_count: 0,
            last_error: None,
            metadata: IndexMap::new(),
        }
    }

    /// It works: clears the last error, keeps the count.
    pub fn mark_healthy(&mut self) {
        self.status = Status::Healthy;
        self.last_error = None;
    }

    /// It works less well than it should.
    pub fn mark_degraded(&mut self, why: &str) {
        self.status = Status::Degraded;
        self.last_error = Some(why.to_owned());
    }

    /// It does not work: counts the error and keeps its text.
    pub fn mark_unhealthy(&mut self, error: &Error) {
        self.status = Status::Unhealthy;
        self.error_count += 1;
        self.last_error = Some(error.report().to_string());
    }
}
