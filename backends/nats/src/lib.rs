//! Messaging over NATS.
//!
//! Two brokers: [`JetStreamBroker`] keeps messages until they are done (at least once, groups, queues, replay), and
//! [`CoreNatsBroker`] hands them to who listens at the moment (at most once). Who asks by the neutral settings of any broker
//! gets JetStream unless the option `mode` says `core`; [`open`] does that.
//!
//! What maps to what, what is guaranteed and what is not: the README of this crate.

mod config;
mod core_nats;
mod error;
mod jetstream;
mod link;
mod names;
mod replies;
mod tls;
mod wire;

pub use config::{Mode, NatsConfig};
pub use core_nats::CoreNatsBroker;
pub use error::JetStreamError;
pub use jetstream::JetStreamBroker;

use trunkline_core::Result;
use trunkline_messaging::{AnyBroker, MessageBrokerConfig};

/// The broker that the settings mean; connects nothing.
///
/// ```
/// use trunkline_messaging::{MessageBroker, MessageBrokerConfig};
///
/// let config = MessageBrokerConfig::from_url("nats://localhost?mode=core")?;
/// assert!(!trunkline_nats::open(&config)?.capabilities().durable);
/// # Ok::<(), trunkline_core::Error>(())
/// ```
///
/// # Errors
/// `Config` when an option is unknown or wrong.
pub fn open(config: &MessageBrokerConfig) -> Result<AnyBroker> {
    let settings = NatsConfig::from_neutral(config)?;
    Ok(match settings.mode {
        Mode::Jetstream => AnyBroker::new(JetStreamBroker::new(settings)),
        Mode::Core => AnyBroker::new(CoreNatsBroker::new(settings)),
    })
}
