//! Benchmarks: one file each, with one [`Entry`], and one line here.

mod balance;
mod breaker;
mod discovery;
mod embedded_broker;
mod footprint;
mod http_cache;
mod http_pipeline;
mod messaging;
mod policies;

use crate::entry::Entry;

/// All benchmarks, in the order they are run.
pub static ALL: &[&Entry] = &[
    &breaker::ENTRY,
    &policies::ENTRY,
    &embedded_broker::ENTRY,
    &messaging::ON_RABBITMQ,
    &messaging::ON_KAFKA,
    &messaging::ON_REDIS,
    &messaging::ON_NATS,
    &http_pipeline::ENTRY,
    &http_cache::ENTRY,
    &discovery::ENTRY,
    &balance::ENTRY,
    &footprint::ENTRY,
];
