//! Settings of redirects.

use serde::{Deserialize, Serialize};

/// Which redirects are followed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FollowRedirects {
    /// None: an answer of 3xx is returned as it is.
    #[default]
    Never,
    /// Those that stay at the same scheme, host and port.
    SameOrigin,
    /// Those to other places, too, but not from `https` to `http`. No credentials go there.
    Any,
}

/// Which redirects are followed, and how many.
///
/// ```
/// use trunkline_http::{FollowRedirects, RedirectConfig};
///
/// let config = RedirectConfig::default();
/// assert_eq!((config.follow, config.limit), (FollowRedirects::Never, 5));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RedirectConfig {
    /// Which redirects are followed: `never`, `same_origin`, `any`. Default `never`.
    pub follow: FollowRedirects,
    /// How many redirects one attempt follows. Default 5.
    #[schemars(range(min = 1, max = 50))]
    pub limit: u32,
}

impl Default for RedirectConfig {
    fn default() -> Self {
        Self {
            follow: FollowRedirects::Never,
            limit: 5,
        }
    }
}

impl RedirectConfig {
    /// Follows redirects within one origin.
    #[must_use]
    pub fn same_origin() -> Self {
        Self {
            follow: FollowRedirects::SameOrigin,
            ..Self::default()
        }
    }

    /// Follows redirects to other origins, too.
    #[must_use]
    pub fn any() -> Self {
        Self {
            follow: FollowRedirects::Any,
            ..Self::default()
        }
    }

    /// Sets how many are followed.
    #[must_use]
    pub const fn with_limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }
}
