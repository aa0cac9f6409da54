//! The MessageBroker contract and everything above it: router, retry, dead letters, dedup, codecs.
