//! One child process: started, watched, stopped, killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::fs::OpenOptions;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::members::Member;
use super::narrator::Narrator;

/// A process of the demo. Its log lines go to a file, and those meant for people to the terminal.
#[derive(Debug)]
pub(crate) struct Process {
    member: Member,
    child: Child,
    /// The child stops by itself when this closes, so that nobody is left behind if the demo is killed.
    _lifeline: ChildStdin,
    log: JoinHandle<()>,
}

impl Process {
    /// Starts a member on a data directory and a port, 0 for any.
    pub(crate) fn start(
        member: Member,
        dir: &Path,
        port: u16,
        narrator: &Narrator,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the own program")?;
        let mut child = Command::new(program)
            .arg("demo")
            .args(["--service", member.name()])
            .args(["--port", &port.to_string()])
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the demo, which stops its members in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {member}"))?;
        let lifeline = child.stdin.take().context("the child has no stdin")?;
        let output = child.stderr.take().context("the child has no stderr")?;
        let log = forward(member, output, log_file(dir, member), *narrator);
        Ok(Self {
            member,
            child,
            _lifeline: lifeline,
            log,
        })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it outright (SIGKILL) and waits until it is gone.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("cannot kill {}", self.member))?;
        self.finish_log().await;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits; kills it when it takes longer than allowed.
    pub(crate) async fn stop(mut self, patience: Duration) -> anyhow::Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            // It may have ended a moment ago; then there is nothing to ask.
            kill_process(pid, Signal::TERM).ok();
        }
        let ended = timeout(patience, self.child.wait()).await;
        let Ok(status) = ended else {
            self.child.kill().await?;
            bail!(
                "{} did not stop within {patience:?} and was killed",
                self.member
            );
        };
        self.finish_log().await;
        let status = status.with_context(|| format!("cannot wait for {}", self.member))?;
        if !status.success() {
            bail!("{} ended with {status}", self.member);
        }
        Ok(())
    }

    /// Waits until the last lines are written.
    async fn finish_log(&mut self) {
        drop(timeout(Duration::from_secs(2), &mut self.log).await);
    }
}

/// Where a member's log lines go.
pub(crate) fn log_file(dir: &Path, member: Member) -> PathBuf {
    dir.join("logs").join(format!("{member}.log"))
}

fn forward(
    member: Member,
    output: ChildStderr,
    path: PathBuf,
    narrator: Narrator,
) -> JoinHandle<()> {
    trunkline::task::spawn("demo log", async move {
        let mut file = match OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .await
        {
            Ok(file) => Some(file),
            Err(error) => {
                narrator.warn(&format!("cannot write {}: {error}", path.display()));
                None
            }
        };
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            narrator.log_line(member, &line);
            if let Some(file) = &mut file {
                drop(file.write_all(format!("{line}\n").as_bytes()).await);
            }
        }
    })
}
