//! Event sourcing: the event and command models, the [`EventStore`] contract, and the relay that publishes what was
//! appended.

mod erased;
mod event;
mod store;

pub use erased::AnyEventStore;
pub use event::{Command, Event, RecordedEvent, StreamName};
pub use store::{
    AppendOutcome, ChangeSignal, Direction, EventStore, ExpectedVersion, ReadAll, ReadStream,
    VersionConflict,
};
