//! Servers that stay up between commands (`cargo xtask servers up`).
//!
//! What runs is written down in the cache directory, one directory a system.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::boot::{self, Ending, Lifetime, Recipe};
use super::environment;
use super::error::ServerError;
use super::process::Process;
use super::system::{Site, System};

const RECORD: &str = "running";

/// A server that outlives the process that started it.
#[derive(Debug)]
pub struct Standing {
    system: &'static System,
    site: Site,
    process: Process,
}

/// The directory where standing servers and installation locks are kept.
#[must_use]
pub fn cache_directory() -> PathBuf {
    environment::cache()
}

impl Standing {
    /// Starts a server that stays, or returns the one that runs. Its data is new at every start.
    ///
    /// # Errors
    /// As [`Launch::start`](super::Launch::start).
    pub fn up(system: &'static System) -> Result<Self, ServerError> {
        if let Some(running) = Self::find(system) {
            return Ok(running);
        }
        let directory = home(system);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ServerError::io("remove", directory)(error));
            }
            _ => {}
        }
        fs::create_dir_all(&directory).map_err(ServerError::io("create", &directory))?;
        let recipe = Recipe {
            system,
            arguments: Vec::new(),
            lifetime: Lifetime::Detached,
        };
        let (process, site) = boot::first(&recipe, directory)?;
        let mut standing = Self {
            system,
            site,
            process,
        };
        if let Err(error) = standing.record() {
            // A server that nobody can find again must not stay.
            boot::kill(system, &mut standing.process)?;
            return Err(error);
        }
        Ok(standing)
    }

    /// The server of this system that runs, if one does.
    #[must_use]
    pub fn find(system: &'static System) -> Option<Self> {
        let directory = home(system);
        let record = fs::read_to_string(directory.join(RECORD)).ok()?;
        let (pid, started, ports) = parse(&record)?;
        let mut process = Process::recorded(pid, started);
        process.is_alive().then(|| Self {
            system,
            site: Site { directory, ports },
            process,
        })
    }

    /// Stops it and removes its data.
    ///
    /// # Errors
    /// [`ServerError::WontStop`] or [`ServerError::Io`].
    pub fn down(mut self) -> Result<Ending, ServerError> {
        let ending = boot::stop(self.system, &mut self.process)?;
        let directory = &self.site.directory;
        fs::remove_dir_all(directory).map_err(ServerError::io("remove", directory))?;
        Ok(ending)
    }

    /// The URL for clients.
    #[must_use]
    pub fn url(&self) -> String {
        (self.system.url)(&self.site)
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    fn record(&self) -> Result<(), ServerError> {
        let path = self.site.directory.join(RECORD);
        let ports: Vec<String> = self.site.ports.iter().map(u16::to_string).collect();
        let started = self
            .process
            .started()
            .map_or_else(String::new, |at| at.to_string());
        let text = format!(
            "pid={}\nstarted={started}\nports={}\n",
            self.process.pid(),
            ports.join(",")
        );
        fs::write(&path, text).map_err(ServerError::io("write", path))
    }
}

fn home(system: &System) -> PathBuf {
    environment::cache().join("running").join(system.name)
}

fn parse(record: &str) -> Option<(i32, Option<u64>, Vec<u16>)> {
    let field = |name: &str| {
        record
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let ports = field("ports")?
        .split(',')
        .map(|port| port.parse().ok())
        .collect::<Option<_>>()?;
    Some((
        field("pid")?.parse().ok()?,
        field("started")?.parse().ok(),
        ports,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_read_back() {
        assert_eq!(
            parse("pid=12\nstarted=34\nports=15001,15002\n"),
            Some((12, Some(34), vec![15001, 15002]))
        );
        assert_eq!(
            parse("pid=12\nstarted=\nports=15001\n"),
            Some((12, None, vec![15001]))
        );
    }

    #[test]
    fn broken_record_is_no_server() {
        for record in [
            "",
            "pid=x\nstarted=1\nports=1\n",
            "pid=1\nstarted=1\nports=70000\n",
        ] {
            assert_eq!(parse(record), None, "{record:?}");
        }
    }
}
