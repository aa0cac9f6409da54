//! What the author of an interface wrote at a method: the default layer of its endpoint.

use std::fmt;
use std::sync::Arc;

use crate::config::PolicyConfig;

/// What the author of an interface wrote at a method. It is the weakest layer above the built-in values: configuration
/// overrides it field by field.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Declared {
    /// What was written.
    pub policy: PolicyConfig,
    /// The method: `Users::get_user`.
    pub method: Arc<str>,
    /// Where it was written: `src/users.rs:12`.
    pub place: Arc<str>,
    /// How else configuration may call the endpoint: `GET /users/{id}` for `GET /api/v1/users/{id}`.
    pub also: Option<Arc<str>>,
}

impl fmt::Debug for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.method, self.place)
    }
}

impl Declared {
    /// A method and what its author wrote at it.
    #[must_use]
    pub fn new(
        method: impl Into<Arc<str>>,
        place: impl Into<Arc<str>>,
        policy: PolicyConfig,
    ) -> Self {
        Self {
            policy,
            method: method.into(),
            place: place.into(),
            also: None,
        }
    }

    /// Gives the endpoint a second name by which configuration may speak of it.
    #[must_use]
    pub fn with_also(mut self, endpoint: impl Into<Arc<str>>) -> Self {
        self.also = Some(endpoint.into());
        self
    }
}
