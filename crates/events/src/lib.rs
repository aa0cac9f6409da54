//! Event sourcing: the event and command models, the [`EventStore`] contract, and the relay that publishes what was
//! appended.

mod append;
mod config;
mod erased;
mod event;
mod memory;
mod metered;
mod relay;
mod store;

pub use append::{AppendDecision, MOST_EVENTS, check_batch, decide};
pub use config::{EventStoreConfig, RelayConfig};
pub use erased::AnyEventStore;
pub use event::{Command, Event, RecordedEvent, StreamName};
pub use memory::MemoryEventStore;
pub use metered::MeteredStore;
pub use relay::{Relay, RelayProgress};
pub use store::{
    AppendOutcome, ChangeSignal, Direction, EventStore, ExpectedVersion, ReadAll, ReadStream,
    VersionConflict,
};
