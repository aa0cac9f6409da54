//! Programs built from Go modules, for servers that Debian has only in an old version.
//!
//! They are kept in the cache directory by their version, so that they are built once and a new version replaces
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::bounded;
use super::environment;
use super::error::ServerError;
use super::program::Program;

/// How a [`Program::package`] says that it is a module: `go:github.com/nats-io/nats-server/v2@v2.15.2`.
const SCHEME: &str = "go:";
/// A build from nothing takes a minute on two cores.
const BUILD_WITHIN: Duration = Duration::from_secs(900);

/// The module and version that a program is built from, if it is.
pub(super) fn module(program: &Program) -> Option<&'static str> {
    program.package.strip_prefix(SCHEME)
}

/// Where a built program is, or would be.
pub(super) fn directory(program: &Program) -> Option<PathBuf> {
    let (_, version) = module(program)?.rsplit_once('@')?;
    let name = format!("{}-{version}", program.name);
    Some(environment::cache().join("built").join(name))
}

/// Builds a program. Whoever calls it holds the lock of installations.
pub(super) fn build(program: &Program) -> Result<(), ServerError> {
    let failed = |detail: String| ServerError::Install {
        package: program.package,
        detail,
    };
    let (Some(module), Some(place)) = (module(program), directory(program)) else {
        return Err(failed("it is no `go:module@version`".to_owned()));
    };
    let Some(go) = toolchain() else {
        let text = "needs the Go toolchain (`go` on the PATH or in /usr/local/go/bin)";
        return Err(failed(text.to_owned()));
    };
    let work = place.join("building");
    fs::create_dir_all(&work).map_err(ServerError::io("create", &work))?;
    let mut command = Command::new(go);
    command
        .args(["install", module])
        .env("GOBIN", &work)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-trimpath")
        .current_dir(&work)
        .stdin(Stdio::null());
    let done = bounded::run(&mut command, BUILD_WITHIN).map_err(ServerError::io("run", "go"))?;
    if !done.status.success() {
        return Err(failed(format!(
            "go install: {}\n{}",
            done.status, done.text
        )));
    }
    // Renamed into place when it is whole: a build that is cut off leaves nothing that looks like a program.
    let built = work.join(program.name);
    fs::rename(&built, place.join(program.name)).map_err(ServerError::io("rename", &built))?;
    fs::remove_dir_all(&work).map_err(ServerError::io("remove", &work))
}

fn toolchain() -> Option<PathBuf> {
    environment::search_path()
        .into_iter()
        .chain([PathBuf::from("/usr/local/go/bin")])
        .map(|directory| directory.join("go"))
        .find(|path| Path::is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_program_is_kept_by_its_version() {
        let program = Program {
            name: "nats-server",
            package: "go:github.com/nats-io/nats-server/v2@v2.15.2",
            version_arguments: &["--version"],
        };
        let place = directory(&program).unwrap();
        assert!(place.ends_with("built/nats-server-v2.15.2"), "{place:?}");
        let packaged = Program {
            package: "nats-server",
            ..program
        };
        assert_eq!(directory(&packaged), None);
    }
}
