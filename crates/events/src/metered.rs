//! Counts what is appended.

use trunkline_core::Result;
use trunkline_telemetry::metrics::EventStoreMetrics;

use crate::erased::AnyEventStore;
use crate::event::{Event, RecordedEvent, StreamName};
use crate::store::{AppendOutcome, ChangeSignal, EventStore, ExpectedVersion, ReadAll, ReadStream};

/// A store of which it is counted how many events are appended. Repetitions do not count.
#[derive(Clone, Debug)]
pub struct MeteredStore {
    store: AnyEventStore,
    metrics: EventStoreMetrics,
}

impl MeteredStore {
    /// Counts appends to a store.
    #[must_use]
    pub fn new(store: impl EventStore, metrics: EventStoreMetrics) -> Self {
        Self {
            store: store.erase(),
            metrics,
        }
    }

    /// The store itself.
    #[must_use]
    pub fn get_ref(&self) -> &AnyEventStore {
        &self.store
    }
}

impl EventStore for MeteredStore {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    async fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
    ) -> Result<AppendOutcome> {
        let count = events.len() as u64;
        let outcome = self.store.append(stream, expected, events).await?;
        if !outcome.repeated {
            self.metrics.appended(count);
        }
        Ok(outcome)
    }

    async fn read_stream(&self, read: ReadStream) -> Result<Vec<RecordedEvent>> {
        self.store.read_stream(read).await
    }

    async fn read_all(&self, read: ReadAll) -> Result<Vec<RecordedEvent>> {
        self.store.read_all(read).await
    }

    fn changes(&self) -> ChangeSignal {
        self.store.changes()
    }

    async fn checkpoint(&self, reader: &str) -> Result<u64> {
        self.store.checkpoint(reader).await
    }

    async fn save_checkpoint(&self, reader: &str, position: u64) -> Result<()> {
        self.store.save_checkpoint(reader, position).await
    }

    async fn health_check(&self) -> Result<()> {
        self.store.health_check().await
    }
}
