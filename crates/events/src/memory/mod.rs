//! A store in memory: for tests, and for services whose events need not outlive them.

mod state;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use trunkline_core::{Error, Result, SharedClock, SystemClock};

use crate::append::check_batch;
use crate::event::{Event, RecordedEvent, StreamName};
use crate::store::{AppendOutcome, ChangeSignal, EventStore, ExpectedVersion, ReadAll, ReadStream};
use state::State;

/// A store in memory. Clones are the same store; what is in it goes with the last one.
///
/// ```
/// use trunkline_events::{Event, EventStore, ExpectedVersion, MemoryEventStore, ReadStream, StreamName};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let store = MemoryEventStore::new();
/// let stream = StreamName::of("order", "42")?;
/// let created = Event::new("order.created", "42", &serde_json::json!({ "total": 1999 }))?;
/// let outcome = store.append(&stream, ExpectedVersion::NoStream, vec![created]).await?;
/// assert_eq!(outcome.version, 1);
/// assert_eq!(store.read_stream(ReadStream::new(stream)).await?.len(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryEventStore(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    head: watch::Sender<u64>,
    clock: SharedClock,
}

impl Default for MemoryEventStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryEventStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(SystemClock::shared())
    }

    /// An empty store whose clock dates what is appended.
    #[must_use]
    pub fn with_clock(clock: SharedClock) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            head: watch::Sender::new(0),
            clock,
        }))
    }

    /// Shuts the store down: every call fails with `Cancelled`.
    pub fn shutdown(&self) {
        self.lock().closed = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.closed {
            return Err(Error::cancelled("the event store was shut down"));
        }
        Ok(state)
    }
}

impl fmt::Debug for MemoryEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEventStore")
            .field("position", &*self.0.head.borrow())
            .finish_non_exhaustive()
    }
}

impl EventStore for MemoryEventStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
    ) -> Result<AppendOutcome> {
        let mut state = self.open()?;
        check_batch(&events)?;
        let outcome = state.append(stream, expected, events, self.0.clock.now())?;
        // Under the lock, so that the signal never goes back.
        if !outcome.repeated {
            self.0.head.send_replace(outcome.position);
        }
        Ok(outcome)
    }

    async fn read_stream(&self, read: ReadStream) -> Result<Vec<RecordedEvent>> {
        Ok(self.open()?.read_stream(&read))
    }

    async fn read_all(&self, read: ReadAll) -> Result<Vec<RecordedEvent>> {
        Ok(self.open()?.read_all(&read))
    }

    fn changes(&self) -> ChangeSignal {
        self.0.head.subscribe()
    }

    async fn checkpoint(&self, reader: &str) -> Result<u64> {
        Ok(self.open()?.checkpoint(reader))
    }

    async fn save_checkpoint(&self, reader: &str, position: u64) -> Result<()> {
        self.open()?.save_checkpoint(reader, position);
        Ok(())
    }

    async fn health_check(&self) -> Result<()> {
        self.open().map(drop)
    }
}
