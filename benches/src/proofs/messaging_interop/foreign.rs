//! The clients that are not ours, as processes.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::wire::Told;
use crate::peers::python::Python;

/// Files that stand beside each other.
const SCRIPTS: &[(&str, &str)] = &[
    ("common.py", include_str!("common.py")),
    ("cloud_events.py", include_str!("cloud_events.py")),
    ("with_pika.py", include_str!("with_pika.py")),
    (
        "with_confluent_kafka.py",
        include_str!("with_confluent_kafka.py"),
    ),
    ("with_kcat.py", include_str!("with_kcat.py")),
    ("with_redis.py", include_str!("with_redis.py")),
    ("with_nats.py", include_str!("with_nats.py")),
];

/// Their scripts, and what runs them.
pub(super) struct Foreign {
    python: Python,
    scripts: TempDir,
}

impl Foreign {
    pub(super) fn install() -> Result<Self> {
        let python = Python::with_packages()?;
        let scripts = tempfile::tempdir()?;
        for (name, text) in SCRIPTS {
            fs::write(scripts.path().join(name), text)?;
        }
        Ok(Self { python, scripts })
    }

    /// Has a client publish messages; returns when they are confirmed.
    pub(super) fn write(
        &self,
        script: &str,
        url: &str,
        place: &str,
        messages: &[Told],
    ) -> Result<()> {
        let mut call = self.python.command(self.path(script));
        let said = answer(call.args(["write", url, place]), messages)?;
        ensure!(said.is_empty(), "{script} said {said}");
        Ok(())
    }

    /// Has a client listen; returns when it does.
    pub(super) fn read(
        &self,
        script: &str,
        url: &str,
        place: &str,
        count: usize,
    ) -> Result<Reader> {
        let mut call = self.python.command(self.path(script));
        let mut child = call
            .args(["read", url, place, &count.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("it has no output")?;
        let mut reader = Reader {
            child,
            out: BufReader::new(out),
        };
        let mut line = String::new();
        reader.out.read_line(&mut line)?;
        ensure!(
            line == "ready\n",
            "{script} said {line:?} and not that it listens"
        );
        Ok(reader)
    }

    /// Has the package `cloudevents` work.
    pub(super) fn events<A: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        words: &[&str],
        given: &A,
    ) -> Result<R> {
        let mut call = self.python.command(self.path("cloud_events.py"));
        let said = answer(call.args(words), given)?;
        serde_json::from_str(&said).with_context(|| format!("cloudevents said {said}"))
    }

    fn path(&self, script: &str) -> PathBuf {
        self.scripts.path().join(script)
    }
}

/// A client that listens.
pub(super) struct Reader {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Reader {
    /// Waits until it has all that it wants.
    pub(super) fn finish(mut self) -> Result<Vec<Told>> {
        let mut said = String::new();
        self.out.read_to_string(&mut said)?;
        let status = self.child.wait()?;
        ensure!(
            status.success(),
            "the client that reads ended with {status}"
        );
        serde_json::from_str(&said).with_context(|| format!("the client that reads said {said}"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Gives a program its input and returns what it prints.
fn answer<A: Serialize + ?Sized>(call: &mut Command, given: &A) -> Result<String> {
    let mut child = call.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let input = child.stdin.take();
    let mut input = input.context("it has no input")?;
    // What it says about a mistake of ours is worth more than that it no longer reads.
    let written = input.write_all(&serde_json::to_vec(given)?);
    drop(input);
    let done = child.wait_with_output()?;
    ensure!(done.status.success(), "a client ended with {}", done.status);
    written?;
    Ok(String::from_utf8(done.stdout)?)
}
