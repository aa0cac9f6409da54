//! The only place of xtask that reads the environment.

use std::env;
use std::ffi::OsString;

/// Names of servers and programs whose absence is a failure, or `all`.
pub(crate) const REQUIRE_LIVE: &str = "TRUNKLINE_REQUIRE_LIVE";

/// The value of `name`, if it is set and not empty.
pub(crate) fn value(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> OsString {
    value("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

/// `flags` after what the variable `name` already holds.
pub(crate) fn appended(name: &str, flags: &str) -> OsString {
    let mut all = value(name).unwrap_or_default();
    if !all.is_empty() {
        all.push(" ");
    }
    all.push(flags);
    all
}
