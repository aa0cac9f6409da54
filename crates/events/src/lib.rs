//! Event sourcing: the event and command models, the [`EventStore`] contract, and the [`Relay`] that publishes what was
//! appended.
//!
//! It is for services whose state is a history of facts, and for services that must tell others what they did without
//! writing twice. Applications meet it through the `trunkline` facade; depend on this crate to write a store. Who only
//! sends messages needs `trunkline-messaging` alone.
//!
//! ```
//! use trunkline_events::{Event, EventStore, ExpectedVersion, MemoryEventStore, ReadStream, StreamName};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
//! let store = MemoryEventStore::new();
//! let stream = StreamName::of("order", "42")?;
//!
//! let placed = Event::new("order.placed", "42", &serde_json::json!({ "total": 1999 }))?;
//! store.append(&stream, ExpectedVersion::NoStream, vec![placed]).await?;
//!
//! // Whoever decides upon an older version learns that it is older.
//! let paid = Event::new("order.paid", "42", &serde_json::json!({ "by": "card" }))?;
//! let stale = store.append(&stream, ExpectedVersion::Exact(0), vec![paid.clone()]).await;
//! assert!(stale.unwrap_err().find::<trunkline_events::VersionConflict>().is_some());
//! store.append(&stream, ExpectedVersion::Exact(1), vec![paid]).await?;
//!
//! let history = store.read_stream(ReadStream::new(stream)).await?;
//! assert_eq!(history.last().map(|event| event.version), Some(2));
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! - [`Event`] and [`Command`] have the fields that services of any language agree on; an event appended is a
//!   [`RecordedEvent`] with its version in the stream and its position among all events.
//! - A [stream](StreamName) is the history of one aggregate, named `<type>-<aggregate id>`; the type is its category.
//! - [`ExpectedVersion`] makes deciding safe: of two decisions upon the same version one wins.
//! - An event's id makes repeating safe: whoever does not know whether an append happened appends the same again.
//! - [`Relay`] publishes appended events to a broker behind a durable checkpoint. What is appended is published, after a
//!   crash as well, and no service has to write to two places.
//! - A store implements [`EventStore`]; [`check_batch`] and [`decide`] hold the rules of appending, the same for all.
//!   Of this crate is [`MemoryEventStore`]; the embedded one is in `trunkline-sqlite`.
//!
//! This crate has no features.
//!
//! # What is promised
//! - Appends are atomic, and durable where the store is. Versions have no gap.
//! - A reader that goes forwards sees each event once, in one order for all, and never skips one, however many append at
//!   the same time.
//! - The relay publishes at least once, under the same message id each time, and in order within an aggregate.
//!
//! Not promised: order between aggregates in what the relay publishes, and exactly-once delivery; consumers that
//! remember message ids handle each event once.
//!
//! Siblings: `trunkline-messaging` carries what the relay publishes, and its inbox remembers ids.

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
