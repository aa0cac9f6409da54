//! The engine under everything in the embedded directory: SQLite files that several processes write, each through one
//! writer thread, with group commit, fair turns, wake-ups and an honest health.

mod bell;
mod call;
mod condition;
mod connection;
mod filesystem;
mod job;
mod keeper;
mod liveness;
mod queue;
mod readers;
mod schema;
mod turnstile;
mod waker;
mod writer;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use trunkline_core::{Error, Result};

pub(crate) use call::{Calls, Manner, busy};
#[cfg(test)]
pub(crate) use job::Cache;
pub(crate) use job::{Job, Stop, Tx};
pub(crate) use liveness::Liveness;
pub(crate) use queue::JobSender;
pub(crate) use readers::Readers;
pub(crate) use schema::Schema;
pub(crate) use waker::{Listener, Nudge};

use bell::{Belfry, Ringer};
use condition::Condition;
use connection::Purpose;
use keeper::{Checkpoints, Keeper};
pub(crate) use keeper::{Chore, Next};
use turnstile::Turnstile;
use waker::Waker;
use writer::{Parts, Writer};

/// How long the last handle waits for the threads when it is dropped.
const FAREWELL: Duration = Duration::from_secs(5);

/// A directory on local disk that any number of processes of this machine and user share.
///
/// Opening the same directory twice in one process gives the same one. A process that was made by a bare `fork` must
/// not use what its parent opened; `std::process::Command` is fine. Windows is not supported.
#[derive(Clone, Debug)]
pub struct EmbeddedDirectory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    liveness: Liveness,
    belfry: Belfry,
    databases: Mutex<HashMap<String, Weak<Database>>>,
}

/// Process, device and number of a directory.
type Key = (u32, u64, u64);

static OPEN: LazyLock<Mutex<HashMap<Key, Weak<Inner>>>> = LazyLock::new(Mutex::default);

impl EmbeddedDirectory {
    /// Opens a directory, creating it where it is missing, with access for this user alone. Blocks for a moment.
    ///
    /// # Errors
    /// `Config` when it is no directory, belongs to another user, or lies on a network file system
    /// ([`NetworkFileSystem`](crate::NetworkFileSystem)); `Denied`, `Exhausted`, `Unavailable` when it cannot be made.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = filesystem::prepare(path.as_ref())?;
        let unusable = |error| {
            Error::unavailable(format!(
                "cannot use the embedded directory {}",
                path.display()
            ))
            .with_source(error)
        };
        let metadata = fs::metadata(&path).map_err(unusable)?;
        let key = (std::process::id(), metadata.dev(), metadata.ino());
        let mut open = lock(&OPEN);
        if let Some(inner) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(Self(inner));
        }
        let liveness = Liveness::begin(&path).map_err(unusable)?;
        liveness.sweep();
        let belfry = Belfry::open(&path).map_err(unusable)?;
        let inner = Arc::new(Inner {
            path,
            liveness,
            belfry,
            databases: Mutex::default(),
        });
        open.retain(|_, known| known.strong_count() > 0);
        open.insert(key, Arc::downgrade(&inner));
        Ok(Self(inner))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn liveness(&self) -> &Liveness {
        &self.0.liveness
    }
}

/// One SQLite file of the directory, open in this process. The last handle that is dropped ends its threads, and waits
/// for them unless that would hold up a runtime: [`drop_apart`] waits there too.
pub(crate) struct Database {
    directory: EmbeddedDirectory,
    name: String,
    path: PathBuf,
    queue: JobSender,
    calls: Calls,
    readers: Readers,
    condition: Arc<Condition>,
    checkpoints: Checkpoints,
    waker: Mutex<Option<Waker>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Database {
    /// Opens `<name>.db`, making it where it is missing. Blocks.
    pub(crate) fn open(
        directory: &EmbeddedDirectory,
        name: &str,
        schema: &Schema,
    ) -> Result<Arc<Self>> {
        let mut databases = lock(&directory.0.databases);
        if let Some(database) = databases.get(name).and_then(Weak::upgrade) {
            return Ok(database);
        }
        let database = Arc::new(Self::start(directory, name, schema)?);
        databases.retain(|_, known| known.strong_count() > 0);
        databases.insert(name.to_owned(), Arc::downgrade(&database));
        Ok(database)
    }

    fn start(directory: &EmbeddedDirectory, name: &str, schema: &Schema) -> Result<Self> {
        let path = directory.path().join(format!("{name}.db"));
        let unusable =
            |error| Error::unavailable(format!("cannot use {}", path.display())).with_source(error);
        let mut turnstile = Turnstile::open(&path).map_err(unusable)?;
        let connection = {
            let _turn = turnstile.pass().map_err(unusable)?;
            let mut connection = connection::open(&path, Purpose::Write)?;
            schema.prepare(&mut connection, &path)?;
            connection
        };
        let queue = JobSender::new();
        let condition = Arc::new(Condition::default());
        let checkpoints = Checkpoints::new();
        let keeper = Keeper::spawn(
            &path,
            name,
            Turnstile::open(&path).map_err(unusable)?,
            Arc::clone(&condition),
            queue.clone(),
            checkpoints.clone(),
        )?;
        let parts = Parts {
            path: path.clone(),
            connection,
            turnstile,
            ringer: Ringer::new(&directory.0.belfry, name).map_err(unusable)?,
            condition: Arc::clone(&condition),
            queue: queue.clone(),
            checkpoints: checkpoints.clone(),
        };
        let writer = Writer::spawn(parts, name).inspect_err(|_| checkpoints.close())?;
        Ok(Self {
            directory: directory.clone(),
            name: name.to_owned(),
            calls: Calls::new(queue.clone()),
            queue,
            readers: Readers::new(path.clone()),
            path,
            condition,
            checkpoints,
            waker: Mutex::default(),
            threads: Mutex::new(vec![keeper, writer]),
        })
    }

    pub(crate) fn directory(&self) -> &EmbeddedDirectory {
        &self.directory
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn queue(&self) -> &JobSender {
        &self.queue
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(crate) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Adds somebody who is told of every change, whichever process makes it.
    pub(crate) fn listen(
        &self,
        listener: impl FnOnce(Nudge) -> Box<dyn Listener>,
    ) -> Result<Nudge> {
        let mut waker = lock(&self.waker);
        let running = match waker.take() {
            Some(running) => running,
            None => {
                let token = self.directory.liveness().token();
                Waker::spawn(&self.path, &self.name, token, &self.directory.0.belfry)?
            }
        };
        let nudge = running.nudge();
        running.attach(listener(nudge.clone()));
        *waker = Some(running);
        Ok(nudge)
    }

    /// Adds what is to be done about once a second, off everybody's way.
    pub(crate) fn every_second(&self, chore: Chore) {
        self.checkpoints.add_chore(chore);
    }

    /// Whether it can be read and written; a disk that failed is tried for real.
    pub(crate) async fn health_check(&self, deadline: Instant) -> Result<()> {
        if self.condition.is_failing() {
            let manner = Manner::durable("health_check", deadline);
            self.calls
                .write(manner, |tx| Ok(keeper::write_something(tx)?))
                .await?;
        }
        self.condition.check()?;
        self.readers
            .read("health_check", deadline, |connection| {
                connection.query_row("SELECT 1", [], |_| Ok(()))
            })
            .await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.queue.close();
        self.checkpoints.close();
        let waker = self
            .waker
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let threads = self
            .threads
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        threads.extend(waker.map(Waker::close));
        let me = thread::current().id();
        threads.retain(|thread| thread.thread().id() != me);
        let (threads, name) = (std::mem::take(threads), std::mem::take(&mut self.name));
        // As long as the threads work the process counts as alive.
        let directory = self.directory.clone();
        let wait = move || {
            join(threads, &name);
            drop(directory);
        };
        if Handle::try_current().is_err() {
            wait();
        } else if let Err(error) = thread::Builder::new().spawn(wait) {
            tracing::warn!(target: "trunkline", %error, "nobody waits for the threads of a database");
        }
    }
}

/// Drops something that holds a database on a thread of its own, where it may wait; resolves when it is done.
///
/// # Cancel safety
/// It is dropped all the same.
pub(crate) fn drop_apart(held: impl Send + 'static) -> impl Future<Output = ()> + Send {
    let (done, dropped) = oneshot::channel();
    let spawned = thread::Builder::new().spawn(move || {
        drop(held);
        // Nobody waits any more: the deadline was reached.
        done.send(()).ok();
    });
    if let Err(error) = spawned {
        tracing::warn!(target: "trunkline", %error, "nobody waits for the threads of a database");
    }
    async move {
        dropped.await.ok();
    }
}

/// Waits for the threads, but not for ever: one may be held up by a stopped process that holds the write lock.
fn join(threads: Vec<JoinHandle<()>>, name: &str) {
    let (ended, wait) = mpsc::channel();
    let mut count = 0;
    for handle in threads {
        let ended = ended.clone();
        count += 1;
        let joiner = thread::Builder::new().spawn(move || {
            // A panic was logged and reported when it happened.
            drop(handle.join());
            ended.send(()).ok();
        });
        if joiner.is_err() {
            count -= 1;
        }
    }
    for _ in 0..count {
        if wait.recv_timeout(FAREWELL).is_err() {
            tracing::error!(target: "trunkline", database = name, "a thread did not end in time and is left behind");
            return;
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
