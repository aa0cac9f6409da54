//! Packages from PyPI, each of one version, in a place of their own that later runs use again.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use trunkline_testing::servers::{VIRTUALENV, cache_directory};

/// What is installed. Another version is another place.
const PACKAGES: &[&str] = &[
    "aio-pika==10.2.1",
    "cloudevents==2.2.0",
    "confluent-kafka==2.16.1",
    "faststream==0.7.8",
    "nats-py==2.16.0",
    "pika==1.4.4",
    "redis==8.1.0",
];

/// The last thing that an installation leaves.
const COMPLETE: &str = "complete";

/// Python with these packages.
#[derive(Clone, Debug)]
pub(crate) struct Python(PathBuf);

impl Python {
    /// Uses what an earlier run has installed, or installs it, which takes a minute.
    pub(crate) fn with_packages() -> Result<Self> {
        let mut hasher = DefaultHasher::new();
        PACKAGES.hash(&mut hasher);
        let peers = cache_directory().join("peers");
        let place = peers.join(format!("python-{:016x}", hasher.finish()));
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let lock = File::create(peers.join("lock"))?;
        lock.lock()?;
        let program = place.join("bin").join("python");
        if !place.join(COMPLETE).exists() {
            let virtualenv = VIRTUALENV.locate()?;
            run(Command::new(virtualenv)
                .args(["--quiet", "--clear"])
                .arg(&place))?;
            let pip = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-input",
                "--only-binary",
                ":all:",
            ];
            run(Command::new(&program).args(pip).args(PACKAGES))?;
            File::create(place.join(COMPLETE))?;
        }
        Ok(Self(program))
    }

    /// A call of it.
    pub(crate) fn command(&self, script: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.0);
        command.arg(script);
        command
    }
}

/// The version of a package that is installed.
pub(crate) fn version_of(package: &str) -> &'static str {
    let named = |entry: &&&str| {
        entry
            .split_once("==")
            .is_some_and(|(name, _)| name == package)
    };
    let entry = PACKAGES.iter().find(named);
    entry
        .and_then(|entry| Some(entry.split_once("==")?.1))
        .unwrap_or("of no known version")
}

fn run(command: &mut Command) -> Result<()> {
    let done = command
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "{}: {}\n{said}",
        command.get_program().display(),
        done.status
    );
    Ok(())
}
