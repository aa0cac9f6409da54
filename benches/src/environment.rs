//! The only place of this crate that reads the environment.

use std::path::PathBuf;

/// The command-line tool that `cargo xtask` built.
pub(crate) fn trunkline() -> Option<PathBuf> {
    std::env::var_os("TRUNKLINE_BIN").map(PathBuf::from)
}
