//! Directories of servers that belong to one process.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use super::environment;
use super::error::ServerError;
use super::process::Process;

const PREFIX: &str = "trunkline-server-";
static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A new directory that only this user can read.
///
/// Its name carries the number of this process. What killed processes left behind is removed first.
pub(super) fn fresh(system: &str) -> Result<PathBuf, ServerError> {
    let base = environment::temporary();
    SWEEP.call_once(|| sweep(&base));
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = base.join(format!("{PREFIX}{}-{system}-{number}", std::process::id()));
        match create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(ServerError::io("create", directory)(error)),
        }
    }
}

/// Creates a directory that only this user can read.
pub(super) fn create(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Removes directories of processes that no longer exist. What cannot be removed (another user's)
/// is left alone: it is only rubbish.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let abandoned = entry
            .file_name()
            .to_str()
            .and_then(owner)
            .is_some_and(|pid| !Process::recorded(pid, None).is_alive());
        if abandoned {
            let removed = fs::remove_dir_all(entry.path());
            drop(removed);
        }
    }
}

/// The number of the process that a directory belongs to.
fn owner(name: &str) -> Option<i32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_read_from_the_name() {
        assert_eq!(owner("trunkline-server-4711-redis-0"), Some(4711));
        assert_eq!(owner("trunkline-server-redis"), None);
        assert_eq!(owner("somebody-else-4711"), None);
    }

    #[test]
    fn what_dead_processes_left_is_removed() {
        let base = fresh("sweep").unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = base.join(format!("{PREFIX}{}-redis-0", child.id()));
        child.wait().unwrap();
        let mine = base.join(format!("{PREFIX}{}-redis-0", std::process::id()));
        let foreign = base.join("unrelated");
        for directory in [&dead, &mine, &foreign] {
            create(directory).unwrap();
        }
        sweep(&base);
        assert!(!dead.exists());
        assert!(mine.exists());
        assert!(foreign.exists());
        fs::remove_dir_all(base).unwrap();
    }
}
