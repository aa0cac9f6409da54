//! Event sourcing: the event and command models, the [`EventStore`] contract, and the relay that publishes what was
//! appended.

mod config;
mod erased;
mod event;
mod store;

pub use config::{EventStoreConfig, RelayConfig};
pub use erased::AnyEventStore;
pub use event::{Command, Event, RecordedEvent, StreamName};
pub use store::{
    AppendOutcome, ChangeSignal, Direction, EventStore, ExpectedVersion, ReadAll, ReadStream,
    VersionConflict,
};
