//! The demo as a system under proof: started as its users start it, observed from outside, its processes killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::entry::Options;
use crate::stopwatch::Stopwatch;

/// How long anything that is about to happen may take.
const PATIENCE: Duration = Duration::from_secs(30);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The processes of the demo.
pub(crate) const MEMBERS: [&str; 5] = ["users", "payments", "orders", "notifications", "gateway"];

/// What the demo says when it is ready.
#[derive(Deserialize)]
struct Ready {
    gateway: String,
    members: BTreeMap<String, String>,
}

/// A running demo; killed and removed when it is dropped.
pub(crate) struct System {
    demo: Child,
    ready: Ready,
    directory: PathBuf,
}

impl System {
    pub(crate) fn start(options: &Options) -> Result<Self> {
        let directory =
            std::env::temp_dir().join(format!("trunkline-proof-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let mut demo = Command::new(options.trunkline()?)
            .args(["demo", "--port", "0", "--output", "json", "--dir"])
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the demo")?;
        let output = demo.stdout.take().context("the demo has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let ready = serde_json::from_str(&line)
            .with_context(|| format!("the demo said {line:?} instead of where it is"))?;
        Ok(Self {
            demo,
            ready,
            directory,
        })
    }

    pub(crate) fn gateway(&self) -> &str {
        &self.ready.gateway
    }

    /// Every process, and where it listened at the start.
    pub(crate) fn members(&self) -> &BTreeMap<String, String> {
        &self.ready.members
    }

    /// Kills a member outright and returns when another process has taken its place.
    pub(crate) async fn kill(&self, member: &str) -> Result<()> {
        self.end(member, Signal::KILL).await
    }

    /// Asks a member to stop and returns when another process has taken its place.
    pub(crate) async fn replace(&self, member: &str) -> Result<()> {
        self.end(member, Signal::TERM).await
    }

    async fn end(&self, member: &str, signal: Signal) -> Result<()> {
        let victim = self
            .pid(member)?
            .with_context(|| format!("{member} is not running"))?;
        kill_process(pid(victim)?, signal)?;
        let watch = Stopwatch::start();
        loop {
            match self.pid(member)? {
                Some(next) if next != victim => return Ok(()),
                _ if watch.elapsed() > PATIENCE => bail!("{member} was not started again"),
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// The member's process, found by its command line.
    pub(crate) fn pid(&self, member: &str) -> Result<Option<u32>> {
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(number) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let has = |word: &[u8]| words.contains(&word);
            let ours = has(self.directory.as_os_str().as_encoded_bytes());
            if ours && has(b"--service") && has(member.as_bytes()) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Stops it as Ctrl-C does and says how it ended.
    pub(crate) fn stop(mut self) -> Result<std::process::ExitStatus> {
        kill_process(pid(self.demo.id())?, Signal::INT)?;
        let watch = Stopwatch::start();
        loop {
            if let Some(status) = self.demo.try_wait()? {
                return Ok(status);
            }
            if watch.elapsed() > PATIENCE {
                bail!("the demo did not stop");
            }
            pause();
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Its members notice that it is gone and stop by themselves.
        drop(self.demo.kill());
        drop(self.demo.wait());
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// One service of the demo, alone, as a child of the proof.
pub(crate) struct Service {
    child: Child,
}

impl Service {
    pub(crate) fn start(
        options: &Options,
        name: &str,
        port: u16,
        directory: &Path,
    ) -> Result<Self> {
        let child = Command::new(options.trunkline()?)
            .args([
                "demo",
                "--service",
                name,
                "--port",
                &port.to_string(),
                "--dir",
            ])
            .arg(directory)
            // The service stops when this closes.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child })
    }

    /// Asks it to stop, as an orchestrator does.
    pub(crate) fn terminate(&self) -> Result<()> {
        Ok(kill_process(pid(self.child.id())?, Signal::TERM)?)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<std::process::ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn pid(number: u32) -> Result<Pid> {
    Pid::from_raw(number.cast_signed()).context("a process has no number")
}

fn pause() {
    std::thread::park_timeout(LOOK_AGAIN);
}
