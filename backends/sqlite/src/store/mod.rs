//! The event store in the embedded directory: one file for each store, shared by the processes of this machine.
//!
//! One transaction at a time writes, whichever process it is in, and gives out positions: readers see events in the
//! order of their positions and can never skip one.

mod append;
mod read;

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{OnceCell, watch};
use trunkline_core::{Error, Result, SharedClock, SystemClock};
use trunkline_events::{
    AppendOutcome, ChangeSignal, Event, EventStore, ExpectedVersion, ReadAll, ReadStream,
    RecordedEvent, StreamName,
};

use crate::engine::{Database, Listener, Manner, Schema};
use crate::part::Part;

const KIND: &str = "embedded";

static SCHEMA: Schema = Schema {
    steps: &["CREATE TABLE stream (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            category TEXT NOT NULL,
            version INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE event (
            position INTEGER PRIMARY KEY,
            stream INTEGER NOT NULL REFERENCES stream (id),
            version INTEGER NOT NULL,
            event_id TEXT NOT NULL UNIQUE,
            event_type TEXT NOT NULL,
            recorded_at INTEGER NOT NULL,
            body TEXT NOT NULL,
            UNIQUE (stream, version)
        ) STRICT;
        CREATE TABLE checkpoint (reader TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;"],
};

/// A durable event store on this machine. Clones share it.
///
/// ```
/// use trunkline_events::{Event, EventStore, ExpectedVersion, ReadStream, StreamName};
/// use trunkline_sqlite::EmbeddedEventStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let directory = directory.path();
/// let store = EmbeddedEventStore::new(directory, "orders")?;
/// let stream = StreamName::of("order", "42")?;
/// let placed = Event::new("order.placed", "42", &serde_json::json!({ "amount": 1999 }))?;
/// store.append(&stream, ExpectedVersion::NoStream, vec![placed]).await?;
/// let events = store.read_stream(ReadStream::new(stream)).await?;
/// assert_eq!(events[0].version, 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EmbeddedEventStore {
    part: Part,
    clock: SharedClock,
    newest: watch::Sender<u64>,
    /// Filled once somebody listens for changes.
    listening: Arc<OnceCell<()>>,
}

impl EmbeddedEventStore {
    /// A store of a directory; opened when it is first used.
    ///
    /// # Errors
    /// `Config` when the name has anything but letters, digits, `-` and `_`.
    pub fn new(directory: impl AsRef<Path>, name: &str) -> Result<Self> {
        Self::with_clock(directory, name, SystemClock::shared())
    }

    /// A store that takes the time from another clock.
    ///
    /// # Errors
    /// As [`EmbeddedEventStore::new`].
    pub fn with_clock(directory: impl AsRef<Path>, name: &str, clock: SharedClock) -> Result<Self> {
        let file = crate::file_name("events", name)?;
        let part = Part::new(directory.as_ref(), file, &SCHEMA);
        Ok(Self { part, clock, newest: watch::Sender::new(0), listening: Arc::default() })
    }

    /// Ends it: later calls fail with `Cancelled`.
    pub fn shutdown(&self) {
        self.part.close();
    }

    async fn database(&self, operation: &'static str) -> Result<Arc<Database>> {
        let database = self.part.database(operation).await?;
        let newest = self.newest.clone();
        self.listening
            .get_or_try_init(|| async {
                let store = Arc::downgrade(&self.listening);
                database.listen(|_| Box::new(Signal { newest, store })).map(drop)
            })
            .await?;
        Ok(database)
    }

    async fn read<T, F>(&self, operation: &'static str, function: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let database = self.database(operation).await?;
        database.readers().read(operation, Part::deadline(), function).await
    }
}

impl EventStore for EmbeddedEventStore {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
    ) -> Result<AppendOutcome> {
        let now = self.clock.now().unix_micros();
        let append = append::Append::new(stream.clone(), expected, events, now)?;
        let database = self.database("append").await?;
        let manner = Manner::durable("append", Part::deadline());
        database.calls().write(manner, move |tx| append.run(tx)).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<Vec<RecordedEvent>> {
        self.read("read_stream", move |connection| read::stream(connection, &read)).await?.collect()
    }

    async fn read_all(&self, read: ReadAll) -> Result<Vec<RecordedEvent>> {
        self.read("read_all", move |connection| read::all(connection, &read)).await?.collect()
    }

    fn changes(&self) -> ChangeSignal {
        self.newest.subscribe()
    }

    async fn checkpoint(&self, reader: &str) -> Result<u64> {
        let reader = reader.to_owned();
        let stored = self.read("checkpoint", move |connection| {
            connection
                .prepare_cached("SELECT position FROM checkpoint WHERE reader = ?1")?
                .query_row([reader], |row| row.get::<_, i64>(0))
                .optional()
        });
        Ok(stored.await?.unwrap_or(0).cast_unsigned())
    }

    async fn save_checkpoint(&self, reader: &str, position: u64) -> Result<()> {
        let position = i64::try_from(position)
            .map_err(|_| Error::invalid("a position of this store is at most 2^63 - 1"))?;
        let reader = reader.to_owned();
        let database = self.database("save_checkpoint").await?;
        let manner = Manner::durable("save_checkpoint", Part::deadline());
        let write = move |tx: &mut crate::engine::Tx<'_>| {
            tx.connection()
                .prepare_cached(
                    "INSERT INTO checkpoint VALUES (?1, ?2)
                     ON CONFLICT DO UPDATE SET position = max(position, excluded.position)",
                )?
                .execute(params![reader, position])?;
            Ok(())
        };
        database.calls().write(manner, write).await
    }

    async fn health_check(&self) -> Result<()> {
        self.database("health_check").await?.health_check(Part::deadline()).await
    }
}

/// Tells the highest position whenever it grows, whichever process appended.
struct Signal {
    newest: watch::Sender<u64>,
    /// Gone when every handle of the store is.
    store: Weak<OnceCell<()>>,
}

impl Listener for Signal {
    fn wake(&mut self, connection: &Connection, changed: bool) -> Option<Duration> {
        let unknown = *self.newest.borrow() == 0;
        if changed || unknown {
            let highest = read::highest(connection);
            match highest {
                Ok(highest) => {
                    self.newest.send_if_modified(|newest| {
                        let grew = highest > *newest;
                        *newest = highest.max(*newest);
                        grew
                    });
                }
                // The next look may succeed; a reader that asks gets the error itself.
                Err(error) => tracing::warn!(target: "trunkline", %error, "cannot look for new events"),
            }
        }
        None
    }

    fn is_over(&self) -> bool {
        self.store.strong_count() == 0
    }
}
