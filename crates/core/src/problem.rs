//! Problem details of HTTP APIs (RFC 9457): the one way in which errors are told to callers.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::ErrorKind;

/// A problem document as it travels.
///
/// Reading is lenient, as the specification asks: a member of the wrong type is ignored, not an error, and members that
/// are not known end in `extensions`.
///
/// ```
/// use trunkline_core::Problem;
///
/// let problem = Problem::new(404, "Not Found").with_detail("no user 42").with_extension("user_id", 42);
/// let text = serde_json::to_string(&problem)?;
/// assert_eq!(text, r#"{"title":"Not Found","status":404,"detail":"no user 42","user_id":42}"#);
/// assert_eq!(serde_json::from_str::<Problem>(&text)?, problem);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// A URI reference that names the kind of problem; `about:blank` when empty.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub problem_type: String,
    /// The kind of problem in a few words, the same for every occurrence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The HTTP status the origin gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A URI reference that names this occurrence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Everything else, such as `errors` with the fields that are wrong.
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

impl Problem {
    /// The media type of the JSON form.
    pub const CONTENT_TYPE: &'static str = "application/problem+json";

    /// A problem without a type of its own.
    #[must_use]
    pub fn new(status: u16, title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            status: Some(status),
            ..Self::default()
        }
    }

    /// Names the kind of problem by a URI reference.
    #[must_use]
    pub fn with_type(mut self, problem_type: impl Into<String>) -> Self {
        self.problem_type = problem_type.into();
        self
    }

    /// Says what went wrong this time.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Names this occurrence by a URI reference.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Adds a member of its own. The five names of the specification cannot be used so and are ignored.
    #[must_use]
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let name = name.into();
        if !["type", "title", "status", "detail", "instance"].contains(&name.as_str()) {
            self.extensions.insert(name, value.into());
        }
        self
    }

    /// What a status tells a caller, as far as one kind of error can hold it.
    #[must_use]
    pub const fn kind_of(status: u16) -> ErrorKind {
        match status {
            401 => ErrorKind::Unauthenticated,
            403 => ErrorKind::Denied,
            404 | 410 => ErrorKind::NotFound,
            408 | 504 => ErrorKind::Timeout,
            409 | 412 => ErrorKind::Conflict,
            429 => ErrorKind::RateLimited,
            501 | 505 => ErrorKind::Unsupported,
            502 | 503 => ErrorKind::Unavailable,
            507 => ErrorKind::Exhausted,
            400..=499 => ErrorKind::Invalid,
            _ => ErrorKind::Internal,
        }
    }
}

/// `title: detail`, as far as they are there.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.title.as_str(), &self.detail) {
            ("", Some(detail)) => f.write_str(detail),
            ("", None) => f.write_str("problem without a title"),
            (title, Some(detail)) => write!(f, "{title}: {detail}"),
            (title, None) => f.write_str(title),
        }
    }
}

impl<'de> Deserialize<'de> for Problem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::<String, Value>::deserialize(deserializer)?;
        let mut text = |name| match members.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let problem_type = text("type").unwrap_or_default();
        let title = text("title").unwrap_or_default();
        let (detail, instance) = (text("detail"), text("instance"));
        let status = members.remove("status").as_ref().and_then(Value::as_u64);
        Ok(Self {
            problem_type,
            title,
            status: status.and_then(|status| u16::try_from(status).ok()),
            detail,
            instance,
            extensions: members,
        })
    }
}
