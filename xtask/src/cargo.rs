//! Calls of cargo.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::environment;
use crate::process;
use crate::workspace::Workspace;

/// `cargo` with these arguments, in the root of the workspace.
pub(crate) fn command<'a>(
    workspace: &Workspace,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Command {
    let mut command = Command::new(environment::cargo());
    command.current_dir(&workspace.root).args(arguments);
    command
}

/// A program that cargo built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// Name of the target.
    pub(crate) target: String,
    /// `lib`, `bin`, `test`, `example` …
    pub(crate) kind: String,
    /// Whether it is a test binary (of whatever kind of target).
    pub(crate) is_test: bool,
    /// The directory of its package.
    pub(crate) package: PathBuf,
}

/// Runs a building command of cargo and returns the programs it made, by path.
///
/// The path contains a hash of features and dependencies: the same path is the same program.
pub(crate) fn executables(mut command: Command) -> Result<BTreeMap<PathBuf, Executable>> {
    command.arg("--message-format=json-render-diagnostics");
    Ok(parse(&process::output(&mut command)?))
}

fn parse(messages: &str) -> BTreeMap<PathBuf, Executable> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| executable(&message))
        .collect()
}

fn executable(message: &Value) -> Option<(PathBuf, Executable)> {
    if message.get("reason")?.as_str()? != "compiler-artifact" {
        return None;
    }
    let path = message.get("executable")?.as_str()?;
    let target = message.get("target")?;
    let manifest = PathBuf::from(message.get("manifest_path")?.as_str()?);
    Some((
        PathBuf::from(path),
        Executable {
            target: target.get("name")?.as_str()?.to_owned(),
            kind: target.get("kind")?.get(0)?.as_str()?.to_owned(),
            is_test: message.get("profile")?.get("test")?.as_bool()?,
            package: manifest.parent()?.to_owned(),
        },
    ))
}

/// The version of the toolchain, such as `1.95.0`: cargo and the compiler are released together.
pub(crate) fn rust_version(workspace: &Workspace) -> Result<String> {
    let text = process::output(&mut command(workspace, ["--version"]))?;
    text.split_whitespace()
        .nth(1)
        .map(str::to_owned)
        .with_context(|| format!("cargo does not say its version: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_other_messages() {
        let messages = r#"
{"reason":"compiler-artifact","manifest_path":"/w/crates/core/Cargo.toml","target":{"name":"core","kind":["lib"]},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/crates/core/Cargo.toml","target":{"name":"it","kind":["test"]},"profile":{"test":true},"executable":"/w/target/debug/deps/it-1"}
{"reason":"compiler-artifact","manifest_path":"/w/examples/Cargo.toml","target":{"name":"hello","kind":["example"]},"profile":{"test":false},"executable":"/w/target/debug/examples/hello"}
{"reason":"build-finished","success":true}
"#;
        let found = parse(messages);
        assert_eq!(found.len(), 2);
        let it = &found[&PathBuf::from("/w/target/debug/deps/it-1")];
        assert!(it.is_test);
        assert_eq!(it.package, PathBuf::from("/w/crates/core"));
        let hello = &found[&PathBuf::from("/w/target/debug/examples/hello")];
        assert_eq!(
            (hello.kind.as_str(), hello.target.as_str()),
            ("example", "hello")
        );
        assert!(!hello.is_test);
    }
}
