//! Programs built from Go modules, for servers that Debian has only in an old version.
//!
//! They are kept in the cache directory by their version, so that they are built once and a new version replaces
//! nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::bounded;
use super::environment;
use super::error::ServerError;
use super::program::Program;

/// How a [`Program::package`] says that it is a module: `go:github.com/nats-io/nats-server/v2@v2.15.2`.
const SCHEME: &str = "go:";
/// How it says that it is a command of a module that replaces modules by directories of its own, which `go install` refuses:
/// `go-main:k8s.io/kubernetes@v1.36.3 cmd/kube-apiserver v0.36.3`, the last one being the version of those modules.
const MAIN: &str = "go-main:";
/// Scripts that stand beside what they start.
const SCRIPTS: &[(&str, &str)] = &[(super::kubernetes::SCRIPT_NAME, super::kubernetes::SCRIPT)];
/// A build from nothing takes a minute on two cores, the largest one five.
const BUILD_WITHIN: Duration = Duration::from_secs(1800);

/// The module and version that a program is built from, if it is.
pub(super) fn module(program: &Program) -> Option<&'static str> {
    let main = || program.package.strip_prefix(MAIN)?.split(' ').next();
    program.package.strip_prefix(SCHEME).or_else(main)
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
    let go = Go {
        program: &go,
        work: &work,
    };
    let built = match program.package.strip_prefix(MAIN) {
        Some(main) => go.build_main(main),
        None => go.run(&["install", module]).map(|_| program.name),
    };
    let built = built.map_err(failed)?;
    // Renamed into place when it is whole: a build that is cut off leaves nothing that looks like a program.
    let from = work.join(built);
    fs::rename(&from, place.join(built)).map_err(ServerError::io("rename", &from))?;
    if let Some((name, text)) = SCRIPTS.iter().find(|(name, _)| *name == program.name) {
        let (from, to) = (work.join(name), place.join(name));
        fs::write(&from, text).map_err(ServerError::io("write", &from))?;
        let runs = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&from, runs).map_err(ServerError::io("change", &from))?;
        fs::rename(&from, &to).map_err(ServerError::io("rename", &from))?;
    }
    fs::remove_dir_all(&work).map_err(ServerError::io("remove", &work))
}

/// The toolchain, and where it works.
struct Go<'a> {
    program: &'a Path,
    work: &'a Path,
}

impl Go<'_> {
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.program);
        command
            .args(arguments)
            .env("GOBIN", self.work)
            .env("GOWORK", "off")
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-trimpath")
            .current_dir(self.work)
            .stdin(Stdio::null());
        let shown = arguments.first().copied().unwrap_or_default();
        let done = bounded::run(&mut command, BUILD_WITHIN);
        let done = done.map_err(|error| format!("go {shown}: {error}"))?;
        if done.status.success() {
            return Ok(done.text);
        }
        Err(format!("go {shown}: {}\n{}", done.status, done.text))
    }

    /// Builds a command of a module as the module itself would: with the versions of its own `go.mod`, in a module made
    /// for it. Returns the name of the program.
    fn build_main(&self, main: &'static str) -> Result<&'static str, String> {
        let parts: Vec<&str> = main.split(' ').collect();
        let &[module, package, local] = parts.as_slice() else {
            return Err("it is no `go-main:module@version package version`".to_owned());
        };
        let (path, version) = module.rsplit_once('@').ok_or("it has no version")?;
        let downloaded = self.run(&["mod", "download", "-json", module])?;
        let directory = downloaded
            .lines()
            .find_map(|line| line.trim().strip_prefix("\"Dir\": \""))
            .and_then(|rest| rest.strip_suffix("\","))
            .map(PathBuf::from)
            .ok_or_else(|| format!("go mod download: {downloaded}"))?;
        let read = |name: &str| {
            let file = directory.join(name);
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
        };
        let write = |name: &str, text: &str| {
            let file = self.work.join(name);
            fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
        };
        write(
            "go.mod",
            &main_module(&read("go.mod")?, path, version, local),
        )?;
        write("go.sum", &read("go.sum")?)?;
        write("main.go", "package main\n\nfunc main() {}\n")?;
        let name = package.rsplit('/').next().unwrap_or(package);
        let package = format!("{path}/{package}");
        // Without its version it says that it is none, and disables what newer releases have.
        let (major, minor) = major_minor(version).ok_or("the version is none")?;
        let about = "k8s.io/component-base/version";
        let flags = format!(
            "-s -w -X {about}.gitVersion={version} -X {about}.gitMajor={major} -X {about}.gitMinor={minor}"
        );
        self.run(&[
            "build", "-mod=mod", "-ldflags", &flags, "-o", name, &package,
        ])?;
        Ok(name)
    }
}

fn major_minor(version: &str) -> Option<(&str, &str)> {
    let mut numbers = version.strip_prefix('v')?.split('.');
    Some((numbers.next()?, numbers.next()?))
}

/// The `go.mod` of a module, for one that requires it: directories replaced by the modules that they are published as.
fn main_module(text: &str, path: &str, version: &str, local: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = match line.split_once(" => ./") {
            _ if line.starts_with("module ") => "module trunkline.test/server".to_owned(),
            Some((module, _)) => {
                let bare = module.trim().trim_start_matches("replace ");
                format!("{module} => {bare} {local}")
            }
            None => line.to_owned(),
        };
        lines.push(line);
    }
    lines.push(format!("require {path} {version}\n"));
    lines.join("\n")
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

    #[test]
    fn directories_become_the_modules_that_they_are_published_as() {
        let text = "module k8s.io/kubernetes\n\ngo 1.26.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";
        let made = main_module(text, "k8s.io/kubernetes", "v1.36.3", "v0.36.3");
        assert!(made.starts_with("module trunkline.test/server\n"), "{made}");
        assert!(
            made.contains("\tk8s.io/api => k8s.io/api v0.36.3\n"),
            "{made}"
        );
        assert!(
            made.contains("\nrequire k8s.io/kubernetes v1.36.3\n"),
            "{made}"
        );
        assert_eq!(major_minor("v1.36.3"), Some(("1", "36")));
    }
}
