//! Who is alive: every process holds a lock on a file of its own for as long as it lives, and the kernel lets go of it
//! when the process dies, however it dies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trunkline_core::Id;

/// This process's own sign of life; dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Liveness {
    folder: PathBuf,
    token: Arc<str>,
    _held: File,
}

impl Liveness {
    /// Makes and locks this process's file. Nobody may hear of the token before this returns.
    pub(super) fn begin(directory: &Path) -> io::Result<Self> {
        let folder = directory.join("alive");
        super::filesystem::create(&folder)?;
        let token: Arc<str> = Id::new().to_string().into();
        let mut held = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(folder.join(&*token))?;
        held.lock()?;
        // For people who look; nothing reads it.
        writeln!(held, "{}", std::process::id())?;
        Ok(Self {
            folder,
            token,
            _held: held,
        })
    }

    /// What other processes know this one by.
    pub(crate) fn token(&self) -> &Arc<str> {
        &self.token
    }

    /// Whether the process behind a token lives. When in doubt it does: its leases still run out.
    pub(crate) fn is_alive(&self, token: &str) -> bool {
        if *token == *self.token {
            return true;
        }
        let file = match File::open(self.folder.join(token)) {
            Ok(file) => file,
            Err(error) => return error.kind() != io::ErrorKind::NotFound,
        };
        match file.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
        }
    }

    /// Removes the files of the dead; whoever asks later finds none and knows.
    pub(super) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(token) = name.to_str() else { continue };
            if is_settled(&entry) && !self.is_alive(token) {
                remove(&entry.path());
            }
        }
    }
}

impl Drop for Liveness {
    fn drop(&mut self) {
        remove(&self.folder.join(&*self.token));
    }
}

/// A file that was made a moment ago may not be locked yet.
fn is_settled(entry: &fs::DirEntry) -> bool {
    const MOMENT: std::time::Duration = std::time::Duration::from_secs(5);
    entry
        .metadata()
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > MOMENT))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(target: "trunkline", path = %path.display(), %error, "cannot remove a sign of life");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_told_from_the_dead() {
        let directory = tempfile::tempdir().unwrap();
        let one = Liveness::begin(directory.path()).unwrap();
        let other = Liveness::begin(directory.path()).unwrap();
        let token = Arc::clone(other.token());
        assert!(one.is_alive(&token));
        drop(other);
        assert!(!one.is_alive(&token));
    }

    #[test]
    fn a_file_that_nobody_locks_is_of_a_dead_process() {
        let directory = tempfile::tempdir().unwrap();
        let one = Liveness::begin(directory.path()).unwrap();
        fs::write(directory.path().join("alive/crashed"), b"1").unwrap();
        assert!(!one.is_alive("crashed"));
    }
}
