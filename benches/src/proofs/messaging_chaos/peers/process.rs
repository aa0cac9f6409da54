//! A process of a peer: told by lines what to do, it says by lines what came of it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread;

use anyhow::{Context as _, Result};

/// Longest complaint that is told.
const LONGEST: usize = 160;

/// What processes do, by their number.
#[derive(Debug)]
pub(super) enum Event {
    Said(u32, String),
    Ended(u32),
}

/// One of them; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) number: u32,
    child: Child,
    input: Option<ChildStdin>,
    complaints: PathBuf,
}

impl Process {
    /// Starts it; what it does is told from now on.
    pub(super) fn start(
        command: &mut Command,
        number: u32,
        directory: &Path,
        tell: Sender<Event>,
    ) -> Result<Self> {
        let complaints = directory.join(format!("complaints-{number}"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints)?)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("its output is piped")?;
        thread::spawn(move || {
            let said = BufReader::new(output).lines().map_while(Result::ok);
            for line in said {
                if tell.send(Event::Said(number, line)).is_err() {
                    return;
                }
            }
            // Nobody may listen any more.
            tell.send(Event::Ended(number)).ok();
        });
        Ok(Self {
            number,
            child,
            input,
            complaints,
        })
    }

    /// Tells it something. One that has ended does not hear it, which is told by its end.
    pub(super) fn tell(&mut self, lines: &str) -> Result<()> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        match input
            .write_all(lines.as_bytes())
            .and_then(|()| input.flush())
        {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Asks it to leave in good order.
    pub(super) fn dismiss(&mut self) {
        drop(self.input.take());
    }

    /// Whether it is gone.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Ends it as a crash would.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The last thing it complained of.
    pub(super) fn complaint(&self) -> String {
        let said = fs::read(&self.complaints).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
        // What follows a panic in Go says where it was, not what.
        let panic = lines.clone().find(|line| line.starts_with("panic:"));
        let line = panic.or_else(|| lines.next_back());
        line.map_or_else(
            || "it said nothing".to_owned(),
            |line| line.chars().take(LONGEST).collect(),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
