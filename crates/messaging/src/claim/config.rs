//! The claim check as configuration says it.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline_core::duration;
use trunkline_core::size::ByteSize;

/// Large payloads in files beside the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ClaimCheckConfig {
    /// The directory of the objects, which sender and receivers share. Required.
    #[schemars(with = "String")]
    pub directory: PathBuf,
    /// Payloads of more bytes go there. Default `256KiB`.
    pub above: ByteSize,
    /// How long objects are kept: longer than the broker keeps messages. Default `7d`.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub keep_for: Duration,
    /// Largest object that is written or read. Default `256MiB`.
    pub largest: ByteSize,
}

impl Default for ClaimCheckConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::new(),
            above: ByteSize::kib(256),
            keep_for: Duration::from_secs(7 * 24 * 3600),
            largest: ByteSize::mib(256),
        }
    }
}

impl ClaimCheckConfig {
    /// Objects in a directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            ..Self::default()
        }
    }

    /// Puts payloads of more bytes there.
    #[must_use]
    pub fn with_above(mut self, above: ByteSize) -> Self {
        self.above = above;
        self
    }

    /// Keeps objects for so long.
    #[must_use]
    pub fn with_keep_for(mut self, keep_for: Duration) -> Self {
        self.keep_for = keep_for;
        self
    }

    /// Writes and reads no larger objects.
    #[must_use]
    pub fn with_largest(mut self, largest: ByteSize) -> Self {
        self.largest = largest;
        self
    }

    /// Everything that is wrong, with the key of the configuration that it is about.
    #[must_use]
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut wrong = |is_wrong: bool, key: &str, what: &str| {
            problems.extend(is_wrong.then(|| (key.to_owned(), what.to_owned())));
        };
        let is_absent = self.directory.as_os_str().is_empty();
        wrong(is_absent, "directory", "the directory is missing");
        wrong(
            self.keep_for.is_zero(),
            "keep_for",
            "it must be more than nothing",
        );
        let is_small = self.largest <= self.above;
        wrong(is_small, "largest", "it must be more than `above`");
        problems
    }
}
