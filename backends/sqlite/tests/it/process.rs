//! Other processes: this test binary, started again in a role.
//!
//! The test [`child`] does nothing when the suite runs it. A parent starts the binary with that test alone and a role in
//! the environment; the role talks to its parent by lines that begin with `» `. So a process can be killed for real
//! without a second binary.

use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::{disk, roles};

const ROLE: &str = "TRUNKLINE_TEST_ROLE";
const MARK: &str = "» ";
/// Nothing a child does takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn child() {
    let Some(role) = std::env::var_os(ROLE) else {
        return;
    };
    let role = role.into_string().unwrap();
    let words: Vec<&str> = role.split('\n').collect();
    match words.as_slice() {
        ["disk", directory] => run(disk::fill_and_free(directory)),
        [name, directory, arguments @ ..] => run(roles::play(name, directory, arguments)),
        _ => panic!("no role: {role}"),
    }
}

fn run(role: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(role);
}

/// Tells the parent something.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
pub(crate) fn tell(what: impl Display) {
    println!("{MARK}{what}");
}

/// A process in a role; killed when it is dropped.
pub(crate) struct Process {
    child: std::process::Child,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(role: &str, directory: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(ARGUMENTS);
        Self::of(command, role, directory, arguments)
    }

    /// Starts it by another program, which gets this binary and its arguments after its own.
    pub(crate) fn start_by(program: &[&str], role: &str, directory: &Path) -> Self {
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .arg(std::env::current_exe().unwrap())
            .args(ARGUMENTS);
        Self::of(command, role, directory, &[])
    }

    fn of(mut command: Command, role: &str, directory: &Path, arguments: &[&str]) -> Self {
        let mut words = vec![role, directory.to_str().unwrap()];
        words.extend(arguments);
        let mut child = command
            .env(ROLE, words.join("\n"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = listen(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line; `None` when the process has ended.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("the child says nothing"),
        }
    }

    /// Lines that are there already.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Waits for a line.
    pub(crate) fn expect(&self, wanted: &str) {
        let line = self.line();
        assert_eq!(line.as_deref(), Some(wanted));
    }

    /// Kills it as a power failure of the process does, and returns what it had still said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }

    /// Waits for its end; whether it succeeded.
    pub(crate) fn end(mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const ARGUMENTS: [&str; 4] = [
    "process::child",
    "--exact",
    "--nocapture",
    "--test-threads=1",
];

fn listen(output: ChildStdout) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { return };
            // The test runner may have begun the line.
            if let Some((_, told)) = line.split_once(MARK)
                && send.send(told.to_owned()).is_err()
            {
                return;
            }
        }
    });
    lines
}
