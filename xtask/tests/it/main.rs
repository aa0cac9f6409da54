//! `cargo xtask` on a small made-up workspace, with the real cargo.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A workspace like ours in miniature: a core, a facade with features, an application that switches
/// them on, and an example.
struct Workspace(PathBuf);

const MANIFESTS: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        r#"
[workspace]
resolver = "3"
members = ["crates/*", "bin/*", "examples"]
[workspace.package]
version = "0.0.0"
edition = "2024"
rust-version = "1.95"
[workspace.dependencies]
trunkline = { path = "crates/trunkline", version = "0.0.0" }
trunkline-core = { path = "crates/core", version = "0.0.0" }
[workspace.lints.rust]
unsafe_code = "forbid"
"#,
    ),
    ("crates/core/Cargo.toml", "name = \"trunkline-core\""),
    (
        "crates/trunkline/Cargo.toml",
        "name = \"trunkline\"\n[features]\ndefault = [\"http\"]\nhttp = []\ngateway = []\n[dependencies]\ntrunkline-core.workspace = true",
    ),
    (
        "bin/trunkline/Cargo.toml",
        "name = \"trunkline-cli\"\n[dependencies]\ntrunkline = { workspace = true, features = [\"gateway\"] }",
    ),
    (
        "examples/Cargo.toml",
        "name = \"trunkline-examples\"\n[dependencies]\ntrunkline.workspace = true\n[[example]]\nname = \"hello\"\npath = \"hello/main.rs\"",
    ),
];

const SOURCES: &[(&str, &str)] = &[
    (
        "crates/core/src/lib.rs",
        "//! Core.\n\n/// One.\n///\n/// ```\n/// assert_eq!(trunkline_core::one(), 1);\n/// ```\n#[must_use]\npub fn one() -> u8 {\n    1\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn one_is_one() {\n        assert_eq!(super::one(), 1);\n    }\n}\n",
    ),
    (
        "crates/trunkline/src/lib.rs",
        "//! Facade.\n\npub use trunkline_core::one;\n\n/// Only with the feature.\n#[cfg(feature = \"gateway\")]\npub mod gateway {}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    #[cfg(not(feature = \"gateway\"))]\n    fn without_gateway() {}\n\n    #[test]\n    fn always() {}\n}\n",
    ),
    (
        "bin/trunkline/src/main.rs",
        "//! Application.\n\nfn main() {}\n",
    ),
    ("examples/src/lib.rs", "//! Examples.\n"),
    (
        "examples/hello/main.rs",
        "//! Hello.\n\nfn main() {\n    assert_eq!(trunkline::one(), 1);\n    println!(\"example said hello\");\n}\n",
    ),
];

impl Workspace {
    fn new(name: &str) -> Self {
        let root =
            std::env::temp_dir().join(format!("trunkline-xtask-{}-{name}", std::process::id()));
        let workspace = Self(root);
        for (path, text) in MANIFESTS {
            let text = match *path {
                "Cargo.toml" => (*text).to_owned(),
                _ => manifest(text),
            };
            workspace.write(path, &text);
        }
        for (path, text) in SOURCES {
            workspace.write(path, text);
        }
        workspace
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn replace(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.0.join(path)).unwrap();
        assert!(text.contains(from));
        self.write(path, &text.replace(from, to));
    }

    fn xtask(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(arguments)
            .current_dir(&self.0)
            .env("CARGO_NET_OFFLINE", "true")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("TRUNKLINE_REQUIRE_LIVE")
            .output()
            .unwrap()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }
}

fn manifest(rest: &str) -> String {
    let (name, sections) = rest.split_once('\n').unwrap_or((rest, ""));
    format!(
        "[package]\n{name}\nversion.workspace = true\nedition.workspace = true\nrust-version.workspace = true\n\n[lints]\nworkspace = true\n\n{sections}\n"
    )
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn exists(workspace: &Workspace, path: &str) -> bool {
    Path::new(&workspace.0).join(path).exists()
}

#[test]
fn test_runs_everything_once_and_counts_it() {
    let workspace = Workspace::new("everything");
    let done = workspace.xtask(&["test"]);
    let text = stdout(&done);
    assert!(done.status.success(), "{text}\n{}", stderr(&done));
    for stage in [
        "servers",
        "format",
        "tidy",
        "clippy, all features",
        "clippy, default features",
        "tests, all features",
        "tests, default features",
        "doc tests",
        "examples",
    ] {
        assert!(
            text.contains(&format!("=== {stage}\n")),
            "{stage} did not run: {text}"
        );
    }
    // All features: core 1, facade 1. Default features: only the facade is another program, with 2.
    // Doc tests: 1.
    assert!(
        text.contains("tests: 5 passed, 0 failed, 0 ignored"),
        "{text}"
    );
    assert!(text.contains("without_gateway"), "{text}");
    assert_eq!(
        text.matches("one_is_one").count(),
        1,
        "core has no features, so it runs once: {text}"
    );
    assert!(text.contains("example said hello"), "{text}");
    assert!(exists(&workspace, "target/debug/examples/hello"));
}

#[test]
fn failure_of_any_kind_fails_the_command() {
    let workspace = Workspace::new("failure");
    let facade = "crates/trunkline/src/lib.rs";

    let refuses = |what: &str, expected: &str| {
        let done = workspace.xtask(&["test"]);
        assert_eq!(done.status.code(), Some(1), "{what}: {}", stdout(&done));
        assert!(
            stderr(&done).contains(expected),
            "{what}: {}",
            stderr(&done)
        );
    };

    workspace.replace(facade, "fn always() {}", "fn always()  {}");
    refuses("format", "format failed");
    workspace.replace(facade, "fn always()  {}", "fn always() {}");

    workspace.replace("crates/core/Cargo.toml", "[lints]\nworkspace = true", "");
    refuses("tidy", "crates/core/Cargo.toml: lacks `[lints]`");
    workspace.write(
        "crates/core/Cargo.toml",
        &manifest("name = \"trunkline-core\""),
    );

    workspace.replace(
        facade,
        "fn without_gateway() {}",
        "fn without_gateway() {\n        panic!();\n    }",
    );
    refuses(
        "a test on default features only",
        "tests, default features failed",
    );
    workspace.replace(
        facade,
        "fn without_gateway() {\n        panic!();\n    }",
        "fn without_gateway() {}",
    );

    workspace.replace("examples/hello/main.rs", "one(), 1", "one(), 2");
    refuses("an example", "examples failed");
}

#[test]
fn one_crate_is_tested_with_arguments() {
    let workspace = Workspace::new("one-crate");
    let done = workspace.xtask(&["test", "core", "--lib", "one_is", "--", "--exact"]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stdout(&done).contains("0 passed") && stdout(&done).contains("1 filtered out"));
    let done = workspace.xtask(&["test", "cor"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(
        stderr(&done).contains("did you mean `core`?"),
        "{}",
        stderr(&done)
    );
}

#[test]
fn what_is_required_and_unknown_is_refused() {
    let workspace = Workspace::new("required");
    let done = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["test", "core"])
        .current_dir(&workspace.0)
        .env("TRUNKLINE_REQUIRE_LIVE", "reddis")
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(stderr(&done).contains("reddis"), "{}", stderr(&done));
}

#[test]
fn each_feature_is_checked_alone() {
    let workspace = Workspace::new("features");
    workspace.write(
        "crates/trunkline/src/lib.rs",
        "//! Facade.\n\n/// Breaks without the other.\n#[cfg(feature = \"gateway\")]\npub use http::X;\n\n/// The other.\n#[cfg(feature = \"http\")]\npub mod http {\n    /// X.\n    #[derive(Debug)]\n    pub struct X;\n}\n",
    );
    let done = workspace.xtask(&["features"]);
    assert_eq!(done.status.code(), Some(1), "{}", stdout(&done));
    assert!(
        stderr(&done).contains("trunkline, gateway failed"),
        "{}",
        stderr(&done)
    );
}
