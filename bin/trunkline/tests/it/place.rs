//! A directory to run the command in, and what came of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// Longest that a test waits for something that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline");

/// Where a test runs the command: nothing of the machine's environment is seen there.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    /// The embedded directory of this place.
    pub(crate) fn url(&self) -> String {
        format!("embedded://{}", self.data().display())
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file here.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.command(args)).await
    }

    /// Runs with these bytes on stdin.
    pub(crate) async fn feed(&self, args: &[&str], input: &[u8]) -> Outcome {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).await.unwrap();
        drop(stdin);
        Outcome::end_of(child).await
    }

    /// Runs until it is told to end.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::of(self.command(args))
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) async fn of(mut command: Command) -> Self {
        Self::end_of(command.spawn().unwrap()).await
    }

    pub(crate) async fn end_of(child: Child) -> Self {
        let ended = timeout(SOON, child.wait_with_output()).await;
        let output = ended.expect("it ends in time").unwrap();
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn done(self) -> Self {
        self.ended(0)
    }

    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}\n{}", self.text());
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Fails with this code and says this on stderr, and nothing on stdout.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, says: &str) -> Self {
        let ended = self.ended(code);
        assert!(ended.stderr.contains(says), "{says}: {}", ended.stderr);
        assert_eq!(ended.text(), "");
        ended
    }

    /// The one JSON error that stderr holds.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        let error: Value = serde_json::from_str(self.stderr.trim_end()).expect(&self.stderr);
        assert_eq!(keys(&error), ["error", "kind"], "{error}");
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        error
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Each line as JSON of its own.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let lines = self.text().lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}

/// A command that runs, killed with the test.
pub(crate) struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Running {
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self {
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The next line of stdout.
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(SOON, self.stdout.next_line()).await;
        match line.expect("a line comes in time").unwrap() {
            Some(line) => line,
            None => panic!("it ended: {:?}", self.stderr.next_line().await),
        }
    }

    /// The next line of stdout, as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).expect(&line)
    }

    /// The next line of stderr that has this in it.
    pub(crate) async fn remark(&mut self, wanted: &str) -> String {
        let read = async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                if line.contains(wanted) {
                    return line;
                }
            }
            panic!("it ended without saying {wanted}")
        };
        timeout(SOON, read).await.expect("it is said in time")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Everything that it still says, and how it ends.
    pub(crate) async fn end(mut self) -> Outcome {
        let read = async {
            let (mut stdout, mut stderr) = (Vec::new(), String::new());
            let (out, err) = (self.stdout.get_mut(), self.stderr.get_mut());
            let (out, err) = tokio::join!(
                out.read_to_end(&mut stdout),
                err.read_to_string(&mut stderr)
            );
            out.unwrap();
            err.unwrap();
            let status = self.child.wait().await.unwrap();
            Outcome {
                code: status.code(),
                stdout,
                stderr,
            }
        };
        timeout(SOON, read).await.expect("it ends in time")
    }

    /// Asks it to stop, and how it ends.
    pub(crate) async fn stop(self, signal: Signal) -> Outcome {
        self.signal(signal);
        self.end().await
    }
}

/// Looks until there is what is looked for.
pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let look_on = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, look_on).await.expect("it happens in time")
}

/// The names of an object's fields, in alphabetical order.
#[track_caller]
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}
