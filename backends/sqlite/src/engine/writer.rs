//! The one thread of this process that writes a database: it takes what waits, commits it together, and answers.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;
use trunkline_core::{Error, Result};

use super::bell::Ringer;
use super::condition::Condition;
use super::job::{Cache, Job, Tx};
use super::keeper::Checkpoints;
use super::queue::JobSender;
use super::turnstile::Turnstile;
use crate::error::Failure;

/// Jobs that share one transaction at most.
const GROUP: usize = 512;
/// A group takes no further job after this, so that other processes get their turn.
const SLICE: Duration = Duration::from_millis(10);
/// Pages added to the WAL that make a checkpoint worth while: 4 MiB.
const CHECKPOINT_PAGES: i32 = 1000;

thread_local! {
    /// Pages in the WAL after the last commit of this thread. SQLite's hook takes a bare function.
    static WAL_PAGES: Cell<i32> = const { Cell::new(0) };
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) ringer: Ringer,
    pub(super) condition: Arc<Condition>,
    pub(super) queue: JobSender,
    pub(super) checkpoints: Checkpoints,
    state: State,
}

#[derive(Default)]
struct State {
    cache: Cache,
    /// The device and number of the file, to notice when it is replaced.
    file: (u64, u64),
    foreign: i64,
    relaxed: bool,
    ring: bool,
    /// Pages in the WAL when a checkpoint was last asked for.
    checkpoint_at: i32,
}

/// What a writer is made of.
pub(super) struct Parts {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) turnstile: Turnstile,
    pub(super) ringer: Ringer,
    pub(super) condition: Arc<Condition>,
    pub(super) queue: JobSender,
    pub(super) checkpoints: Checkpoints,
}

impl Writer {
    pub(super) fn spawn(parts: Parts, name: &str) -> Result<JoinHandle<()>> {
        let Parts {
            path,
            connection,
            turnstile,
            ringer,
            condition,
            queue,
            checkpoints,
        } = parts;
        connection.wal_hook(Some(|_, pages| {
            WAL_PAGES.set(pages);
            Ok(())
        }));
        let state = State {
            file: identity(&path).map_err(|error| {
                Error::unavailable("the database file vanished").with_source(error)
            })?,
            ..State::default()
        };
        let writer = Self {
            path,
            connection,
            ringer,
            condition,
            queue,
            checkpoints,
            state,
        };
        thread::Builder::new()
            .name(format!("tl-write-{name}"))
            .spawn(move || writer.live(turnstile))
            .map_err(|error| Error::unavailable("cannot start a thread").with_source(error))
    }

    fn live(mut self, mut turnstile: Turnstile) {
        let _obituary = Obituary {
            queue: self.queue.clone(),
            condition: Arc::clone(&self.condition),
        };
        while self.queue.wait() {
            let group = self.write_group(&mut turnstile);
            if self.state.ring {
                self.state.ring = false;
                self.ringer.ring();
            }
            for job in group {
                finish(job, Ok(()));
            }
            self.consider_checkpoint(WAL_PAGES.get());
        }
    }

    /// Asks for a checkpoint whenever the WAL has grown by so much: that it is long says nothing about how much of it is
    /// still to be moved.
    fn consider_checkpoint(&mut self, pages: i32) {
        if pages < self.state.checkpoint_at {
            self.state.checkpoint_at = 0;
        }
        if pages >= self.state.checkpoint_at + CHECKPOINT_PAGES {
            self.state.checkpoint_at = pages;
            self.checkpoints.request();
        }
    }

    /// Commits one group and returns the jobs that succeeded; the others have been told.
    fn write_group(&mut self, turnstile: &mut Turnstile) -> Vec<Box<dyn Job>> {
        self.condition.waits();
        let turn = turnstile.pass();
        self.condition.has_turn();
        let jobs = self.queue.take(GROUP);
        let ready = turn
            .map_err(|error| Failure::io(error, "cannot take the turn to write"))
            .and_then(|turn| self.check_file().map(|()| turn));
        match ready {
            Ok(_turn) => self.settle_group(jobs),
            Err(failure) => {
                self.condition.failed(&failure);
                fail(jobs, &failure);
                Vec::new()
            }
        }
    }

    /// Tries the group, without the jobs that are to blame, until the rest is committed.
    fn settle_group(&mut self, mut jobs: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        let mut may_make_room = true;
        while !jobs.is_empty() {
            let (at, failure) = match self.attempt(&mut jobs) {
                Ok(ran) => {
                    self.condition.works();
                    let rest = jobs.split_off(ran);
                    self.queue.put_back(rest);
                    return jobs;
                }
                Err(failed) => failed,
            };
            self.roll_back();
            if let Some(at) = at
                && failure.is_of_one_job()
            {
                finish(jobs.remove(at), Err(&failure));
                continue;
            }
            if failure.is_disk_full() && std::mem::take(&mut may_make_room) && self.begin_wal_anew()
            {
                continue;
            }
            self.condition.failed(&failure);
            let (growing, rest): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.grows());
            let once_more = failure.is_disk_full() && !growing.is_empty();
            fail(growing, &failure);
            if !once_more {
                fail(rest, &failure);
                return Vec::new();
            }
            jobs = rest;
        }
        Vec::new()
    }

    /// Runs and commits; says how many ran before the slice was over, or which one failed.
    fn attempt(
        &mut self,
        jobs: &mut [Box<dyn Job>],
    ) -> std::result::Result<usize, (Option<usize>, Failure)> {
        let path = &self.path;
        let failed = |error| (None, Failure::sqlite(error, path));
        let state = &mut self.state;
        state.ring = false;
        let relaxed = !jobs.iter().any(|job| job.durable());
        if relaxed != state.relaxed {
            let level = if relaxed { "NORMAL" } else { "FULL" };
            self.connection
                .pragma_update(None, "synchronous", level)
                .map_err(failed)?;
            state.relaxed = relaxed;
        }
        execute(&self.connection, "BEGIN IMMEDIATE").map_err(failed)?;
        let foreign = data_version(&self.connection).map_err(failed)?;
        if foreign != state.foreign {
            state.foreign = foreign;
            state.cache.clear();
        }
        let started = Instant::now();
        let mut ran = 0;
        for (at, job) in jobs.iter_mut().enumerate() {
            let mut tx = Tx::new(&self.connection, &mut state.cache, &mut state.ring);
            let outcome = catch_unwind(AssertUnwindSafe(|| job.run(&mut tx)));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err((Some(at), Failure::sqlite(error, path))),
                Err(panic) => return Err((Some(at), Failure::panic(panic.as_ref()))),
            }
            ran = at + 1;
            if self.connection.is_autocommit() {
                return Err((None, Failure::gave_up(path)));
            }
            if started.elapsed() > SLICE {
                break;
            }
        }
        execute(&self.connection, "COMMIT")
            .map_err(|error| (None, Failure::sqlite(error, path).in_commit()))?;
        Ok(ran)
    }

    fn roll_back(&mut self) {
        self.state.cache.clear();
        self.state.ring = false;
        if !self.connection.is_autocommit()
            && let Err(error) = execute(&self.connection, "ROLLBACK")
        {
            tracing::error!(target: "trunkline", path = %self.path.display(), %error, "cannot roll back");
        }
    }

    /// On a full disk the space that the WAL has is enough for what needs none of its own, if it is used again from the
    /// beginning. This process has the turn, so nobody writes meanwhile.
    fn begin_wal_anew(&self) -> bool {
        let busy: rusqlite::Result<bool> =
            self.connection
                .query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0));
        busy.is_ok_and(|busy| !busy)
    }

    /// Writing on into a file that was removed would lose everything silently.
    fn check_file(&self) -> std::result::Result<(), Failure> {
        match identity(&self.path) {
            Ok(file) if file == self.state.file => Ok(()),
            _ => Err(Failure::gone(
                "the embedded directory was removed or replaced while in use; restart this process",
            )),
        }
    }
}

/// Fails whoever waits when the thread ends, however it ends.
struct Obituary {
    queue: JobSender,
    condition: Arc<Condition>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        let failure = if thread::panicking() {
            let failure = Failure::gone("the writer thread of the embedded directory died");
            self.condition.failed(&failure);
            failure
        } else {
            Failure::closed()
        };
        self.queue.bury(&failure);
    }
}

fn fail(jobs: Vec<Box<dyn Job>>, failure: &Failure) {
    for job in jobs {
        finish(job, Err(failure));
    }
}

fn finish(job: Box<dyn Job>, outcome: std::result::Result<(), &Failure>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job.done(outcome))) {
        let error = trunkline_core::task::panic_error(panic.as_ref());
        tracing::error!(target: "trunkline", %error, "telling the outcome of a write failed");
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

pub(super) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
