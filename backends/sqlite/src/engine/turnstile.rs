//! The order in which processes write: two lock files, first the gate, then the write lock.
//!
//! With one lock a busy writer that takes it again at once starves the others; with SQLite's own busy handler they sleep
//! and miss their turn for seconds. Here, whoever waits at the write lock holds the gate, so that the one who just wrote
//! has to queue behind. The kernel frees both when a process dies.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

#[derive(Debug)]
pub(super) struct Turnstile {
    gate: File,
    write: File,
}

/// The right to write, until dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a File);

impl Turnstile {
    /// Opens the lock files beside a database, creating them where they are missing.
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        Ok(Self {
            gate: open(&database.with_extension("gate"))?,
            write: open(&database.with_extension("write"))?,
        })
    }

    /// Waits for its turn. Not bounded: the kernel gives the lock back when its holder dies.
    pub(super) fn pass(&self) -> io::Result<Turn<'_>> {
        lock(&self.gate)?;
        let taken = lock(&self.write);
        let opened = self.gate.unlock();
        taken?;
        let turn = Turn(&self.write);
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
