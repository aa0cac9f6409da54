//! Versions of a service, all of it settled. Whoever knows the protocol carries it out.

use std::sync::Arc;

use trunkline_core::ErrorKind;

use crate::config::VersionFailure;
pub use crate::config::VersionPlace;

/// Which versions of a service are asked, where a request names them, and when the next one has its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VersionSettings {
    /// The versions, the preferred one first; none means that requests name none.
    pub order: Arc<[Arc<str>]>,
    /// Where a request names its version.
    pub by: VersionPlace,
    /// The name of the header or of the query's parameter.
    pub name: Arc<str>,
    /// What it says, with `{version}` where the version stands.
    pub value: Arc<str>,
    /// Kinds of failure after which the next one is asked.
    pub on_error: Arc<[ErrorKind]>,
    /// Statuses after which it is asked as well.
    pub on_status: Arc<[u16]>,
}

impl VersionSettings {
    /// Kinds of failure after which the next version is asked unless something else is said.
    pub(crate) const ON_ERROR: [VersionFailure; 5] = [
        VersionFailure::Unavailable,
        VersionFailure::Timeout,
        VersionFailure::Rejected,
        VersionFailure::Unsupported,
        VersionFailure::Internal,
    ];

    /// What says the version unless something else is said.
    pub(crate) const VALUE: &str = "{version}";

    /// These versions by the values that apply where nothing else is said: named in the path.
    #[must_use]
    pub fn new(order: impl IntoIterator<Item = Arc<str>>) -> Self {
        let by = VersionPlace::default();
        Self {
            order: order.into_iter().collect(),
            by,
            name: Self::name_in(by).into(),
            value: Self::VALUE.into(),
            on_error: Self::ON_ERROR.map(VersionFailure::kind).into(),
            on_status: Arc::default(),
        }
    }

    /// The name of the header or parameter unless something else is said.
    pub(crate) const fn name_in(by: VersionPlace) -> &'static str {
        match by {
            VersionPlace::Path => "none",
            VersionPlace::Header => "API-Version",
            VersionPlace::Query => "version",
        }
    }

    /// The same for other versions.
    #[must_use]
    pub fn with_order(&self, order: Arc<[Arc<str>]>) -> Self {
        Self {
            order,
            ..self.clone()
        }
    }

    /// How a request names a version in a header or in its query.
    #[must_use]
    pub fn written(&self, version: &str) -> String {
        self.value.replace("{version}", version)
    }

    /// Whether the next version is asked after such a failure; `status` is that of an answer.
    #[must_use]
    pub fn falls_back(&self, kind: ErrorKind, status: Option<u16>) -> bool {
        self.on_error.contains(&kind)
            || status.is_some_and(|status| self.on_status.contains(&status))
    }
}
