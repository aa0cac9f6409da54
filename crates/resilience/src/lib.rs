//! Timeout, retry with budget, circuit breaker, bulkhead and fallback: alone, as tower layers, from configuration.

pub mod breaker;
pub mod bulkhead;
mod call;
pub mod config;
mod failure;
pub mod fallback;
#[cfg(all(test, loom))]
mod loom_atomics;
mod observe;
mod policy;
mod registry;
pub mod retry;
mod stack;
mod sync;
mod target;
pub mod timeout;
mod window;

pub use breaker::CircuitOpen;
pub use bulkhead::BulkheadFull;
pub use call::{Attempt, Call};
pub use config::{InvalidPolicy, PolicyConfig, Problem};
pub use failure::{Classify, Outcome, RetryAfter, Standard};
pub use observe::{CircuitChange, Observer, Refusal};
pub use policy::{
    EffectivePolicy, Explained, Explanation, Layer, Policy, PolicyError, PolicyLayers, Scope,
};
pub use registry::{BulkheadStatus, CircuitStatus, PolicyRegistry, PolicyRegistryBuilder};
pub use retry::RetryExhausted;
pub use stack::{Describe, PolicyLayer, PolicyService, Undescribed};
pub use target::Target;
pub use timeout::{DeadlineTooShort, Elapsed};
