//! The consumers: processes that come, go and die.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// What every member is told.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) url: String,
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) directory: PathBuf,
}

/// A consumer's process; killed when it is dropped.
pub(super) struct Member {
    child: Child,
    /// It leaves when this is closed.
    input: Option<ChildStdin>,
}

impl Member {
    /// Starts one and waits until its subscription is attached.
    pub(super) fn start(terms: &Terms) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("messaging-member");
        let mut child = Command::new(&program)
            .args([&terms.url, &terms.topic, &terms.group])
            .arg(&terms.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut line = String::new();
        BufReader::new(output.context("its output is piped")?).read_line(&mut line)?;
        if line.trim_end() != "ready" {
            bail!("a consumer did not become ready: {}", child.wait()?);
        }
        Ok(Self { child, input })
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Ends it as a crash would.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it leave in good order.
    pub(super) fn leave(mut self) -> Result<()> {
        drop(self.input.take());
        let ended: ExitStatus = self.child.wait()?;
        ensure!(
            ended.success(),
            "a consumer did not leave in good order: {ended}"
        );
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A directory of its own for the effects, beside this program: it has to survive kills, not this proof.
pub(super) fn scratch() -> Result<tempfile::TempDir> {
    let place = std::env::current_exe()?.with_file_name("messaging-chaos-data");
    std::fs::create_dir_all(&place)?;
    Ok(tempfile::TempDir::new_in::<&Path>(&place)?)
}
