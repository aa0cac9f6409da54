//! Timeout, retry with budget, hedging, circuit breaker, bulkhead and fallback: alone, as tower layers, from configuration.
//!
//! For everybody who calls something that may fail: the HTTP client, the message router and the gateway of Trunkline use
//! exactly these policies. Most users meet them through the `trunkline` facade and its configuration. Use this crate by
//! itself when you want one policy, or a tower layer, without the rest. Of caching it has the settings and the tier that
//! processes share; answers are kept by `trunkline-http`.
//!
//! ```
//! use std::time::Duration;
//! use trunkline_core::{Context, Error, Retry};
//! use trunkline_resilience::{Call, Layer, Policy, PolicyConfig, PolicyLayers};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! let mut config = PolicyConfig::default();
//! config.retry.delay = Some(Duration::from_millis(1));
//! config.circuit_breaker.failure_threshold = Some(3);
//! let settings = PolicyLayers::new()
//!     .push(Layer::Service("services.users".into()), config, |_| None)
//!     .resolve()?;
//! let policy = Policy::new("users", settings.policy);
//!
//! let call = Call::new(&Context::current_or_new()).repeatable(true);
//! let name = policy
//!     .run(call, |attempt| async move {
//!         if attempt.number == 1 {
//!             return Err(Error::unavailable("connection refused").with_retry(Retry::Safe));
//!         }
//!         Ok("Ada")
//!     })
//!     .await?;
//! assert_eq!(name, "Ada");
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! - A [`Policy`] carries calls through **fallback → retry and hedge (with budget) → breaker → bulkhead → attempt timeout**, in
//!   this order from outside to inside, all of it within the smaller of the caller's deadline and the total timeout.
//!   [`PolicyLayer`] does the same for a tower service. Each part says in its module why it stands where it does.
//! - [`Classify`] judges results, `Ok`s too. [`Standard`] knows [`trunkline_core::Error`], which says itself whether a
//!   repetition is safe. What may have been processed is repeated only where the [`Call`] is repeatable.
//! - [`PolicyConfig`] is one layer of configuration, [`PolicyLayers`] merges them field by field into an
//!   [`EffectivePolicy`] and keeps the origin of each value.
//! - A [`PolicyRegistry`] keeps the state by [`Target`] across reloads of the configuration, bounded in number, and shows
//!   it ([`PolicyRegistry::circuit_states`]). An [`Observer`] hears of changes of circuits, retries and refusals.
//!
//! # Guarantees
//! - Permits, places and reservations are guards: they come back on drop, panic and cancellation. A half-open circuit
//!   whose probes never report opens itself to the next probe after a lease.
//! - What is refused here (open circuit, full bulkhead, too little time) is neither a success nor a failure, and says
//!   that nothing was sent. It ends the call at once: a refusal is there to be quick.
//! - No attempt begins after the deadline, nobody waits for one that could not begin, and nothing outlives the deadline
//!   by more than the runtime's timer resolution (1 ms).
//! - Retries of all callers of a destination together stay within its budget; those under way are never cut off by it.
//! - A [`Breaker`](breaker::Breaker) alone, closed and in the default mode, takes no lock for a call, reads no clock and
//!   writes nothing that threads share. A whole [`Policy`] reads the clock, and counts the call for its budget and its
//!   bulkhead.
//!
//! Not guaranteed: that an attempt which was cut off has not been processed by the other side.
//!
//! This crate has no Cargo features. It needs a Tokio runtime with time enabled.

pub mod breaker;
pub mod bulkhead;
pub mod cache;
mod call;
pub mod chaos;
pub mod concurrency;
pub mod config;
mod declared;
mod failure;
pub mod fallback;
pub mod health;
pub mod hedge;
#[cfg(all(test, loom))]
mod loom_atomics;
mod observe;
mod policy;
pub mod ratelimit;
mod registry;
pub mod retry;
mod stack;
mod sync;
mod target;
pub mod timeout;
pub mod versions;
mod window;

pub use breaker::CircuitOpen;
pub use bulkhead::BulkheadFull;
pub use call::{Attempt, Call};
pub use chaos::InjectedFault;
pub use concurrency::{Overloaded, Priority};
pub use config::{InvalidPolicy, PolicyConfig, Problem};
pub use declared::Declared;
pub use failure::{Classify, Fallible, Outcome, RetriedBelow, RetryAfter, Standard, retry_after};
pub use observe::{CircuitChange, Observer, Refusal};
pub use policy::{
    Current, EffectivePolicy, Explained, Explanation, Layer, Policy, PolicyError, PolicyLayers,
    Scope,
};
pub use ratelimit::RateLimited;
pub use registry::{
    BulkheadStatus, CircuitStatus, ConcurrencyStatus, PolicyRegistry, PolicyRegistryBuilder,
};
pub use retry::RetryExhausted;
pub use stack::{Describe, PolicyLayer, PolicyService, Undescribed};
pub use target::Target;
pub use timeout::{DeadlineTooShort, Elapsed};
