//! A server that belongs to one test.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::boot::{self, Ending, Lifetime, Recipe};
use super::directory;
use super::error::ServerError;
use super::process::Process;
use super::system::{Site, System};
use super::wait::Limit;

const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// A server about to be started.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Launch {
    recipe: Recipe,
}

impl Launch {
    /// A server of this system with its usual arguments.
    pub fn new(system: &'static System) -> Self {
        let lifetime = Lifetime::WithThisProcess;
        Self {
            recipe: Recipe {
                system,
                arguments: Vec::new(),
                lifetime,
            },
        }
    }

    /// Adds arguments after the usual ones.
    pub fn arguments<A: Into<OsString>>(mut self, more: impl IntoIterator<Item = A>) -> Self {
        self.recipe
            .arguments
            .extend(more.into_iter().map(Into::into));
        self
    }

    pub(super) fn system(&self) -> &'static System {
        self.recipe.system
    }

    /// Starts it on free ports in a directory of its own and waits until it serves.
    ///
    /// Blocks the thread; in asynchronous tests that is fine unless the runtime is needed meanwhile.
    ///
    /// # Errors
    /// [`ServerError::NotInstalled`], [`ServerError::Exited`], [`ServerError::NotReady`],
    /// [`ServerError::PortTaken`] or [`ServerError::Io`].
    pub fn start(self) -> Result<Server, ServerError> {
        let directory = directory::fresh(self.recipe.system.name)?;
        match boot::first(&self.recipe, directory.clone()) {
            Ok((process, site)) => Ok(Server {
                recipe: self.recipe,
                site,
                process,
            }),
            Err(error) => {
                let removed = fs::remove_dir_all(directory);
                drop(removed);
                Err(error)
            }
        }
    }
}

/// A running server that nobody else uses: it may be killed, restarted, paused.
///
/// Dropping it kills the process and removes its data. If the test process itself is killed, the
/// kernel kills the server (Linux).
#[derive(Debug)]
pub struct Server {
    recipe: Recipe,
    site: Site,
    process: Process,
}

impl Server {
    /// Starts a server of this system; see [`Launch::start`].
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub fn start(system: &'static System) -> Result<Self, ServerError> {
        Launch::new(system).start()
    }

    /// The system it is one of.
    #[must_use]
    pub fn system(&self) -> &'static System {
        self.recipe.system
    }

    /// The URL for clients. It stays the same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        (self.recipe.system.url)(&self.site)
    }

    /// The address for clients. It stays the same over restarts.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.site.address()
    }

    /// Its directory, ports and log.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.site.directory()
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Whether its process runs. A paused process does.
    pub fn is_running(&mut self) -> bool {
        self.process.is_alive()
    }

    /// Ends it as an operator would: SIGTERM, a wait, SIGKILL. Its data stays.
    ///
    /// # Errors
    /// [`ServerError::WontStop`] or [`ServerError::Io`].
    pub fn stop(&mut self) -> Result<Ending, ServerError> {
        boot::stop(self.recipe.system, &mut self.process)
    }

    /// Ends it as a crash would (SIGKILL) and waits until it is gone. Its data stays.
    ///
    /// # Errors
    /// [`ServerError::WontStop`] or [`ServerError::Io`].
    pub fn kill(&mut self) -> Result<(), ServerError> {
        boot::kill(self.recipe.system, &mut self.process)
    }

    /// Starts it again on the same data and ports; stops it first if it runs.
    ///
    /// # Errors
    /// As [`Launch::start`] and [`Server::stop`].
    pub fn restart(&mut self) -> Result<(), ServerError> {
        let _: Ending = self.stop()?;
        self.process = boot::again(&self.recipe, &self.site)?;
        Ok(())
    }

    /// Freezes the process (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// [`ServerError::NotRunning`] or [`ServerError::Io`].
    pub fn pause(&mut self) -> Result<(), ServerError> {
        self.signal(Signal::STOP)?;
        if Limit::after(STOPPED_WITHIN).poll(|| self.process.is_stopped()) {
            Ok(())
        } else {
            Err(ServerError::WontStop {
                system: self.recipe.system.name,
                pid: self.pid(),
            })
        }
    }

    /// Lets a paused process run on (SIGCONT).
    ///
    /// # Errors
    /// [`ServerError::NotRunning`] or [`ServerError::Io`].
    pub fn resume(&mut self) -> Result<(), ServerError> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), ServerError> {
        if !self.process.is_alive() {
            return Err(ServerError::NotRunning {
                system: self.recipe.system.name,
            });
        }
        boot::send(self.recipe.system, &mut self.process, signal)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing can be reported from here; the directory of a process that would not die is
        // removed by a later run.
        if self.kill().is_ok() {
            let removed = fs::remove_dir_all(&self.site.directory);
            drop(removed);
        }
    }
}
