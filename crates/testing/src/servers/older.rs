//! Packages of another Debian release than this machine's, for what this one no longer has.
//!
//! They are fetched with a private state of apt, so that the machine's lists and preferences stay as they are, and
//! unpacked into the cache directory: nothing is installed. That suits programs that need little more than libc.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::bounded::{self, Finished};
use super::environment;
use super::error::ServerError;
use super::program::Program;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const USUAL_MIRROR: &str = "http://deb.debian.org/debian";
/// Where releases go when they are no longer supported.
const ARCHIVE: &str = "http://archive.debian.org/debian";
const WITHIN: Duration = Duration::from_secs(300);

/// Where programs of unpacked packages are.
pub(super) fn programs() -> PathBuf {
    environment::cache().join("bin")
}

/// Fetches a package of a release and takes the program out of it. Whoever calls it holds the lock of installations.
pub(super) fn unpack(program: &Program, package: &str, release: &str) -> Result<(), ServerError> {
    let failed = |detail: String| ServerError::Install {
        package: program.package,
        detail,
    };
    let work = environment::cache().join(format!("unpack-{package}"));
    remove(&work)?;
    let mut complaints = Vec::new();
    for mirror in [mirror(), ARCHIVE.to_owned()] {
        match fetch(&work, &mirror, package, release) {
            Ok(()) => {
                let taken = take(program, &work);
                remove(&work)?;
                return taken.map_err(|error| failed(format!("{package} of {release}: {error}")));
            }
            Err(complaint) => complaints.push(format!("{mirror}: {complaint}")),
        }
    }
    remove(&work)?;
    Err(failed(complaints.join("\n")))
}

fn fetch(work: &Path, mirror: &str, package: &str, release: &str) -> Result<(), String> {
    let said = |error: io::Error| error.to_string();
    for directory in ["lists/partial", "cache/archives/partial", "root"] {
        fs::create_dir_all(work.join(directory)).map_err(said)?;
    }
    let list = work.join("sources.list");
    let line = format!("deb [signed-by={KEYRING}] {mirror} {release} main\n");
    fs::write(&list, line).map_err(said)?;
    let own = [
        format!("Dir::Etc::SourceList={}", list.display()),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State::Lists={}", work.join("lists").display()),
        format!("Dir::Cache={}", work.join("cache").display()),
        // A release that is no longer supported is no longer signed anew.
        "Acquire::Check-Valid-Until=false".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        for option in &own {
            command.args(["-o", option]);
        }
        command.args(arguments).current_dir(work).env("LC_ALL", "C");
        succeeded("apt-get", bounded::run(&mut command, WITHIN))
    };
    apt(&["-q", "update"])?;
    apt(&["-q", "download", package])?;
    let files = fs::read_dir(work).map_err(said)?;
    let archive = files
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or("nothing was downloaded")?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(archive).arg(work.join("root"));
    succeeded("dpkg-deb", bounded::run(&mut unpack, WITHIN))
}

fn take(program: &Program, work: &Path) -> Result<(), String> {
    let said = |error: io::Error| error.to_string();
    let found = ["usr/bin", "usr/sbin", "bin", "sbin"]
        .map(|directory| work.join("root").join(directory).join(program.name))
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| format!("it does not contain {}", program.name))?;
    fs::create_dir_all(programs()).map_err(said)?;
    fs::rename(found, programs().join(program.name)).map_err(said)
}

fn succeeded(what: &str, outcome: io::Result<Finished>) -> Result<(), String> {
    match outcome {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!("{what}: {}\n{}", done.status, done.text.trim_end())),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

fn remove(directory: &Path) -> Result<(), ServerError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ServerError::io("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

/// The mirror that this machine uses, so that it works where only that one is reached.
fn mirror() -> String {
    let files = [
        "/etc/apt/sources.list.d/debian.sources",
        "/etc/apt/sources.list",
    ];
    let texts = files
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    texts
        .filter_map(|text| named(&text))
        .next()
        .unwrap_or_else(|| USUAL_MIRROR.to_owned())
}

fn named(sources: &str) -> Option<String> {
    let address = |line: &str| {
        let words = line
            .strip_prefix("URIs:")
            .or_else(|| line.strip_prefix("deb "))?;
        let mut words = words.split_whitespace();
        let found = words.find(|word| word.starts_with("http"))?;
        (!found.contains("security")).then(|| found.trim_end_matches('/').to_owned())
    };
    sources.lines().find_map(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_of_the_machine_is_used() {
        let of = |text: &str| named(text);
        let sources =
            "Types: deb\n# http://snapshot.debian.org/x\nURIs: http://mirror.example/debian\n";
        assert_eq!(of(sources).as_deref(), Some("http://mirror.example/debian"));
        let list = "# deb http://old\ndeb http://security.debian.org/x b main\n\
            deb [arch=amd64] http://mirror.example/debian/ bookworm main\n";
        assert_eq!(of(list).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(of("nothing"), None);
    }
}
