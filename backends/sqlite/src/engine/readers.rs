//! Reading without holding up writers or async workers: a few connections, used on threads for blocking work.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use trunkline_core::{Error, Result, Retry};

use super::connection::{self, Purpose};
use crate::error::{Failure, from_sqlite};

/// Reads at a time; the next ones wait.
const CONNECTIONS: usize = 4;

#[derive(Clone, Debug)]
pub(crate) struct Readers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Shared {
            path,
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        }))
    }

    /// Runs a function that reads. When dropped, the function still runs to its end on its own thread.
    pub(crate) async fn read<T, F>(
        &self,
        operation: &'static str,
        deadline: Instant,
        function: F,
    ) -> Result<T>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let path = self.0.path.clone();
        let mapped = move |connection: &Connection| {
            function(connection).map_err(|error| from_sqlite(operation, error, &path))
        };
        self.read_apart(operation, deadline, mapped).await
    }

    /// As [`Readers::read`], for functions with errors of their own.
    pub(crate) async fn read_apart<T, F>(
        &self,
        operation: &'static str,
        deadline: Instant,
        function: F,
    ) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let late = || {
            Error::timeout("the embedded directory did not answer in time")
                .with_retry(Retry::Safe)
                .with_operation(operation)
        };
        let place = timeout_at(deadline, Arc::clone(&self.0.places).acquire_owned())
            .await
            .map_err(|_| late())?
            .map_err(|_| Failure::closed().to_error(operation))?;
        let shared = Arc::clone(&self.0);
        let work = tokio::task::spawn_blocking(move || {
            let _place = place;
            let connection = shared.take()?;
            let outcome = function(&connection);
            shared.give_back(connection);
            outcome
        });
        match timeout_at(deadline, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(join)) => Err(Error::internal("a read panicked")
                .with_operation(operation)
                .with_source(join)),
            Err(_) => Err(late()),
        }
    }
}

impl Shared {
    fn take(&self) -> Result<Connection> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        idle.map_or_else(|| connection::open(&self.path, Purpose::Read), Ok)
    }

    fn give_back(&self, connection: Connection) {
        // A reader left in a transaction would keep the WAL from beginning anew.
        if connection.is_autocommit() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
    }
}
