//! How a system is declared: one constant per system.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::error::ServerError;
use super::program::Program;

/// A server that tests can start: what it needs and how it is run.
///
/// Everything that differs between systems is in here; installing, choosing ports, waiting,
/// stopping and cleaning up are the same for all of them.
#[derive(Clone, Debug)]
pub struct System {
    /// Name in commands, in `TRUNKLINE_REQUIRE_LIVE` and in `TRUNKLINE_TEST_<SYSTEM>_URL`.
    pub name: &'static str,
    /// The program that serves.
    pub program: &'static Program,
    /// How many TCP ports it listens on. The first is the one clients use.
    pub ports: usize,
    /// Longest time from start to readiness.
    pub ready_within: Duration,
    /// Longest time from SIGTERM to its end, after which it gets SIGKILL.
    pub stop_within: Duration,
    /// Writes configuration and whatever must exist before the first start.
    pub prepare: fn(&Site) -> Result<(), ServerError>,
    /// Adds arguments and environment to the command, which must stay in the foreground.
    pub command: fn(&Site, &mut Command),
    /// Asks the server whether it serves; the error says what was seen instead.
    pub probe: fn(&Site) -> Result<(), String>,
    /// The URL that clients are given.
    pub url: fn(&Site) -> String,
}

/// The place of one running server: its directory and its ports.
#[derive(Clone, Debug)]
pub struct Site {
    pub(super) directory: PathBuf,
    pub(super) ports: Vec<u16>,
}

impl Site {
    /// The directory that belongs to this server alone.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the server keeps its data; kept over restarts, removed at the end.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// What the server wrote on its standard output and error.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("output.log")
    }

    /// The port that clients use.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.first().copied().unwrap_or(0)
    }

    /// All ports, in the order the system declares them.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The address that clients use. Servers listen on loopback only.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()))
    }
}
