//! The embedded directory: durable broker, registry, event store and inbox on local disk, shared by processes.

mod broker;
mod database;
mod engine;
mod error;
mod inbox_store;
mod part;
mod registry;
mod store;

pub use broker::{
    DestinationFull, DestinationStatistics, EmbeddedBroker, EmbeddedBrokerConfig, GroupStatistics,
    WhenFull,
};
pub use database::{EmbeddedDatabase, inbox};
pub use engine::EmbeddedDirectory;
pub use error::{DamagedFile, DiskFull, NetworkFileSystem, SchemaTooNew};
pub use inbox_store::EmbeddedInbox;
pub use registry::EmbeddedRegistry;
/// What a transaction's functions work with.
pub use rusqlite::{Connection, OptionalExtension, Result as SqlResult, params};
pub use store::EmbeddedEventStore;

/// The file of a named part: the name must be one that any file system takes.
fn file_name(sort: &str, name: &str) -> trunkline_core::Result<String> {
    let sound = (1..=64).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !sound {
        return Err(trunkline_core::Error::config(format!(
            "`{name}` cannot be the name of a file of the embedded directory; use 1 to 64 letters, digits, `-` and `_`"
        )));
    }
    Ok(format!("{sort}-{name}"))
}
