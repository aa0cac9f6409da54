//! CommunicationManager: configuration from every source, components by name, ordered start and stop, health.
