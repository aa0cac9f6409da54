//! `doc`, `features`, `msrv`, `loom`, `deny`, `prove`, `bench`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use trunkline_testing::servers;

use crate::arguments::Arguments;
use crate::stage::Stages;
use crate::tally::Tally;
use crate::workspace::{Package, Workspace};
use crate::{cargo, environment, live, process};

const BENCHES: &str = "trunkline-benches";

/// `cargo xtask doc`.
pub(crate) fn doc(workspace: &Workspace, arguments: Arguments) -> Result<()> {
    arguments.finish()?;
    let mut command = cargo::command(
        workspace,
        ["doc", "--workspace", "--all-features", "--no-deps"],
    );
    command.env(
        "RUSTDOCFLAGS",
        environment::appended("RUSTDOCFLAGS", "-D warnings"),
    );
    process::run(&mut command)
}

/// `cargo xtask capability-table`.
pub(crate) fn capability_table(workspace: &Workspace, arguments: Arguments) -> Result<()> {
    arguments.finish()?;
    // Whoever writes it is the test that compares it.
    let words = [
        "test",
        "--package=trunkline-manager",
        "--features=full",
        "--test=it",
        "--",
        "--exact",
        "--ignored",
        "capabilities::write_the_table",
    ];
    process::run(&mut cargo::command(workspace, words))
}

/// `cargo xtask features`.
pub(crate) fn features(workspace: &Workspace, mut arguments: Arguments) -> Result<()> {
    let mut packages = Vec::new();
    while let Some(name) = arguments.positional() {
        packages.push(workspace.named(&name)?);
    }
    arguments.finish()?;
    if packages.is_empty() {
        packages = workspace
            .packages
            .iter()
            .filter(|p| !p.features.is_empty())
            .collect();
    }
    let mut stages = Stages::default();
    for package in packages {
        for feature in std::iter::once(None).chain(alone(package).map(Some)) {
            let shown = feature.unwrap_or("no feature");
            stages.run(&format!("{}, {shown}", package.name), || {
                let mut command = cargo::command(
                    workspace,
                    ["clippy", "-p", &package.name, "--no-default-features"],
                );
                if let Some(feature) = feature {
                    command.args(["--features", feature]);
                }
                process::run(command.args(["--", "-D", "warnings"]))
            })?;
        }
    }
    print!("\n{}", stages.summary());
    Ok(())
}

fn alone(package: &Package) -> impl Iterator<Item = &str> {
    package
        .features
        .keys()
        .map(String::as_str)
        .filter(|name| *name != "default")
}

/// `cargo xtask msrv`.
pub(crate) fn msrv(workspace: &Workspace, arguments: Arguments) -> Result<()> {
    arguments.finish()?;
    let promised = promised_version(workspace)?;
    let used = cargo::rust_version(workspace)?;
    let check = ["check", "--workspace", "--all-features", "--all-targets"];
    if is_release_of(&used, promised) {
        println!("Rust {used} is in use, {promised} is promised");
        return process::run(&mut cargo::command(workspace, check));
    }
    println!("Rust {used} is in use, {promised} is promised: using that");
    process::run(Command::new("rustup").args([
        "toolchain",
        "install",
        promised,
        "--profile",
        "minimal",
    ]))?;
    let mut command = Command::new("rustup");
    command
        .current_dir(&workspace.root)
        .args(["run", promised, "cargo"])
        .args(check);
    // Its own directory: two compilers would rebuild each other's work.
    command
        .arg("--target-dir")
        .arg(workspace.target.join("msrv"));
    // What the running cargo set for its own children.
    process::run(
        command
            .env_remove("CARGO")
            .env_remove("RUSTC")
            .env_remove("RUSTUP_TOOLCHAIN"),
    )
}

fn promised_version(workspace: &Workspace) -> Result<&str> {
    let mut versions = workspace
        .packages
        .iter()
        .map(|package| package.rust_version.as_deref());
    let first = versions
        .next()
        .flatten()
        .context("a package states no `rust-version`")?;
    if !versions.all(|version| version == Some(first)) {
        bail!("packages of the workspace state different `rust-version`s");
    }
    Ok(first)
}

/// Whether `used`, such as `1.95.0`, is a release of `promised`, such as `1.95`.
fn is_release_of(used: &str, promised: &str) -> bool {
    used.strip_prefix(promised)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// `cargo xtask loom`.
pub(crate) fn loom(workspace: &Workspace, arguments: Arguments) -> Result<()> {
    arguments.finish()?;
    let uses_loom = |package: &&Package| {
        package
            .dependencies
            .iter()
            .any(|dependency| dependency.name == "loom")
    };
    let packages: Vec<&Package> = workspace.packages.iter().filter(uses_loom).collect();
    if packages.is_empty() {
        bail!("no crate of this workspace depends on loom");
    }
    let mut tally = Tally::default();
    for package in packages {
        let before = tally.passed;
        let mut command = cargo::command(
            workspace,
            ["test", "--release", "--lib", "-p", &package.name],
        );
        // Its own directory: the flag would rebuild everything else.
        command
            .arg("--target-dir")
            .arg(workspace.target.join("loom"));
        command.env(
            "RUSTFLAGS",
            environment::appended("RUSTFLAGS", "--cfg loom"),
        );
        process::watched(command.args(["--", "loom_"]), |line| {
            println!("{line}");
            tally.see(line);
        })?;
        if tally.passed == before {
            bail!(
                "{} depends on loom and has no test named loom_*",
                package.name
            );
        }
    }
    println!("{tally}");
    Ok(())
}

/// `cargo xtask deny`.
pub(crate) fn deny(workspace: &Workspace, mut arguments: Arguments) -> Result<()> {
    let advisories = arguments.flag("--advisories");
    arguments.finish()?;
    let mut command = Command::new(cargo_deny(workspace)?);
    command
        .current_dir(&workspace.root)
        .args(["--all-features", "check", "bans", "licenses"]);
    command.arg("sources");
    if advisories {
        command.arg("advisories");
    }
    process::run(&mut command)
}

/// Where cargo-deny is; it is installed into the cache directory if it is nowhere.
fn cargo_deny(workspace: &Workspace) -> Result<PathBuf> {
    let name = Path::new("cargo-deny");
    if answers(name) {
        return Ok(name.to_owned());
    }
    let tools = servers::cache_directory().join("tools");
    let installed = tools.join("bin").join(name);
    if !answers(&installed) {
        let mut command =
            cargo::command(workspace, ["install", "--locked", "cargo-deny", "--root"]);
        process::run(command.arg(&tools))?;
    }
    Ok(installed)
}

fn answers(program: &Path) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// `cargo xtask prove`.
pub(crate) fn prove(workspace: &Workspace, arguments: Arguments) -> Result<()> {
    delegate(workspace, "prove", arguments)
}

/// `cargo xtask bench`.
pub(crate) fn bench(workspace: &Workspace, arguments: Arguments) -> Result<()> {
    delegate(workspace, "bench", arguments)
}

/// Builds the programs of `benches/` and the command-line tool in one go, so that they share what
/// they can, and runs one of them.
fn delegate(workspace: &Workspace, binary: &str, arguments: Arguments) -> Result<()> {
    let benches = workspace
        .package(BENCHES)
        .context("the workspace has no benches")?;
    live::install_for(benches)?;
    let (build, programs): (&[&str], _) = match quick_proof(binary, &arguments) {
        // What the tests have built, so that next to nothing is built for it, and with the checks of a debug build.
        true => (
            &["build", "--workspace", "--all-features", "--bins"],
            "debug",
        ),
        false => (
            &[
                "build",
                "--release",
                "--bins",
                "-p",
                BENCHES,
                "-p",
                "trunkline-cli",
            ],
            "release",
        ),
    };
    process::run(&mut cargo::command(workspace, build.iter().copied()))?;
    let programs = workspace.target.join(programs);
    let mut command = Command::new(programs.join(binary));
    command
        .current_dir(&workspace.root)
        .env("TRUNKLINE_BIN", programs.join("trunkline"));
    command.args(arguments.rest());
    let status = command
        .status()
        .with_context(|| format!("cannot run {binary}"))?;
    if status.success() {
        return Ok(());
    }
    // It has said what was wrong; its exit code is the answer.
    Err(Exit(status.code().unwrap_or(1)).into())
}

/// A quick run of proofs measures nothing.
fn quick_proof(binary: &str, arguments: &Arguments) -> bool {
    binary == "prove" && arguments.has("--quick")
}

/// The exit code of a program that has explained itself already.
#[derive(Debug)]
pub(crate) struct Exit(pub(crate) i32);

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Exit {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_releases_are_the_promised_version() {
        assert!(is_release_of("1.95.0", "1.95"));
        assert!(is_release_of("1.95.0", "1.95.0"));
        assert!(!is_release_of("1.96.0", "1.95"));
        assert!(!is_release_of("1.950.0", "1.95"));
    }

    #[test]
    fn one_version_is_promised_for_all() {
        let package = |version: Option<&str>| Package {
            rust_version: version.map(str::to_owned),
            ..Package::default()
        };
        let workspace = |versions: &[Option<&str>]| Workspace {
            packages: versions.iter().map(|version| package(*version)).collect(),
            ..Workspace::default()
        };
        let same = workspace(&[Some("1.95"), Some("1.95")]);
        assert_eq!(promised_version(&same).unwrap(), "1.95");
        assert!(promised_version(&workspace(&[Some("1.95"), Some("1.90")])).is_err());
        assert!(promised_version(&workspace(&[Some("1.95"), None])).is_err());
    }
}
