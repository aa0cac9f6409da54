//! The vocabulary that every Trunkline crate shares: errors, context, metadata, ids, secrets, clock, lifecycle, health
//! and the names of metrics and spans. It performs no I/O.
//!
//! Most users meet these types through the `trunkline` facade. Depend on this crate directly when you write a backend
//! (a broker, a registry, an event store) and do not want the rest.
//!
//! ```
//! use std::time::Duration;
//! use trunkline_core::{Context, Error, ErrorKind, Retry};
//!
//! # async fn call() -> trunkline_core::Result<()> { Ok(()) }
//! let context = Context::new().with_timeout(Duration::from_secs(2));
//! assert!(context.remaining().is_some());
//!
//! let error = Error::unavailable("connection refused")
//!     .with_component("message_broker_default")
//!     .with_operation("publish")
//!     .with_retry(Retry::Safe);
//! assert_eq!(error.kind(), ErrorKind::Unavailable);
//! ```
//!
//! # Concepts
//! - [`Error`]: one opaque, word-sized error across every backend trait. The place that knows whether a retry is safe
//!   says so ([`Retry`]); nobody guesses from text.
//! - [`Context`]: correlation id, W3C trace, deadline, identity and baggage as one cheap value. It is read from the task
//!   only at the edges and carried explicitly below them.
//! - [`Lifecycle`] and [`Health`]: how a component starts, drains, stops, and says how it is.
//! - [`task`]: tasks have a name and belong to a scope that a shutdown awaits, or to a call whose context they carry.

mod clock;
mod connection;
mod context;
pub mod duration;
mod error;
pub mod health;
mod id;
mod lifecycle;
mod metadata;
pub mod names;
mod problem;
mod secret;
pub mod size;
pub mod task;

use std::future::Future;
use std::pin::Pin;

pub use clock::{Clock, ManualClock, SharedClock, SystemClock, Timestamp, TimestampError};
pub use connection::{Connection, ConnectionUrl, ParseConnectionError};
pub use context::{
    Baggage, Carrier, Context, CorrelationFormat, CorrelationId, Identity, Propagation, SpanId,
    TraceContext, TraceId,
};
pub use error::{Error, ErrorKind, Origin, Report, Retry};
pub use health::{ComponentStatus, Health, HealthDocument, Status};
pub use id::Id;
pub use lifecycle::{AnyLifecycle, Lifecycle};
pub use metadata::{Metadata, MetadataValue};
pub use problem::Problem;
pub use secret::Secret;

/// A result whose error is [`Error`] unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A boxed future, as the erased twins of the traits return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Any error, as libraries hand it on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
