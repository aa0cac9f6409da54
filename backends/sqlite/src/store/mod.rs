//! The event store in the embedded directory: one file for each store, shared by the processes of this machine.
//!
//! One transaction at a time writes, whichever process it is in, and gives out positions: readers see events in the
//! order of their positions and can never skip one.

mod append;
mod read;
mod schema;

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::sync::{OnceCell, watch};
use trunkline_core::{Error, Result, SharedClock, SystemClock};
use trunkline_events::{
    AppendOutcome, ChangeSignal, Event, EventStore, ExpectedVersion, ReadAll, ReadStream,
    RecordedEvent, StreamName, check_batch,
};

use crate::engine::{Database, Listener, Manner};
use crate::part::Part;
use append::{Append, Book};

const KIND: &str = "embedded";

/// A store of events in a directory that any number of processes of this machine share. Clones share it.
///
/// Appends are on the disk when they return. All appends of all processes are one behind the other, so that positions
/// have no gaps and no reader ever skips an event.
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
/// let created = Event::new("order.created", "42", &serde_json::json!({ "total": 1999 }))?;
/// store.append(&stream, ExpectedVersion::NoStream, vec![created]).await?;
/// assert_eq!(store.read_stream(ReadStream::new(stream)).await?.len(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EmbeddedEventStore {
    part: Part,
    clock: SharedClock,
    head: watch::Sender<u64>,
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

    /// A store whose clock dates what is appended.
    ///
    /// # Errors
    /// As [`EmbeddedEventStore::new`].
    pub fn with_clock(directory: impl AsRef<Path>, name: &str, clock: SharedClock) -> Result<Self> {
        let file = crate::file_name("events", name)?;
        let part = Part::new(directory.as_ref(), file, &schema::SCHEMA);
        Ok(Self {
            part,
            clock,
            head: watch::Sender::new(0),
            listening: Arc::default(),
        })
    }

    /// Ends it: later calls fail with `Cancelled`.
    pub fn shutdown(&self) {
        self.part.close();
    }

    async fn database(&self, operation: &'static str) -> Result<Arc<Database>> {
        let database = self.part.database(operation).await?;
        let listen = || async {
            let (database, head) = (Arc::clone(&database), self.head.clone());
            let store = Arc::downgrade(&self.listening);
            let listen = move || {
                database
                    .listen(|_| Box::new(Teller { head, store }))
                    .map(drop)
            };
            tokio::task::spawn_blocking(listen)
                .await
                .map_err(|join| Error::internal("listening panicked").with_source(join))?
        };
        self.listening.get_or_try_init(listen).await?;
        Ok(database)
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        function: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let database = self.database(operation).await?;
        database
            .readers()
            .read(operation, Part::deadline(), function)
            .await
    }
}

/// Tells the position of the last event, whoever appended it.
struct Teller {
    head: watch::Sender<u64>,
    /// Gone when every handle of the store is.
    store: Weak<OnceCell<()>>,
}

impl Listener for Teller {
    fn wake(&mut self, connection: &Connection, changed: bool) -> Option<Duration> {
        // What was there before is news to whoever has just come.
        if changed || *self.head.borrow() == 0 {
            match read::head(connection) {
                Ok(head) => raise(&self.head, head.unsigned_abs()),
                Err(error) => {
                    tracing::warn!(target: "trunkline", %error, "cannot look for new events; trying again");
                    return Some(Duration::from_secs(1));
                }
            }
        }
        None
    }

    fn is_over(&self) -> bool {
        self.store.strong_count() == 0
    }
}

fn raise(head: &watch::Sender<u64>, position: u64) {
    head.send_if_modified(|known| {
        let higher = position > *known;
        *known = position.max(*known);
        higher
    });
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
        let database = self.database("append").await?;
        check_batch(&events)?;
        let append = Append::new(stream, expected, events)?;
        let clock = Arc::clone(&self.clock);
        let manner = Manner::durable("append", Part::deadline());
        let outcome = database
            .calls()
            .write(manner, move |tx| {
                let now = clock.now().unix_micros();
                let (connection, book) = tx.cached::<Book>();
                let outcome = append.run(connection, book, now)?;
                if !outcome.repeated {
                    tx.ring();
                }
                Ok(outcome)
            })
            .await?;
        raise(&self.head, outcome.position);
        Ok(outcome)
    }

    async fn read_stream(&self, read: ReadStream) -> Result<Vec<RecordedEvent>> {
        self.read("read_stream", move |connection| {
            read::stream(connection, &read)
        })
        .await
    }

    async fn read_all(&self, read: ReadAll) -> Result<Vec<RecordedEvent>> {
        self.read("read_all", move |connection| read::all(connection, &read))
            .await
    }

    fn changes(&self) -> ChangeSignal {
        if !self.listening.initialized() && tokio::runtime::Handle::try_current().is_ok() {
            let store = self.clone();
            // It ends as soon as the store is open; a failure is told to the next call.
            drop(trunkline_core::task::spawn("listen", async move {
                store.database("changes").await.map(drop)
            }));
        }
        self.head.subscribe()
    }

    async fn checkpoint(&self, reader: &str) -> Result<u64> {
        let reader = reader.to_owned();
        self.read("checkpoint", move |connection| {
            read::checkpoint(connection, &reader)
        })
        .await
    }

    async fn save_checkpoint(&self, reader: &str, position: u64) -> Result<()> {
        let database = self.database("save_checkpoint").await?;
        let reader = reader.to_owned();
        let manner = Manner::durable("save_checkpoint", Part::deadline());
        database
            .calls()
            .write(manner, move |tx| {
                tx.connection()
                    .prepare_cached(
                        "INSERT INTO checkpoint VALUES(?1, ?2) \
                         ON CONFLICT DO UPDATE SET position = max(position, excluded.position)",
                    )?
                    .execute(params![reader, read::number(position)])?;
                Ok(())
            })
            .await
    }

    async fn health_check(&self) -> Result<()> {
        let database = self.database("health_check").await?;
        database.health_check(Part::deadline()).await
    }
}
