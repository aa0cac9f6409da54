//! What the clients that `#[service_interface]` generates are made of.
//!
//! The attribute writes a struct that holds a [`Caller`], and for each method of the trait a function that fills a
//! [`Making`] and gives a [`Call`]: `users.get_user(7).await`, or `users.get_user(7).timeout(SECOND).await`. All that is
//! done at run time is here, so that what is generated stays short, and so that it can be read and tested.

mod answer;
mod call;
mod caller;
mod check;
mod fault;
mod making;
pub mod mock;
pub mod openapi;
mod operation;
mod parameter;
#[cfg(feature = "validate")]
pub mod validate;
mod wire;

pub use answer::{Answer, Maybe, Nothing, Raw, Refusal, Streamed, Value};
pub use call::Call;
#[doc(hidden)]
pub use call::{Outcome, settle};
pub use caller::{Caller, ServiceClient};
pub use check::Check;
pub use making::Making;
pub use operation::{Interface, Operation};
pub use parameter::Parameter;
pub use wire::{Readable, Sendable};

pub(crate) use answer::is_msgpack;
pub(crate) use fault::{decode_json, decode_msgpack};
#[doc(hidden)]
pub use serde_json::{Value as JsonValue, json};
