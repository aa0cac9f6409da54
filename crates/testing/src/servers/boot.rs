//! Starting and ending the process of a server.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::error::ServerError;
use super::listener::{self, Holder};
use super::process::Process;
use super::system::{Site, System};
use super::wait::Limit;
use super::{keeper, port};

/// How many times other ports are tried.
const ATTEMPTS: u32 = 5;
/// How long a restarted server's old port may stay taken.
const PORT_FREE_WITHIN: Duration = Duration::from_secs(5);
/// How long the kernel may need to end a process after SIGKILL.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
const LOG_LINES: usize = 20;

/// Who ends the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// It dies with this process at the latest.
    WithThisProcess,
    /// It stays when this process ends.
    Detached,
}

/// What is started.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) system: &'static System,
    pub(super) arguments: Vec<OsString>,
    pub(super) lifetime: Lifetime,
}

/// How a server ended when it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was not running any more.
    AlreadyGone,
    /// It ended by itself after SIGTERM.
    Stopped,
    /// It ignored SIGTERM for as long as it may take, and was killed.
    Killed,
}

enum Failure {
    /// Another attempt, with other ports, may succeed.
    PortTaken(u16),
    Other(ServerError),
}

/// Starts a server in a new directory on free ports.
pub(super) fn first(recipe: &Recipe, directory: PathBuf) -> Result<(Process, Site), ServerError> {
    let system = recipe.system;
    let program = system.program.locate()?;
    let mut site = Site {
        directory,
        ports: Vec::new(),
    };
    fs::create_dir_all(site.data()).map_err(ServerError::io("create", site.data()))?;
    let mut taken = 0;
    for _ in 0..ATTEMPTS {
        site.ports = free_ports(system)?;
        (system.prepare)(&site)?;
        match attempt(recipe, &program, &site) {
            Ok(process) => return Ok((process, site)),
            Err(Failure::PortTaken(port)) => taken = port,
            Err(Failure::Other(error)) => return Err(error),
        }
    }
    Err(ServerError::PortTaken {
        system: system.name,
        port: taken,
        attempts: ATTEMPTS,
    })
}

/// Starts a server again on the data and the ports it had.
pub(super) fn again(recipe: &Recipe, site: &Site) -> Result<Process, ServerError> {
    let program = recipe.system.program.locate()?;
    let mut attempts = 0;
    let limit = Limit::after(PORT_FREE_WITHIN);
    loop {
        attempts += 1;
        match attempt(recipe, &program, site) {
            Ok(process) => return Ok(process),
            Err(Failure::Other(error)) => return Err(error),
            Err(Failure::PortTaken(port)) if !limit.pause() => {
                return Err(ServerError::PortTaken {
                    system: recipe.system.name,
                    port,
                    attempts,
                });
            }
            Err(Failure::PortTaken(_)) => {}
        }
    }
}

/// SIGTERM, a wait, SIGKILL.
pub(super) fn stop(system: &'static System, process: &mut Process) -> Result<Ending, ServerError> {
    if !process.is_alive() {
        return Ok(Ending::AlreadyGone);
    }
    send(system, process, Signal::TERM)?;
    // A paused process takes its SIGTERM only when it runs again.
    send(system, process, Signal::CONT)?;
    if Limit::after(system.stop_within).poll(|| !process.is_alive()) {
        return Ok(Ending::Stopped);
    }
    kill(system, process)?;
    Ok(Ending::Killed)
}

/// SIGKILL, and a wait until the process is gone.
pub(super) fn kill(system: &'static System, process: &mut Process) -> Result<(), ServerError> {
    send(system, process, Signal::KILL)?;
    if Limit::after(KILLED_WITHIN).poll(|| !process.is_alive()) {
        Ok(())
    } else {
        Err(ServerError::WontStop {
            system: system.name,
            pid: process.pid(),
        })
    }
}

pub(super) fn send(
    system: &'static System,
    process: &mut Process,
    signal: Signal,
) -> Result<(), ServerError> {
    process.signal(signal).map_err(ServerError::io(
        format!("signal process {} of", process.pid()),
        system.name,
    ))
}

fn free_ports(system: &System) -> Result<Vec<u16>, ServerError> {
    let mut ports = Vec::with_capacity(system.ports);
    for _ in 0..system.ports {
        ports.push(port::free(&ports).map_err(ServerError::io("find a port for", system.name))?);
    }
    Ok(ports)
}

fn attempt(recipe: &Recipe, program: &Path, site: &Site) -> Result<Process, Failure> {
    if let Some(&taken) = site.ports.iter().find(|port| !port::is_free(**port)) {
        return Err(Failure::PortTaken(taken));
    }
    let child = spawn(recipe, program, site)
        .map_err(|error| Failure::Other(ServerError::io("start", program)(error)))?;
    let mut process = Process::of_child(child);
    let outcome = await_ready(recipe.system, &mut process, site);
    if outcome.is_err() {
        kill(recipe.system, &mut process).map_err(Failure::Other)?;
    }
    outcome.map(|()| process)
}

fn spawn(recipe: &Recipe, program: &Path, site: &Site) -> io::Result<Child> {
    let log = open_log(&site.log())?;
    let mut command = match recipe.lifetime {
        Lifetime::WithThisProcess => keeper::command(program),
        Lifetime::Detached => Command::new(program),
    };
    (recipe.system.command)(site, &mut command);
    command.args(&recipe.arguments);
    command.current_dir(site.data()).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    match recipe.lifetime {
        Lifetime::WithThisProcess => keeper::spawn(command),
        // A group of its own: Ctrl-C in the terminal is not meant for it.
        Lifetime::Detached => command.process_group(0).spawn(),
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Ready is: the server answers, *and* our process is the one that listens.
fn await_ready(system: &'static System, process: &mut Process, site: &Site) -> Result<(), Failure> {
    let limit = Limit::after(system.ready_within);
    loop {
        if !process.is_alive() {
            return Err(
                match site.ports.iter().find(|port| !port::is_free(**port)) {
                    Some(&taken) => Failure::PortTaken(taken),
                    None => Failure::Other(exited(system, process, site)),
                },
            );
        }
        let seen = match (system.probe)(site) {
            Ok(()) => match held(process.pid(), site)? {
                None => return Ok(()),
                Some(port) => format!("nobody listens on port {port} yet"),
            },
            Err(seen) => seen,
        };
        if !limit.pause() {
            return Err(Failure::Other(ServerError::NotReady {
                system: system.name,
                limit: system.ready_within,
                probe: seen,
                log: tail(&site.log()),
            }));
        }
    }
}

/// The first port that nobody listens on, or none if all of them are ours.
fn held(pid: i32, site: &Site) -> Result<Option<u16>, Failure> {
    for &port in &site.ports {
        match listener::holder(pid, port) {
            Holder::Ours | Holder::Unknown => {}
            Holder::Nobody => return Ok(Some(port)),
            Holder::Other => return Err(Failure::PortTaken(port)),
        }
    }
    Ok(None)
}

fn exited(system: &'static System, process: &mut Process, site: &Site) -> ServerError {
    ServerError::Exited {
        system: system.name,
        status: process
            .exit_status()
            .map_or_else(|| "status unknown".to_owned(), |status| status.to_string()),
        log: tail(&site.log()),
    }
}

fn tail(path: &Path) -> String {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("({} cannot be read: {error})", path.display()),
    };
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(LOG_LINES)..)
        .unwrap_or_default()
        .join("\n")
}
