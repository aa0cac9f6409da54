//! What a test asks for: a real server, or a loud reason why not.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::environment::{self, REQUIRE_LIVE};
use super::error::ServerError;
use super::program::Program;
use super::server::{Launch, Server};
use super::system::System;

/// Servers shared by all tests of this process.
static SHARED: Mutex<BTreeMap<&'static str, Server>> = Mutex::new(BTreeMap::new());

/// The URL of a server that this test shares with others; `None` means: skip this test.
///
/// It is the one named by `TRUNKLINE_TEST_<SYSTEM>_URL`, else one that is started for all tests of
/// this process. Tests that share it use unique names and never stop it.
///
/// If the program is not installed, `SKIP …` goes to standard error, past the capturing of the test
/// harness, and `None` is returned.
///
/// # Panics
/// If the server is required by `TRUNKLINE_REQUIRE_LIVE` and missing, or is there and does not start.
#[must_use]
pub fn shared(system: &'static System) -> Option<String> {
    if let Some(url) = environment::value(&environment::url_variable(system.name)) {
        let url = url.into_string();
        return Some(url.expect("the URL of a test server is text"));
    }
    let mut servers = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = servers.get(system.name) {
        return Some(server.url());
    }
    let server = own(system)?;
    let url = server.url();
    servers.insert(system.name, server);
    Some(url)
}

/// A server that this test may kill, restart and pause; `None` means: skip this test.
///
/// # Panics
/// As [`shared`].
#[must_use]
pub fn own(system: &'static System) -> Option<Server> {
    own_launched(Launch::new(system))
}

/// Like [`own`], for a server with arguments of its own.
///
/// # Panics
/// As [`shared`].
#[must_use]
pub fn own_launched(launch: Launch) -> Option<Server> {
    let name = launch.system().name;
    present(name, launch.start())
}

/// A program that this test calls; `None` means: skip this test.
///
/// # Panics
/// If it is required by `TRUNKLINE_REQUIRE_LIVE` and missing.
#[must_use]
pub fn tool(program: &Program) -> Option<PathBuf> {
    present(program.name, program.locate())
}

fn present<T>(name: &str, outcome: Result<T, ServerError>) -> Option<T> {
    let required = environment::value(REQUIRE_LIVE);
    match verdict(name, outcome, required.as_deref()) {
        Verdict::Present(value) => Some(value),
        Verdict::Skip(line) => {
            // Not a print macro: those are captured while a test passes, and a skip must be seen.
            if let Err(error) = writeln!(io::stderr(), "{line}") {
                panic!("{line} (and standard error is closed: {error})");
            }
            None
        }
        Verdict::Fail(message) => panic!("{message}"),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict<T> {
    Present(T),
    Skip(String),
    Fail(String),
}

/// Only what is not installed may be skipped; what is there and does not start is a failure.
fn verdict<T>(name: &str, outcome: Result<T, ServerError>, required: Option<&OsStr>) -> Verdict<T> {
    match outcome {
        Ok(value) => Verdict::Present(value),
        Err(error @ ServerError::NotInstalled { .. }) => {
            let how = format!("{error}; `cargo xtask servers install {name}` brings it");
            if is_required(required, name) {
                Verdict::Fail(format!("{name} is required by {REQUIRE_LIVE}: {how}"))
            } else {
                Verdict::Skip(format!("SKIP {name}: {how}"))
            }
        }
        Err(error) => Verdict::Fail(chain(&error)),
    }
}

/// Whether `TRUNKLINE_REQUIRE_LIVE`, a list of names or `all`, names this one.
fn is_required(list: Option<&OsStr>, name: &str) -> bool {
    list.is_some_and(|list| {
        list.to_string_lossy()
            .split(',')
            .map(str::trim)
            .any(|word| word == name || word == "all")
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Result<(), ServerError> {
        Err(ServerError::NotInstalled {
            program: "redis-server",
            package: "redis-server",
        })
    }

    #[test]
    fn missing_server_is_skipped_loudly() {
        let Verdict::Skip(line) = verdict("redis", missing(), None) else {
            panic!("not skipped")
        };
        assert!(line.starts_with("SKIP redis: "), "{line}");
        assert!(line.contains("cargo xtask servers install redis"), "{line}");
    }

    #[test]
    fn missing_server_fails_where_it_is_required() {
        for list in ["redis", "kafka, redis", "all"] {
            let verdict = verdict("redis", missing(), Some(OsStr::new(list)));
            assert!(matches!(verdict, Verdict::Fail(_)), "{list}: {verdict:?}");
        }
        for list in ["kafka", "redis-cluster", ""] {
            let verdict = verdict("redis", missing(), Some(OsStr::new(list)));
            assert!(matches!(verdict, Verdict::Skip(_)), "{list}: {verdict:?}");
        }
    }

    #[test]
    fn broken_server_is_never_skipped() {
        let broken: Result<(), _> = Err(ServerError::PortTaken {
            system: "redis",
            port: 15000,
            attempts: 5,
        });
        assert!(matches!(verdict("redis", broken, None), Verdict::Fail(_)));
    }
}
