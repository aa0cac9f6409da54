//! The embedded directory: durable broker, registry, event store and inbox on local disk, shared by processes.
