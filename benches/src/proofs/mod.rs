//! Proofs: one file each, with one [`Entry`], and one line here.

mod breaker_fuzz;
mod brokers;
mod by_hand;
mod customer;
mod demo;
mod discovery_chaos;
mod graceful_stop;
mod http_cache;
mod http_faults;
mod instance_kill;
mod kill_anything;
mod messaging_chaos;
mod messaging_interop;
mod messaging_late_start;
mod messaging_soak;
pub(crate) mod registries;
mod retry_storm;
pub(crate) mod scribe;
mod seed_configs;
mod servers;
mod services;
pub(crate) mod system;

use crate::entry::Entry;

/// All proofs, in the order they are run.
pub static ALL: &[&Entry] = &[
    &servers::ENTRY,
    &seed_configs::ENTRY,
    &demo::ENTRY,
    &by_hand::ENTRY,
    &graceful_stop::ENTRY,
    &http_cache::ENTRY,
    &kill_anything::ENTRY,
    &http_faults::ENTRY,
    &breaker_fuzz::ENTRY,
    &retry_storm::ENTRY,
    &instance_kill::ENTRY,
    &discovery_chaos::ON_EMBEDDED,
    &discovery_chaos::ON_CONSUL,
    &discovery_chaos::ON_ETCD,
    &discovery_chaos::ON_KUBERNETES,
    &discovery_chaos::ON_DNS,
    &discovery_chaos::ON_SEVERAL,
    &messaging_interop::ENTRY,
    &messaging_late_start::ENTRY,
    &messaging_chaos::ON_REDIS,
    &messaging_chaos::ON_NATS,
    &messaging_chaos::ON_RABBITMQ,
    &messaging_chaos::ON_KAFKA,
    &messaging_soak::ENTRY,
];
