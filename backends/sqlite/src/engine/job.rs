//! What the writer thread runs: jobs, several in one transaction.

use std::any::Any;

use rusqlite::Connection;
use trunkline_core::{Error, Result};

use crate::error::Failure;

/// Something to write. Jobs that wait at the same time share one transaction and one sync of the disk.
pub(crate) trait Job: Send {
    /// Writes. It may be called again after the transaction was rolled back, and begins anew then.
    ///
    /// An error gives the whole group up: a job that only refuses (a conflict, a limit) writes nothing, keeps its
    /// refusal for [`Job::done`] and returns `Ok`.
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;

    /// Told once how it went, on the writer thread: must not block.
    fn done(self: Box<Self>, outcome: Result<(), &Failure>);

    /// Whether it must be on the disk before `done` says so. What only ends with its process (a lease, a heartbeat)
    /// need not be.
    fn durable(&self) -> bool {
        true
    }

    /// Whether it needs new space, so that the others of its group are tried without it when the disk is full.
    fn grows(&self) -> bool {
        true
    }
}

/// The transaction of one group, as a job sees it.
pub(crate) struct Tx<'a> {
    connection: &'a Connection,
    cache: &'a mut Cache,
    ring: &'a mut bool,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        cache: &'a mut Cache,
        ring: &'a mut bool,
    ) -> Self {
        Self {
            connection,
            cache,
            ring,
        }
    }

    pub(crate) fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// What this process remembers of the file. It is empty whenever another process wrote in between, or a group was
    /// rolled back: what is found in it is true.
    pub(crate) fn cached<T: Default + Send + 'static>(&mut self) -> (&'a Connection, &mut T) {
        (self.connection, self.cache.of())
    }

    pub(crate) fn forget_cached(&mut self) {
        self.cache.clear();
    }

    /// Wakes everybody who waits for changes, once this is committed.
    pub(crate) fn ring(&mut self) {
        *self.ring = true;
    }
}

/// One value of a type that the owner of the database chooses.
#[derive(Default)]
pub(crate) struct Cache(Option<Box<dyn Any + Send>>);

impl Cache {
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    fn of<T: Default + Send + 'static>(&mut self) -> &mut T {
        if !self.0.as_ref().is_some_and(|held| held.is::<T>()) {
            self.0 = Some(Box::new(T::default()));
        }
        self.0
            .as_mut()
            .and_then(|held| held.downcast_mut())
            .expect("a value of this type was put there just now")
    }
}

/// Why a job's function stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It refuses, having written nothing.
    Refused(Error),
    /// A statement failed.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}
