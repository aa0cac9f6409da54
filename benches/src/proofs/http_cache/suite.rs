//! The suite: its package, its server, its client.

use std::fmt;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::stopwatch::Stopwatch;

pub(super) const PACKAGE: &str = "http-cache-tests";
pub(super) const VERSION: &str = "0.4.5";

/// Runs the definitions; ours.
const DRIVE: &str = include_str!("drive.mjs");

/// How long the server may take to listen.
const BOOT: Duration = Duration::from_secs(30);

/// What a case asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Required,
    Optimal,
    Check,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Optimal => "optimal",
            Self::Check => "choice",
        })
    }
}

/// What came of a case.
#[derive(Debug, Deserialize)]
pub(super) struct Case {
    pub(super) id: String,
    pub(super) suite: String,
    pub(super) kind: Kind,
    pub(super) passed: bool,
    pub(super) seen: String,
}

/// The package, unpacked.
pub(super) struct Suite {
    folder: TempDir,
}

impl Suite {
    pub(super) fn fetch() -> Result<Self> {
        let folder = TempDir::new()?;
        let named = format!("{PACKAGE}@{VERSION}");
        let packed = Command::new("npm")
            .args(["pack", "--silent", &named])
            .current_dir(folder.path())
            .output()
            .context("npm cannot be run: install Node")?;
        ensure!(
            packed.status.success(),
            "npm has no {named}: {}",
            String::from_utf8_lossy(&packed.stderr)
        );
        let archive = format!("{PACKAGE}-{VERSION}.tgz");
        let unpacked = Command::new("tar")
            .args(["-xzf", &archive])
            .current_dir(folder.path())
            .status()
            .context("tar cannot be run")?;
        ensure!(unpacked.success(), "{archive} cannot be unpacked");
        Ok(Self { folder })
    }

    fn package(&self) -> PathBuf {
        self.folder.path().join("package")
    }

    /// Starts the suite's server.
    pub(super) fn serve(&self) -> Result<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("node")
            .arg("server/server.mjs")
            .current_dir(self.package())
            .env("npm_config_protocol", "http")
            .env("npm_config_port", port.to_string())
            .env("npm_config_pidfile", self.folder.path().join("pid"))
            .stdout(Stdio::null())
            .spawn()
            .context("node cannot be run")?;
        let mut server = Server { child, port };
        let watch = Stopwatch::start();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("the suite's server ended with {status}");
            }
            ensure!(watch.elapsed() < BOOT, "the suite's server does not listen");
            #[expect(
                clippy::disallowed_methods,
                reason = "no runtime here, and nothing else to do"
            )]
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Runs all cases.
    pub(super) fn run(&self, _: &Server, base: &str) -> Result<Vec<Case>> {
        let mut child = Command::new("node")
            .args(["--no-warnings", "--input-type=module", "-"])
            .arg(self.package())
            .arg(base)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("node takes no program")?;
        input.write_all(DRIVE.as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "the suite ended with {}",
            output.status
        );
        serde_json::from_slice(&output.stdout).context("the suite's results cannot be read")
    }
}

/// The suite's server, until dropped.
pub(super) struct Server {
    child: Child,
    port: u16,
}

impl Server {
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
