//! Installing programs from Debian packages, building them from Go modules (see `built`), or fetching their jars (see
//! `jars`).
//!
//! A package may be one of another release (`consul/bullseye`): see `older`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::bounded::{self, Finished};
use super::built;
use super::environment;
use super::error::ServerError;
use super::jars;
use super::older;
use super::program::Program;
use super::wait::Limit;

const APT: &str = "/usr/bin/apt-get";
const UPDATE_WITHIN: Duration = Duration::from_secs(180);
const INSTALL_WITHIN: Duration = Duration::from_secs(600);
/// How long another package manager may hold its locks.
const LOCKED_AT_MOST: Duration = Duration::from_secs(300);
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether a program was there or had to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// It was on this machine.
    Already,
    /// This call installed it.
    Now,
}

/// Makes sure that `program` is on this machine: installs its Debian package, or builds its Go module, if it is missing.
///
/// A package needs root for that, a module the Go toolchain. Services that packages bring are not started. May take minutes.
///
/// # Errors
/// [`ServerError::Install`] if the package manager is missing, not allowed or fails;
/// [`ServerError::Io`] if the cache directory cannot be written.
pub fn install(program: &Program) -> Result<Installed, ServerError> {
    if program.find().is_some() {
        return Ok(Installed::Already);
    }
    let failed = |detail: String| ServerError::Install {
        package: program.package,
        detail,
    };
    let _lock = lock()?;
    // Another process may have installed it while this one waited.
    if program.find().is_some() {
        return Ok(Installed::Already);
    }
    if built::module(program).is_some() {
        built::build(program)?;
        return Ok(Installed::Now);
    }
    if jars::artifact(program).is_some() {
        for (needed, package) in jars::PACKAGES {
            let there = |directory: PathBuf| directory.join(needed).exists();
            if !environment::search_path().into_iter().any(there) {
                packaged(package)?;
            }
        }
        jars::fetch(program)?;
        return Ok(Installed::Now);
    }
    if let Some((package, release)) = program.package.split_once('/') {
        older::unpack(program, package, release)?;
        return Ok(Installed::Now);
    }
    packaged(program.package)?;
    match program.find() {
        Some(_) => Ok(Installed::Now),
        None => Err(failed(format!(
            "the package does not contain {}",
            program.name
        ))),
    }
}

/// Installs a Debian package of this machine's release.
fn packaged(package: &'static str) -> Result<(), ServerError> {
    let failed = |detail: String| ServerError::Install { package, detail };
    if !Path::new(APT).exists() {
        return Err(failed(
            "this machine has no apt-get; install it by hand".to_owned(),
        ));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(failed(format!(
            "needs root: `sudo apt-get install {package}`"
        )));
    }
    let _quiet = NoServices::while_installing().map_err(ServerError::io("write", POLICY))?;
    // Old lists may still do; if they do not, what the update said explains it.
    let update = unless_locked(|| apt(&["update"], UPDATE_WITHIN));
    let install = unless_locked(|| {
        apt(
            &["install", "-y", "--no-install-recommends", package],
            INSTALL_WITHIN,
        )
    });
    match install {
        Ok(done) if done.status.success() => Ok(()),
        outcome => Err(failed(complaint(&update, &outcome))),
    }
}

/// One installation at a time on this machine and user.
fn lock() -> Result<File, ServerError> {
    let cache = environment::cache();
    fs::create_dir_all(&cache).map_err(ServerError::io("create", &cache))?;
    let path = cache.join("install.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(ServerError::io("open", &path))?;
    let limit = Limit::after(INSTALL_WITHIN);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if limit.pause() => {}
            Err(fs::TryLockError::WouldBlock) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "held by another process");
                return Err(ServerError::io("lock", &path)(error));
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(ServerError::io("lock", &path)(error));
            }
        }
    }
}

fn apt(arguments: &[&str], limit: Duration) -> io::Result<Finished> {
    let mut command = Command::new(APT);
    command
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments);
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    bounded::run(&mut command, limit)
}

/// Repeats `work` while another package manager holds a lock that apt itself does not wait for.
fn unless_locked(mut work: impl FnMut() -> io::Result<Finished>) -> io::Result<Finished> {
    let limit = Limit::after(LOCKED_AT_MOST);
    loop {
        let outcome = work();
        let locked = outcome
            .as_ref()
            .is_ok_and(|done| !done.status.success() && done.text.contains("Could not get lock"));
        if !locked || !limit.pause() {
            return outcome;
        }
    }
}

fn complaint(update: &io::Result<Finished>, install: &io::Result<Finished>) -> String {
    let said = |what: &str, outcome: &io::Result<Finished>| match outcome {
        Ok(done) if done.status.success() => None,
        Ok(done) => {
            let lines: Vec<&str> = done.text.lines().collect();
            let last = lines
                .get(lines.len().saturating_sub(8)..)
                .unwrap_or_default();
            Some(format!(
                "apt-get {what}: {}\n{}",
                done.status,
                last.join("\n")
            ))
        }
        Err(error) => Some(format!("apt-get {what}: {error}")),
    };
    [said("install", install), said("update", update)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n")
}

/// Keeps packages from starting their services: the answer 101 of `policy-rc.d` means "forbidden".
/// A policy that exists already is left as it is; one that is written here goes again.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn while_installing() -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY);
        match file {
            Ok(mut file) => {
                let guard = Self { ours: true };
                file.write_all(b"#!/bin/sh\nexit 101\n")?;
                Ok(guard)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(error),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            // Nothing can be reported from here; a policy left behind only keeps services from
            // being started by packages.
            let removed = fs::remove_file(POLICY);
            drop(removed);
        }
    }
}
