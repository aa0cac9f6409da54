//! Any event store, behind one cheap handle.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use trunkline_core::{BoxFuture, Result};

use crate::event::{Event, RecordedEvent, StreamName};
use crate::store::{AppendOutcome, ChangeSignal, EventStore, ExpectedVersion, ReadAll, ReadStream};

trait DynEventStore: Any + Send + Sync {
    fn kind_dyn(&self) -> &'static str;
    fn append_dyn<'a>(
        &'a self,
        stream: &'a StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
    ) -> BoxFuture<'a, Result<AppendOutcome>>;
    fn read_stream_dyn(&self, read: ReadStream) -> BoxFuture<'_, Result<Vec<RecordedEvent>>>;
    fn read_all_dyn(&self, read: ReadAll) -> BoxFuture<'_, Result<Vec<RecordedEvent>>>;
    fn changes_dyn(&self) -> ChangeSignal;
    fn checkpoint_dyn<'a>(&'a self, reader: &'a str) -> BoxFuture<'a, Result<u64>>;
    fn save_checkpoint_dyn<'a>(
        &'a self,
        reader: &'a str,
        position: u64,
    ) -> BoxFuture<'a, Result<()>>;
    fn health_check_dyn(&self) -> BoxFuture<'_, Result<()>>;
}

impl<S: EventStore> DynEventStore for S {
    fn kind_dyn(&self) -> &'static str {
        self.kind()
    }

    fn append_dyn<'a>(
        &'a self,
        stream: &'a StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
    ) -> BoxFuture<'a, Result<AppendOutcome>> {
        Box::pin(self.append(stream, expected, events))
    }

    fn read_stream_dyn(&self, read: ReadStream) -> BoxFuture<'_, Result<Vec<RecordedEvent>>> {
        Box::pin(self.read_stream(read))
    }

    fn read_all_dyn(&self, read: ReadAll) -> BoxFuture<'_, Result<Vec<RecordedEvent>>> {
        Box::pin(self.read_all(read))
    }

    fn changes_dyn(&self) -> ChangeSignal {
        self.changes()
    }

    fn checkpoint_dyn<'a>(&'a self, reader: &'a str) -> BoxFuture<'a, Result<u64>> {
        Box::pin(self.checkpoint(reader))
    }

    fn save_checkpoint_dyn<'a>(
        &'a self,
        reader: &'a str,
        position: u64,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.save_checkpoint(reader, position))
    }

    fn health_check_dyn(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.health_check())
    }
}

/// Any event store; cloning copies a pointer.
#[derive(Clone)]
pub struct AnyEventStore(Arc<dyn DynEventStore>);

impl AnyEventStore {
    /// Erases a store.
    #[must_use]
    pub fn new(store: impl EventStore) -> Self {
        store.erase()
    }

    pub(crate) fn of(store: impl EventStore) -> Self {
        Self(Arc::new(store))
    }

    /// The store itself, for what only it can do.
    #[must_use]
    pub fn downcast_ref<S: EventStore>(&self) -> Option<&S> {
        let store: &dyn Any = self.0.as_ref();
        store.downcast_ref()
    }
}

impl fmt::Debug for AnyEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyEventStore").field(&self.kind()).finish()
    }
}

impl EventStore for AnyEventStore {
    fn kind(&self) -> &'static str {
        self.0.kind_dyn()
    }

    async fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
    ) -> Result<AppendOutcome> {
        self.0.append_dyn(stream, expected, events).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<Vec<RecordedEvent>> {
        self.0.read_stream_dyn(read).await
    }

    async fn read_all(&self, read: ReadAll) -> Result<Vec<RecordedEvent>> {
        self.0.read_all_dyn(read).await
    }

    fn changes(&self) -> ChangeSignal {
        self.0.changes_dyn()
    }

    async fn checkpoint(&self, reader: &str) -> Result<u64> {
        self.0.checkpoint_dyn(reader).await
    }

    async fn save_checkpoint(&self, reader: &str, position: u64) -> Result<()> {
        self.0.save_checkpoint_dyn(reader, position).await
    }

    async fn health_check(&self) -> Result<()> {
        self.0.health_check_dyn().await
    }

    fn erase(self) -> AnyEventStore {
        self
    }
}
