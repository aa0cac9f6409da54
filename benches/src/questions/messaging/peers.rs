//! FastStream and Watermill, as programs of their own that measure themselves in the same way.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::{Job, Sample, TEXT};
use crate::peers::go;
use crate::peers::python::{Python, version_of};

const SOURCES: &[(&str, &str)] = &[
    ("go.mod", include_str!("watermill/go.mod")),
    ("go.sum", include_str!("watermill/go.sum")),
    ("main.go", include_str!("watermill/main.go")),
    ("topology.go", include_str!("watermill/topology.go")),
];

/// Watermill's part of `go.mod`, as it is written there.
const WATERMILL: &str = "github.com/ThreeDotsLabs/watermill ";

pub(super) struct FastStream {
    python: Python,
    script: PathBuf,
    _directory: TempDir,
}

impl FastStream {
    pub(super) fn install() -> Result<Self> {
        let python = Python::with_packages()?;
        let directory = tempfile::tempdir()?;
        let script = directory.path().join("peer.py");
        fs::write(&script, include_str!("fast_stream.py"))?;
        Ok(Self {
            python,
            script,
            _directory: directory,
        })
    }

    pub(super) fn measure(&self, job: &Job) -> Result<Sample> {
        measure(&mut self.python.command(&self.script), job).context("FastStream")
    }
}

pub(super) fn fast_stream_version() -> String {
    format!("FastStream {}", version_of("faststream"))
}

pub(super) struct Watermill(PathBuf);

impl Watermill {
    /// Builds it, or uses what an earlier run has built; `None` where there is no Go.
    pub(super) fn build() -> Result<Option<Self>> {
        Ok(go::program("watermill", SOURCES)?.map(Self))
    }

    pub(super) fn measure(&self, job: &Job) -> Result<Sample> {
        measure(&mut Command::new(&self.0), job).context("Watermill")
    }
}

pub(super) fn watermill_version() -> String {
    let of = SOURCES.iter().flat_map(|(_, text)| text.lines());
    let version = of
        .filter_map(|line| line.trim().strip_prefix(WATERMILL))
        .next();
    format!("Watermill {}", version.unwrap_or("of no known version"))
}

fn measure(command: &mut Command, job: &Job) -> Result<Sample> {
    let mut given = serde_json::to_value(job)?;
    if let Some(given) = given.as_object_mut() {
        given.insert("text".to_owned(), json!(TEXT));
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("it has no input")?;
    match input.write_all(given.to_string().as_bytes()) {
        // It has ended: how, is told below.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "it ended with {}", output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).with_context(|| format!("it said {said:?}"))
}
