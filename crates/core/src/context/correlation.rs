//! The id under which one conversation is found in every log.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Clock, Id};

/// Longest foreign id that is kept.
const LONGEST: usize = 128;

/// A correlation id: 1 to 128 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CorrelationId(Arc<str>);

impl CorrelationId {
    /// A new id, a UUID version 7.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        let mut buffer = [0; 36];
        Self(Id::new().encode(&mut buffer).into())
    }

    /// Takes an id that came from elsewhere, if it is 1 to 128 visible ASCII characters.
    #[must_use]
    pub fn accept(foreign: &str) -> Option<Self> {
        let fits = (1..=LONGEST).contains(&foreign.len());
        (fits && foreign.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(foreign.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for CorrelationId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// How new correlation ids look.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CorrelationFormat {
    /// A UUID version 7.
    #[default]
    Uuid,
    /// `<service>-<unix milliseconds>-<up to nine base-36 characters>`.
    Service,
}

impl CorrelationFormat {
    /// Makes an id in this format.
    #[must_use]
    pub fn generate(self, service: &str, clock: &dyn Clock) -> CorrelationId {
        match self {
            Self::Uuid => CorrelationId::new(),
            Self::Service => {
                let millis = clock.now().unix_millis();
                let random: String = (0..9).map(|_| fastrand::digit(36)).collect();
                CorrelationId::accept(&format!("{service}-{millis}-{random}"))
                    .unwrap_or_else(CorrelationId::new)
            }
        }
    }
}
