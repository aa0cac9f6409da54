//! `check`, `test` and `examples`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::arguments::{Arguments, Usage};
use crate::cargo::{self, Executable};
use crate::live::Running;
use crate::process;
use crate::stage::Stages;
use crate::tally::Tally;
use crate::tidy;
use crate::workspace::{Package, Workspace};

/// An example shows something; it does not run for ever.
const EXAMPLE_WITHIN: Duration = Duration::from_secs(120);

/// `cargo xtask check`.
pub(crate) fn check(workspace: &Workspace, arguments: Arguments) -> Result<()> {
    arguments.finish()?;
    let mut stages = Stages::default();
    let result = check_stages(workspace, &mut stages);
    print!("\n{}", stages.summary());
    result
}

fn check_stages(workspace: &Workspace, stages: &mut Stages) -> Result<()> {
    stages.run("format", || {
        process::run(&mut cargo::command(
            workspace,
            ["fmt", "--all", "--", "--check"],
        ))
    })?;
    stages.run("tidy", || tidy::check(workspace))?;
    stages.run("clippy, all features", || {
        let mut command = cargo::command(workspace, ["clippy", "--workspace", "--all-features"]);
        process::run(command.args(["--all-targets", "--", "-D", "warnings"]))
    })?;
    stages.run("clippy, default features", || {
        let mut command = cargo::command(workspace, ["clippy"]);
        select_default(workspace, &mut command);
        process::run(command.args(["--all-targets", "--", "-D", "warnings"]))
    })
}

/// `cargo xtask test`.
pub(crate) fn test(workspace: &Workspace, mut arguments: Arguments) -> Result<()> {
    if let Some(name) = arguments.positional() {
        return test_crate(workspace, &name, &arguments.rest());
    }
    arguments.finish()?;
    let mut stages = Stages::default();
    let mut tally = Tally::default();
    let result = test_stages(workspace, &mut stages, &mut tally);
    print!("\n{}", stages.summary());
    println!("{tally}");
    result
}

fn test_crate(workspace: &Workspace, name: &str, rest: &[String]) -> Result<()> {
    let package = workspace.named(name)?;
    let running = Running::start(package.servers.iter().map(String::as_str))?;
    let mut command = cargo::command(workspace, ["test", "--all-features", "-p", &package.name]);
    process::run(running.hand_to(&mut command).args(rest))
}

fn test_stages(workspace: &Workspace, stages: &mut Stages, tally: &mut Tally) -> Result<()> {
    let running = stages.run("servers", || Running::start(workspace.servers()))?;
    check_stages(workspace, stages)?;
    stages.run("tests, all features", || {
        all_features(workspace, &running, tally)
    })?;
    stages.run("tests, default features", || {
        default_features(workspace, &running, tally)
    })?;
    stages.run("doc tests", || {
        let mut command = cargo::command(
            workspace,
            ["test", "--workspace", "--all-features", "--doc"],
        );
        watch(running.hand_to(&mut command), tally)
    })?;
    stages.run("examples", || run_examples(workspace, &running, None))
}

fn all_features(workspace: &Workspace, running: &Running, tally: &mut Tally) -> Result<()> {
    let mut command = all_targets(workspace);
    // All failures at once: the next run is minutes away.
    watch(running.hand_to(command.arg("--no-fail-fast")), tally)
}

/// Library, binaries, integration tests and examples of everything, with all features.
fn all_targets(workspace: &Workspace) -> Command {
    let mut command = cargo::command(workspace, ["test", "--workspace", "--all-features"]);
    command.args(["--lib", "--bins", "--tests", "--examples"]);
    command
}

/// Runs the test programs that default features make different; the others have just been run.
fn default_features(workspace: &Workspace, running: &Running, tally: &mut Tally) -> Result<()> {
    let mut everything = all_targets(workspace);
    everything.arg("--no-run");
    let already = cargo::executables(everything)?;
    let mut command = cargo::command(
        workspace,
        ["test", "--no-run", "--lib", "--bins", "--tests"],
    );
    select_default(workspace, &mut command);
    let mut different = only_new_tests(cargo::executables(command)?, &already);
    println!(
        "{} of them differ from those with all features",
        different.len()
    );
    different.retain(|_, program| {
        let package = package_of(workspace, program);
        !package.is_some_and(Package::is_one_on_servers)
    });
    println!(
        "{} are run: those without features of their own on real servers have been",
        different.len()
    );
    let mut failed = Vec::new();
    for (path, executable) in different {
        let name = format!("{} ({})", executable.package.display(), executable.target);
        println!("     Running {name}");
        if let Err(error) = watch(
            &mut test_program(workspace, &path, &executable, running),
            tally,
        ) {
            println!("{error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn only_new_tests(
    programs: BTreeMap<PathBuf, Executable>,
    already: &BTreeMap<PathBuf, Executable>,
) -> BTreeMap<PathBuf, Executable> {
    programs
        .into_iter()
        .filter(|(path, program)| program.is_test && !already.contains_key(path))
        .collect()
}

/// A test program as `cargo test` would start it.
fn test_program(
    workspace: &Workspace,
    path: &Path,
    executable: &Executable,
    running: &Running,
) -> Command {
    let mut command = Command::new(path);
    command
        .current_dir(&executable.package)
        .env("CARGO_MANIFEST_DIR", &executable.package);
    if let Some(package) = package_of(workspace, executable) {
        command.env("CARGO_PKG_NAME", &package.name);
    }
    running.hand_to(&mut command);
    command
}

fn package_of<'a>(workspace: &'a Workspace, program: &Executable) -> Option<&'a Package> {
    let mut packages = workspace.packages.iter();
    packages.find(|package| workspace.root.join(&package.directory) == program.package)
}

fn select_default(workspace: &Workspace, command: &mut Command) {
    for package in workspace.with_default_features() {
        command.args(["-p", &package.name]);
    }
}

fn watch(command: &mut Command, tally: &mut Tally) -> Result<()> {
    process::watched(command, |line| {
        println!("{line}");
        tally.see(line);
    })
}

/// `cargo xtask examples`.
pub(crate) fn examples(workspace: &Workspace, mut arguments: Arguments) -> Result<()> {
    let name = arguments.positional();
    arguments.finish()?;
    let running = Running::start(workspace.servers())?;
    run_examples(workspace, &running, name.as_deref())
}

fn run_examples(workspace: &Workspace, running: &Running, only: Option<&str>) -> Result<()> {
    // The same packages and features as the tests, so that nothing is built twice.
    let build = cargo::command(
        workspace,
        ["build", "--workspace", "--all-features", "--examples"],
    );
    let mut programs = cargo::executables(build)?;
    programs.retain(|_, program| program.kind == "example");
    if let Some(only) = only {
        programs.retain(|_, program| program.target == only);
        if programs.is_empty() {
            return Err(Usage(format!("no example `{only}`")).into());
        }
    }
    for (path, program) in &programs {
        println!("     Running example {}", program.target);
        let mut command = Command::new(path);
        command.current_dir(&workspace.root);
        process::limited(running.hand_to(&mut command), EXAMPLE_WITHIN)?;
    }
    println!("examples: {} run", programs.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_test_programs_are_run_again() {
        let program = |is_test| Executable {
            target: "it".to_owned(),
            kind: "test".to_owned(),
            is_test,
            package: PathBuf::from("/w"),
        };
        let programs = |names: &[(&str, bool)]| -> BTreeMap<PathBuf, Executable> {
            names
                .iter()
                .map(|(name, is_test)| (PathBuf::from(name), program(*is_test)))
                .collect()
        };
        let already = programs(&[("it-1", true), ("bin", false)]);
        let now = programs(&[("it-1", true), ("it-2", true), ("example", false)]);
        let left: Vec<_> = only_new_tests(now, &already).into_keys().collect();
        assert_eq!(left, [PathBuf::from("it-2")]);
    }
}
