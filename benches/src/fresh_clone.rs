//! The repository as a newcomer has it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, bail};

use crate::stopwatch::Stopwatch;

/// A fresh clone, with a target directory of its own; removed when it is dropped.
#[derive(Debug)]
pub(crate) struct FreshClone(PathBuf);

impl FreshClone {
    /// Clones what is committed, and fetches what it depends on: downloads are the network's time, not the compiler's.
    pub(crate) fn of_this_repository() -> Result<Self> {
        let scratch = std::env::temp_dir().join(format!("trunkline-clone-{}", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the crate lies in a workspace")?;
        let cloned = Command::new("git")
            .arg("clone")
            .arg("--quiet")
            .arg(source)
            .arg(&scratch)
            .status()?;
        let clone = Self(scratch);
        if !cloned.success() {
            bail!("git clone ended with {cloned}");
        }
        let fetched = clone
            .cargo("fetch")
            .args(["--locked", "--quiet"])
            .status()?;
        if !fetched.success() {
            bail!("cargo fetch ended with {fetched}");
        }
        Ok(clone)
    }

    /// Builds what a newcomer builds, and says how that ended and how many seconds it took.
    pub(crate) fn build(&self, options: &[&str]) -> Result<(ExitStatus, f64)> {
        let mut build = self.cargo("build");
        build
            .args(["--release", "--locked", "--quiet"])
            .args(options);
        let watch = Stopwatch::start();
        let built = build.status()?;
        Ok((built, watch.seconds()))
    }

    /// The first command of the README; its own arguments follow.
    pub(crate) fn cargo_run(&self) -> Command {
        let mut run = self.cargo("run");
        run.args(["--release", "--locked", "--quiet", "--"]);
        run
    }

    /// A file within.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo
            .arg(command)
            .current_dir(&self.0)
            .env_remove("CARGO_TARGET_DIR");
        cargo
    }
}

impl Drop for FreshClone {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
