//! The only place of this module that reads the environment.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Comma-separated names of servers and programs whose absence is a failure, or `all`.
pub(super) const REQUIRE_LIVE: &str = "TRUNKLINE_REQUIRE_LIVE";
/// Where installed and running servers are kept between commands.
const CACHE: &str = "TRUNKLINE_SERVERS";

/// The value of `name`, if it is set and not empty.
pub(super) fn value(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The variable that hands the address of a running `system` to tests.
pub(super) fn url_variable(system: &str) -> String {
    format!(
        "TRUNKLINE_TEST_{}_URL",
        system.to_ascii_uppercase().replace('-', "_")
    )
}

/// Directories to search for programs: `PATH`, then the places that a plain user's `PATH` lacks, then what was
/// unpacked here.
pub(super) fn search_path() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = value("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    for usual in [
        "/usr/local/sbin",
        "/usr/sbin",
        "/sbin",
        "/usr/local/bin",
        "/usr/bin",
        "/bin",
    ] {
        let usual = PathBuf::from(usual);
        if !directories.contains(&usual) {
            directories.push(usual);
        }
    }
    directories.push(super::older::programs());
    directories
}

/// The cache outside any checkout: `TRUNKLINE_SERVERS`, `$XDG_CACHE_HOME/trunkline/servers`,
/// `$HOME/.cache/trunkline/servers`, or a directory below the temporary one.
pub(super) fn cache() -> PathBuf {
    if let Some(explicit) = value(CACHE) {
        let explicit = PathBuf::from(explicit);
        return std::path::absolute(&explicit).unwrap_or(explicit);
    }
    let base = value("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| value("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(env::temp_dir);
    base.join("trunkline").join("servers")
}

/// Where servers that belong to one process keep their data.
pub(super) fn temporary() -> PathBuf {
    env::temp_dir()
}
