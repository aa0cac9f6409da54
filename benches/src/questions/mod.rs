//! Benchmarks: one file each, with one [`Entry`], and one line here.

mod balance;
mod breaker;
mod discovery;
mod embedded_broker;
mod footprint;
mod http_cache;
mod http_pipeline;
mod policies;

use crate::entry::Entry;

/// All benchmarks, in the order they are run.
pub static ALL: &[&Entry] = &[
    &breaker::ENTRY,
    &policies::ENTRY,
    &embedded_broker::ENTRY,
    &http_pipeline::ENTRY,
    &http_cache::ENTRY,
    &discovery::ENTRY,
    &balance::ENTRY,
    &footprint::ENTRY,
];
