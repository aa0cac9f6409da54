//! A database of the directory, opened when it is first used and closed once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout_at};
use trunkline_core::{Context, Error, Result};

use crate::engine::{Database, EmbeddedDirectory, Schema};

/// How long a call waits when its context says nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// One file of the directory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Part(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    file: String,
    schema: &'static Schema,
    state: RwLock<State>,
    /// Whoever holds it is opening.
    opening: Mutex<()>,
    closed: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
enum State {
    Unopened,
    Open(Arc<Database>),
    Closed,
}

impl Part {
    pub(crate) fn new(directory: &Path, file: String, schema: &'static Schema) -> Self {
        Self(Arc::new(Inner {
            directory: directory.to_owned(),
            file,
            schema,
            state: RwLock::new(State::Unopened),
            opening: Mutex::default(),
            closed: watch::Sender::new(false),
        }))
    }

    /// The database, opened now if it was not. One that could not be opened is tried again by the next call.
    pub(crate) async fn database(&self, operation: &'static str) -> Result<Arc<Database>> {
        if let Some(database) = self.opened(operation)? {
            return Ok(database);
        }
        let _one = self.0.opening.lock().await;
        if let Some(database) = self.opened(operation)? {
            return Ok(database);
        }
        let part = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let directory = EmbeddedDirectory::open(&part.0.directory)?;
            Database::open(&directory, &part.0.file, part.0.schema)
        });
        let late = || Error::timeout("the embedded directory did not open in time");
        let database = timeout_at(Self::deadline(), opened)
            .await
            .map_err(|_| late().with_operation(operation))?
            .map_err(|join| Error::internal("opening panicked").with_source(join))?
            .map_err(|error| error.with_operation(operation))?;
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Closed) {
            return Err(closed(operation));
        }
        *state = State::Open(Arc::clone(&database));
        Ok(database)
    }

    fn opened(&self, operation: &'static str) -> Result<Option<Arc<Database>>> {
        match &*self.0.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Unopened => Ok(None),
            State::Open(database) => Ok(Some(Arc::clone(database))),
            State::Closed => Err(closed(operation)),
        }
    }

    /// When to give up: at the caller's deadline, or after 30 s.
    pub(crate) fn deadline() -> Instant {
        let latest = Instant::now() + PATIENCE;
        let asked = Context::current().and_then(|context| context.deadline());
        asked.map_or(latest, |asked| asked.min(latest))
    }

    /// Resolves when it is ended. Cancel safe.
    pub(crate) fn closing(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.0.closed.subscribe();
        async move { drop(closed.wait_for(|closed| *closed).await) }
    }

    /// The database if it is open, without opening it.
    pub(crate) fn if_open(&self) -> Option<Arc<Database>> {
        self.opened("").ok().flatten()
    }

    /// Ends it: later calls fail with `Cancelled`.
    pub(crate) fn close(&self) {
        self.0.closed.send_replace(true);
        let before = {
            let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, State::Closed)
        };
        drop(before);
    }
}

fn closed(operation: &'static str) -> Error {
    Error::cancelled("it was shut down").with_operation(operation)
}
