//! Go's own client, as a program of its own that measures itself in the same way.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::measure::Sample;
use super::{ANSWER, AT_ONCE};

const SOURCE: &str = include_str!("client.go");

#[derive(Debug)]
pub(super) struct GoClient {
    program: PathBuf,
    _directory: TempDir,
}

impl GoClient {
    /// Builds it; `None` where there is no Go.
    pub(super) fn build() -> Result<Option<Self>> {
        let directory = tempfile::tempdir()?;
        let source = directory.path().join("client.go");
        std::fs::write(&source, SOURCE)?;
        let program = directory.path().join("client");
        let built = Command::new("go")
            .args(["build", "-o"])
            .args([&program, &source])
            .current_dir(directory.path())
            .output();
        let built = match built {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            built => built.context("go build")?,
        };
        ensure!(
            built.status.success(),
            "go build: {}",
            String::from_utf8_lossy(&built.stderr)
        );
        Ok(Some(Self {
            program,
            _directory: directory,
        }))
    }

    pub(super) fn measure(&self, server: SocketAddr, requests: usize) -> Result<Sample> {
        let output = Command::new(&self.program)
            .arg(format!("http://{server}/users/1"))
            .args([requests.to_string(), AT_ONCE.to_string()])
            .arg(std::str::from_utf8(ANSWER)?)
            .env("GOMAXPROCS", "1")
            .output()
            .context("Go's client")?;
        ensure!(
            output.status.success(),
            "Go's client: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).context("what Go's client measured")
    }
}
