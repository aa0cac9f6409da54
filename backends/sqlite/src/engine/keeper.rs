//! What need not be done while somebody waits: checkpoints, and what the owner of the database does every second. On
//! its own thread and connection, out of the writer's way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use trunkline_core::{Error, Result};

use super::condition::Condition;
use super::connection::{self, Purpose};
use super::job::{Job, Tx};
use super::queue::JobSender;
use super::turnstile::Turnstile;
use crate::error::Failure;

const TICK: Duration = Duration::from_secs(1);
/// Pages in the WAL (16 MiB) beyond which writers are held up for a moment so that it can begin anew.
const RESTART_PAGES: i64 = 4000;
/// As long as so many pages are left, go on without holding anybody up.
const FEW_PAGES: i64 = 500;

/// Free pages (32 MiB) that are always kept for what comes next, and pages given back to the disk at a time.
const MOST_FREE: i64 = 8192;
const GIVEN_BACK: i64 = 500;

/// Called about once a second, on the keeper's thread, with a connection that only reads, until it says that it is over.
pub(crate) type Chore = Box<dyn FnMut(&Connection) -> Next + Send>;

/// Whether a chore goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    GoOn,
    Over,
}

/// Asks for checkpoints.
#[derive(Clone)]
pub(super) struct Checkpoints(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    wanted: bool,
    closing: bool,
    chores: Vec<Chore>,
}

impl Checkpoints {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
        }))
    }

    pub(super) fn request(&self) {
        let mut state = self.lock();
        if !state.wanted {
            state.wanted = true;
            self.0.wake.notify_one();
        }
    }

    pub(super) fn add_chore(&self, chore: Chore) {
        self.lock().chores.push(chore);
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.0.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Keeper {
    connection: Connection,
    turnstile: Turnstile,
    condition: Arc<Condition>,
    queue: JobSender,
    requests: Checkpoints,
    chores: Vec<Chore>,
}

impl Keeper {
    pub(super) fn spawn(
        path: &Path,
        name: &str,
        turnstile: Turnstile,
        condition: Arc<Condition>,
        queue: JobSender,
        requests: Checkpoints,
    ) -> Result<JoinHandle<()>> {
        let keeper = Self {
            connection: connection::open(path, Purpose::Read)?,
            turnstile,
            condition,
            queue,
            requests,
            chores: Vec::new(),
        };
        thread::Builder::new()
            .name(format!("tl-keep-{name}"))
            .spawn(move || keeper.live())
            .map_err(|error| Error::unavailable("cannot start a thread").with_source(error))
    }

    fn live(mut self) {
        loop {
            let wanted = {
                let mut state = self.requests.lock();
                if !state.wanted && !state.closing {
                    (state, _) = self
                        .requests
                        .0
                        .wake
                        .wait_timeout(state, TICK)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                if state.closing {
                    return;
                }
                self.chores.append(&mut state.chores);
                std::mem::take(&mut state.wanted)
            };
            if wanted {
                if let Err(error) = self.checkpoint() {
                    tracing::warn!(target: "trunkline", %error, "a checkpoint failed; the next one tries again");
                }
            } else {
                self.tick();
            }
        }
    }

    fn tick(&mut self) {
        if self.condition.is_failing() {
            self.queue.submit(Box::new(Probe));
        }
        if let Err(error) = self.give_back_space() {
            tracing::debug!(target: "trunkline", %error, "cannot look for free pages");
        }
        let connection = &self.connection;
        self.chores.retain_mut(|chore| {
            let outcome = catch_unwind(AssertUnwindSafe(|| chore(connection)));
            if let Err(panic) = &outcome {
                let error = trunkline_core::task::panic_error(panic.as_ref());
                tracing::error!(target: "trunkline", %error, "housekeeping failed and is switched off");
            }
            outcome.is_ok_and(|next| next == Next::GoOn)
        });
    }

    /// Gives pages that have become free back to the disk, little by little.
    fn give_back_space(&self) -> rusqlite::Result<()> {
        let number = |pragma: &str| -> rusqlite::Result<i64> {
            self.connection
                .prepare_cached(pragma)?
                .query_row([], |row| row.get(0))
        };
        let free = number("PRAGMA freelist_count")?;
        if free > MOST_FREE && free > number("PRAGMA page_count")? / 2 {
            self.queue.errand(
                false,
                |tx| {
                    let vacuum = format!("PRAGMA incremental_vacuum({GIVEN_BACK})");
                    tx.connection().execute_batch(&vacuum)
                },
                |_: std::result::Result<(), &Failure>| {},
            );
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> rusqlite::Result<()> {
        let mut log = move_pages(&self.connection)?;
        for _ in 0..3 {
            if log.left() <= FEW_PAGES {
                break;
            }
            log = move_pages(&self.connection)?;
        }
        if log.pages > RESTART_PAGES && log.left() > 0 {
            // Writers begin the WAL anew only when nothing in it is waiting to be moved.
            match self.turnstile.pass() {
                Ok(_turn) => log = move_pages(&self.connection)?,
                Err(error) => {
                    tracing::warn!(target: "trunkline", %error, "cannot take the turn for a checkpoint");
                }
            }
        }
        tracing::trace!(target: "trunkline", pages = log.pages, moved = log.moved, "checkpoint");
        Ok(())
    }
}

/// Moves what can be moved out of the WAL while others read and write.
fn move_pages(connection: &Connection) -> rusqlite::Result<Log> {
    connection
        .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?
        .query_row([], |row| {
            Ok(Log {
                pages: row.get(1)?,
                moved: row.get(2)?,
            })
        })
}

struct Log {
    pages: i64,
    moved: i64,
}

impl Log {
    fn left(&self) -> i64 {
        self.pages - self.moved
    }
}

/// A small real write, to see whether a failing disk works again.
pub(super) struct Probe;

impl Job for Probe {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        write_something(tx)
    }

    fn done(self: Box<Self>, _: std::result::Result<(), &Failure>) {}
}

pub(super) fn write_something(tx: &Tx<'_>) -> rusqlite::Result<()> {
    let connection = tx.connection();
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    connection.pragma_update(None, "user_version", version)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::mpsc;

    use tokio::time::Instant;

    use super::super::{Database, EmbeddedDirectory, Schema};
    use super::*;

    const SCHEMA: Schema = Schema {
        steps: &["CREATE TABLE ballast(bytes)"],
    };

    fn is_free(lock: &File) -> bool {
        let free = lock.try_lock().is_ok();
        if free {
            lock.unlock().unwrap();
        }
        free
    }

    /// Writes more than a WAL may grow to, while a reader keeps it from being moved.
    fn fill_wal(database: &Database) -> Connection {
        let reader = connection::open(database.path(), Purpose::Read).unwrap();
        reader
            .execute_batch("BEGIN; SELECT * FROM ballast")
            .unwrap();
        let (done, written) = mpsc::channel();
        database.queue().errand(
            false,
            |tx| {
                let sql = "INSERT INTO ballast VALUES(zeroblob(20000000))";
                tx.connection().execute_batch(sql)
            },
            move |outcome: std::result::Result<(), &Failure>| {
                done.send(outcome.is_ok()).unwrap();
            },
        );
        assert!(written.recv().unwrap());
        reader
    }

    #[test]
    fn a_checkpoint_waits_for_the_writer_of_its_own_process() {
        let folder = tempfile::tempdir().unwrap();
        let directory = EmbeddedDirectory::open(folder.path()).unwrap();
        let database = Database::open(&directory, "x", &SCHEMA).unwrap();
        let _reader = fill_wal(&database);
        let (started, writes) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        database.queue().errand(
            false,
            move |_| {
                started.send(()).unwrap();
                // An error: the test has failed.
                wait.recv().ok();
                Ok(())
            },
            |_: std::result::Result<(), &Failure>| {},
        );
        writes.recv().unwrap();
        database.checkpoints.request();
        let gate = File::open(folder.path().join("x.gate")).unwrap();
        let write = File::open(folder.path().join("x.write")).unwrap();
        let patience = Instant::now() + Duration::from_secs(20);
        // Whoever waits for the write lock holds the gate.
        while is_free(&gate) {
            assert!(!is_free(&write), "the writer has its turn still");
            assert!(Instant::now() < patience, "nobody takes the turn");
            thread::yield_now();
        }
        assert!(!is_free(&write), "the writer has its turn still");
        go_on.send(()).unwrap();
    }
}
