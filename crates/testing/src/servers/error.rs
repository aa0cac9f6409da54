//! What can go wrong with a real server.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a server could not be installed, started or stopped.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// The program is not on this machine.
    NotInstalled {
        /// Name of the program.
        program: &'static str,
        /// Debian package that brings it, or Go module.
        package: &'static str,
    },
    /// Installing was tried and failed.
    Install {
        /// Debian package or Go module that was asked for.
        package: &'static str,
        /// What the package manager said, or why it was not asked.
        detail: String,
    },
    /// The server ended before it was ready.
    Exited {
        /// Name of the system.
        system: &'static str,
        /// How it ended.
        status: String,
        /// The last lines it wrote.
        log: String,
    },
    /// The server runs but did not become ready in time.
    NotReady {
        /// Name of the system.
        system: &'static str,
        /// How long was waited.
        limit: Duration,
        /// What the last probe saw.
        probe: String,
        /// The last lines it wrote.
        log: String,
    },
    /// The port was taken by a process that is not ours, on every attempt.
    PortTaken {
        /// Name of the system.
        system: &'static str,
        /// The port of the last attempt.
        port: u16,
        /// How many times it was tried.
        attempts: u32,
    },
    /// The process outlived SIGKILL (it hangs in the kernel, or belongs to somebody else).
    WontStop {
        /// Name of the system.
        system: &'static str,
        /// The process.
        pid: i32,
    },
    /// The server is not running, and the call needs it to be.
    NotRunning {
        /// Name of the system.
        system: &'static str,
    },
    /// A file, a directory or a process could not be handled.
    Io {
        /// What was being done.
        doing: String,
        /// The file or program.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl ServerError {
    pub(super) fn io(
        doing: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let (doing, path) = (doing.into(), path.into());
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled { program, package } => {
                write!(f, "{program} is not installed ({})", source(package))
            }
            Self::Install { package, detail } => write!(f, "cannot install {package}: {detail}"),
            Self::Exited {
                system,
                status,
                log,
            } => {
                write!(
                    f,
                    "{system} ended before it was ready ({status}); its last lines:\n{log}"
                )
            }
            Self::NotReady {
                system,
                limit,
                probe,
                log,
            } => write!(
                f,
                "{system} was not ready within {limit:?}; last probe: {probe}; its last lines:\n{log}"
            ),
            Self::PortTaken {
                system,
                port,
                attempts,
            } => write!(
                f,
                "another process holds port {port} that {system} was given ({attempts} attempts)"
            ),
            Self::WontStop { system, pid } => {
                write!(f, "{system} (process {pid}) is still there after SIGKILL")
            }
            Self::NotRunning { system } => write!(f, "{system} is not running"),
            Self::Io { doing, path, .. } => write!(f, "cannot {doing} {}", path.display()),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::NotInstalled { .. }
            | Self::Install { .. }
            | Self::Exited { .. }
            | Self::NotReady { .. }
            | Self::PortTaken { .. }
            | Self::WontStop { .. }
            | Self::NotRunning { .. } => None,
        }
    }
}

/// What brings a program, in words.
fn source(package: &str) -> String {
    match package.strip_prefix("go:") {
        Some(module) => format!("Go module {module}"),
        None => format!("Debian package {package}"),
    }
}
