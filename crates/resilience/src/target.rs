//! Whose state it is.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// What a breaker, a budget or a bulkhead belongs to: a service, one of its endpoints, instances or versions.
///
/// An *endpoint* is `METHOD /template`, an *instance* is `host:port`.
///
/// ```
/// use trunkline_resilience::Target;
///
/// let target = Target::service("users").with_endpoint("GET /users/{id}");
/// assert_eq!(target.to_string(), "users GET /users/{id}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Target {
    /// The service, or the topic.
    #[serde(serialize_with = "text")]
    pub service: Arc<str>,
    /// The endpoint; `None` for all of them together.
    #[serde(serialize_with = "optional_text")]
    pub endpoint: Option<Arc<str>>,
    /// The instance; `None` for all of them together.
    #[serde(serialize_with = "optional_text")]
    pub instance: Option<Arc<str>>,
    /// The version of the service, where several are called; `None` for all of them together.
    #[serde(
        serialize_with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub version: Option<Arc<str>>,
}

impl Target {
    /// A whole service.
    #[must_use]
    pub fn service(name: impl Into<Arc<str>>) -> Self {
        Self {
            service: name.into(),
            endpoint: None,
            instance: None,
            version: None,
        }
    }

    /// One endpoint of it.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<Arc<str>>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// One version of it.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The same in all versions: what configuration and attributes speak of.
    #[must_use]
    pub fn unversioned(&self) -> Self {
        Self {
            version: None,
            ..self.clone()
        }
    }

    /// The endpoint as one text, with the version where there is one: `v2 GET /users/{id}`; `*` stands for the whole
    /// service.
    #[must_use]
    pub fn endpoint_label(&self) -> Cow<'_, str> {
        let endpoint = self.endpoint.as_deref().unwrap_or("*");
        match &self.version {
            None => Cow::Borrowed(endpoint),
            Some(version) => Cow::Owned(format!("{version} {endpoint}")),
        }
    }

    /// One instance of it.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<Arc<str>>) -> Self {
        self.instance = Some(instance.into());
        self
    }
}

impl From<&str> for Target {
    fn from(service: &str) -> Self {
        Self::service(service)
    }
}

impl From<String> for Target {
    fn from(service: String) -> Self {
        Self::service(service)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)?;
        if let Some(instance) = &self.instance {
            write!(f, "@{instance}")?;
        }
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        if let Some(endpoint) = &self.endpoint {
            write!(f, " {endpoint}")?;
        }
        Ok(())
    }
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn optional_text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}
