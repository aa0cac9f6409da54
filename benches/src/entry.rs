//! One proof or one benchmark.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::environment;
use crate::report::Report;

/// A proof or a benchmark: its name on the command line, one sentence, and what it does.
#[derive(Debug)]
pub struct Entry {
    /// Name on the command line, and of the section in the documents.
    pub name: &'static str,
    /// What it proves, or the question it answers, in one sentence.
    pub about: &'static str,
    /// Does it. An error means that it could not be done, which is not a proof either.
    pub run: fn(&Options) -> Result<Report>,
}

/// How entries are to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// A smaller run of the same checks.
    pub quick: bool,
    /// What repeats the choices of an earlier run; without it they are made anew.
    pub seed: Option<u64>,
}

impl Options {
    /// How often each peer of a comparison is measured.
    #[must_use]
    pub fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// `full`, or `quick` in a quick run.
    pub fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The seed for all that is left to chance: the one that was asked for, or any.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| fastrand::u64(..))
    }

    /// The command-line tool built together with this program.
    ///
    /// # Errors
    /// If this program was not started by `cargo xtask`, which builds that tool and says where.
    pub fn trunkline(&self) -> Result<PathBuf> {
        environment::trunkline().context("TRUNKLINE_BIN is not set: use `cargo xtask prove|bench`")
    }
}
