//! What is remembered of how a configuration came about.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::diagnostics::Diagnostics;
use super::place::Place;

/// Where each value was written, which files were looked at, and what was odd. Shared by clones; two configurations
/// with the same values are equal wherever the values came from.
#[derive(Clone, Default)]
pub(crate) struct Provenance(Arc<Inner>);

#[derive(Default)]
struct Inner {
    places: BTreeMap<String, Place>,
    /// The values as they were loaded, to tell what the program changed afterwards.
    loaded: serde_json::Value,
    warnings: Diagnostics,
    files: Vec<PathBuf>,
}

impl Provenance {
    pub(crate) fn new(
        places: BTreeMap<String, Place>,
        loaded: serde_json::Value,
        warnings: Diagnostics,
        files: Vec<PathBuf>,
    ) -> Self {
        Self(Arc::new(Inner {
            places,
            loaded,
            warnings,
            files,
        }))
    }

    /// Where the value under this path was written, if it was.
    pub(crate) fn place(&self, path: &str) -> Option<&Place> {
        self.0.places.get(path)
    }

    pub(crate) fn loaded(&self) -> &serde_json::Value {
        &self.0.loaded
    }

    pub(crate) fn warnings(&self) -> &Diagnostics {
        &self.0.warnings
    }

    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.0.files
    }
}

impl PartialEq for Provenance {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} places", self.0.places.len())
    }
}
