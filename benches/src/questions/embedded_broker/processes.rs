//! Where the processes meet, and starting them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use trunkline_testing::servers::{Launch, REDIS, Server};

use crate::load::{Outcome, Role};

/// A fresh directory, or a fresh Redis; gone when it is dropped.
pub(super) enum Place {
    Embedded(TempDir),
    Redis(Box<Server>),
}

impl Place {
    pub(super) fn embedded() -> Result<Self> {
        scratch().map(Self::Embedded)
    }

    pub(super) fn redis() -> Result<Self> {
        let server = Launch::new(&REDIS)
            .arguments(["--appendfsync", "always"])
            .start()?;
        Ok(Self::Redis(Box::new(server)))
    }

    pub(super) fn start(&self, role: Role) -> Result<Started> {
        let (system, place) = match self {
            Self::Embedded(directory) => ("embedded", directory.path().display().to_string()),
            Self::Redis(server) => ("redis", server.address().to_string()),
        };
        let program = beside("embedded-load")?;
        let child = Command::new(&program)
            .args([system.to_owned(), place])
            .args(role.words())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Started(child))
    }
}

/// A process that was started.
pub(super) struct Started(Child);

impl Started {
    /// Waits for its end and reads what it measured.
    pub(super) fn finish(self) -> Result<Outcome> {
        let output = self.0.wait_with_output()?;
        ensure!(
            output.status.success(),
            "a process failed: {}",
            output.status
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// A directory beside this program: temporary ones may be in memory, where syncing costs nothing.
pub(super) fn scratch() -> Result<TempDir> {
    let place = beside("embedded-broker-data")?;
    std::fs::create_dir_all(&place)?;
    Ok(TempDir::new_in(place)?)
}

fn beside(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}
