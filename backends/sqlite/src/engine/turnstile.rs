//! The order in which processes write: two lock files, first the gate, then the write lock.
//!
//! With one lock a busy writer that takes it again at once starves the others; with SQLite's own busy handler they sleep
//! and miss their turn for seconds. Here, whoever waits at the write lock holds the gate, so that the one who just wrote
//! has to queue behind. The kernel frees both when a process dies.
//!
//! A lock belongs to the file that was opened, not to the thread: who takes it again through the same one has it at
//! once. So every thread that writes has a turnstile of its own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The way to the write lock of one thread.
#[derive(Debug)]
pub(super) struct Turnstile {
    gate: File,
    write: File,
}

/// The right to write, until dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a mut File);

impl Turnstile {
    /// Opens the lock files beside a database, creating them where they are missing.
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        Ok(Self {
            gate: open(&database.with_extension("gate"))?,
            write: open(&database.with_extension("write"))?,
        })
    }

    /// Waits for its turn. Not bounded: the kernel gives the lock back when its holder dies.
    ///
    /// Exclusive, because a second turn of the same turnstile would not wait, and would end the first one.
    pub(super) fn pass(&mut self) -> io::Result<Turn<'_>> {
        lock(&self.gate)?;
        let taken = lock(&self.write);
        let opened = self.gate.unlock();
        taken?;
        let turn = Turn(&mut self.write);
        opened?;
        Ok(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::error!(target: "trunkline", %error, "cannot give back a write lock");
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

fn lock(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn threads_of_one_process_have_one_turn_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("x.db");
        let writing = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut turnstile = Turnstile::open(&database).unwrap();
                    for _ in 0..500 {
                        let _turn = turnstile.pass().unwrap();
                        assert!(!writing.swap(true, Ordering::SeqCst), "one at a time");
                        thread::yield_now();
                        writing.store(false, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
