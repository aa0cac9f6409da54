//! Timeout, retry with budget, circuit breaker, bulkhead and fallback: alone, as tower layers, from configuration.

pub mod breaker;
pub mod bulkhead;
pub mod config;
mod failure;
pub mod fallback;
mod observe;
mod policy;
pub mod retry;
mod sync;
mod target;
pub mod timeout;
mod window;

pub use breaker::CircuitOpen;
pub use bulkhead::BulkheadFull;
pub use config::{InvalidPolicy, PolicyConfig, Problem};
pub use failure::{Classify, Outcome, RetryAfter, Standard};
pub use observe::{CircuitChange, Observer, Refusal};
pub use policy::{EffectivePolicy, Explained, Explanation, Layer, PolicyLayers, Scope};
pub use retry::RetryExhausted;
pub use target::Target;
pub use timeout::{DeadlineTooShort, Elapsed};
