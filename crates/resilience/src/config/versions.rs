//! Versions of a service as configuration writes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline_core::ErrorKind;

/// Which versions of a service are asked, where a request names them, and when the next one has its turn. Every version
/// has circuits of its own: one whose circuit is open costs the others no time.
///
/// ```
/// use trunkline_resilience::config::{VersionPlace, VersionsConfig};
///
/// let versions = VersionsConfig::new(["v2", "v1"]).by_header("API-Version").on_status([404]);
/// assert_eq!(versions.by, Some(VersionPlace::Header));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct VersionsConfig {
    /// Whether requests name a version. Default: yes once `order` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The versions in the order in which they are asked, the preferred one first, 8 at most: `[v2, v1]`. One alone is
    /// asked for and nothing else. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub order: Option<Vec<String>>,
    /// Where a request names its version: `path` (`/v2/users/1`), `header` or `query`. Default `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<VersionPlace>,
    /// The name of the header or of the query's parameter. Default `API-Version`, `version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the header or parameter says, with `{version}` where the version stands: `application/vnd.users.{version}+json`
    /// for `name: Accept`. Default `{version}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Kinds of failure after which the next version is asked, those of answers included (404 is `not_found`, 500
    /// `internal`). Default: unavailable, timeout, rejected, unsupported, internal. What may have been processed goes to
    /// the next version only if a second time does no harm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_error: Option<Vec<VersionFailure>>,
    /// HTTP statuses after which the next version is asked as well, whatever their kind. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_status: Option<Vec<u16>>,
}

impl VersionsConfig {
    /// These versions, the preferred one first, named in the path.
    #[must_use]
    pub fn new<V: Into<String>>(order: impl IntoIterator<Item = V>) -> Self {
        Self {
            order: Some(order.into_iter().map(Into::into).collect()),
            ..Self::default()
        }
    }

    /// Names the version in a header.
    #[must_use]
    pub fn by_header(mut self, name: impl Into<String>) -> Self {
        self.by = Some(VersionPlace::Header);
        self.name = Some(name.into());
        self
    }

    /// Names the version in a parameter of the query.
    #[must_use]
    pub fn by_query(mut self, name: impl Into<String>) -> Self {
        self.by = Some(VersionPlace::Query);
        self.name = Some(name.into());
        self
    }

    /// Sets what the header or parameter says, with `{version}` where the version stands.
    #[must_use]
    pub fn with_value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Sets the kinds of failure after which the next version is asked.
    #[must_use]
    pub fn on_error(mut self, kinds: impl IntoIterator<Item = VersionFailure>) -> Self {
        self.on_error = Some(kinds.into_iter().collect());
        self
    }

    /// Sets the statuses after which the next version is asked as well.
    #[must_use]
    pub fn on_status(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.on_status = Some(statuses.into_iter().collect());
        self
    }
}

/// Where a request names the version of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionPlace {
    /// In the path: a segment that is one of the versions is replaced (`/api/v1/users`), else the version is put in front.
    #[default]
    Path,
    /// In a header.
    Header,
    /// In a parameter of the query.
    Query,
}

impl VersionPlace {
    /// The word that configuration uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Header => "header",
            Self::Query => "query",
        }
    }
}

/// A kind of failure after which another version may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VersionFailure {
    /// The other side cannot be reached, the connection broke, or it answered 502 or 503.
    Unavailable,
    /// Its share of the time ran out, or it answered 408 or 504.
    Timeout,
    /// Refused here before anything was sent: an open circuit, no instance, no free place.
    Rejected,
    /// It asks for fewer requests: 429.
    RateLimited,
    /// 404 or 410.
    NotFound,
    /// 409 or 412.
    Conflict,
    /// 401.
    Unauthenticated,
    /// 403.
    Denied,
    /// 400 and the rest of 4xx.
    Invalid,
    /// 501 or 505.
    Unsupported,
    /// Something is full: 507.
    Exhausted,
    /// 500 and the rest of 5xx.
    Internal,
}

impl VersionFailure {
    /// The kind as errors have it.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        match self {
            Self::Unavailable => ErrorKind::Unavailable,
            Self::Timeout => ErrorKind::Timeout,
            Self::Rejected => ErrorKind::Rejected,
            Self::RateLimited => ErrorKind::RateLimited,
            Self::NotFound => ErrorKind::NotFound,
            Self::Conflict => ErrorKind::Conflict,
            Self::Unauthenticated => ErrorKind::Unauthenticated,
            Self::Denied => ErrorKind::Denied,
            Self::Invalid => ErrorKind::Invalid,
            Self::Unsupported => ErrorKind::Unsupported,
            Self::Exhausted => ErrorKind::Exhausted,
            Self::Internal => ErrorKind::Internal,
        }
    }
}
