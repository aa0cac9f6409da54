//! The embedded directory: durable broker, registry, event store and inbox on local disk, shared by processes.

mod broker;
mod engine;
mod error;

pub use broker::{
    DestinationFull, DestinationStatistics, EmbeddedBroker, EmbeddedBrokerConfig, GroupStatistics,
    WhenFull,
};
pub use engine::EmbeddedDirectory;
pub use error::{DamagedFile, DiskFull, NetworkFileSystem, SchemaTooNew};
