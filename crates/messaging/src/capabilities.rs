//! What a broker can do, checked when it is configured instead of found out in production.

use serde::Serialize;
use trunkline_core::{Error, Result};

/// In which order a group gets messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderingGuarantee {
    /// None.
    None,
    /// Messages of one key, one after the other; the next only when the one before is settled.
    PerKey,
}

/// What a broker can do. What is not listed here, every broker can: publish with a confirm, subscribe, settle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// A confirmed message survives a restart of the broker.
    pub durable: bool,
    /// Other processes see the messages.
    pub shared: bool,
    /// Consumers of one group compete; groups get a copy each. With `redelivery` a group collects messages while its members
    /// are away, or busy; without it they are lost to it.
    pub groups: bool,
    /// `*` and `#` in subscriptions.
    pub wildcards: bool,
    /// Named queues beside topics.
    pub queues: bool,
    /// A message that is not settled comes again: at-least-once. Without it: at most once.
    pub redelivery: bool,
    /// The attempt of a delivery is counted by the broker, across consumers and restarts.
    pub attempts: bool,
    /// A settlement may ask for redelivery after a delay.
    pub delayed_redelivery: bool,
    /// A message may be published for later.
    pub delayed_publish: bool,
    /// A message may expire.
    pub expiry: bool,
    /// An unroutable message can be refused.
    pub mandatory: bool,
    /// A new group may start at earlier messages.
    pub replay: bool,
    /// The lease of a delivery can be extended while its handler runs.
    pub lease_extension: bool,
    /// A delivery can be acknowledged and another message published in one step, both or neither.
    pub atomic_forward: bool,
    /// Stored messages can be looked at and removed without consuming them.
    pub browse: bool,
    /// Of `browse`, the half that any queue allows: messages that wait in a queue can be looked at and removed. Those in the
    /// hands of consumers are not seen, no consumer gets the others meanwhile, looking may count as a delivery, and queues
    /// are not listed. A broker claims one of the two.
    pub peek: bool,
    /// How many messages wait for a group or in a queue can be asked; see [`MessageBroker::lag`](crate::MessageBroker::lag).
    pub lag: bool,
    /// Order within a group.
    pub ordering: OrderingGuarantee,
    /// Largest message in bytes, counted as [`Message::size`](crate::Message::size).
    pub max_message_size: Option<usize>,
}

impl Capabilities {
    /// A broker that can do nothing but the least.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            durable: false,
            shared: false,
            groups: false,
            wildcards: false,
            queues: false,
            redelivery: false,
            attempts: false,
            delayed_redelivery: false,
            delayed_publish: false,
            expiry: false,
            mandatory: false,
            replay: false,
            lease_extension: false,
            atomic_forward: false,
            browse: false,
            peek: false,
            lag: false,
            ordering: OrderingGuarantee::None,
            max_message_size: None,
        }
    }

    /// Fails unless the capability is there.
    ///
    /// # Errors
    /// `Unsupported`, naming the broker and what it lacks.
    pub fn require(&self, has: bool, kind: &str, what: &str) -> Result<()> {
        if has {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "the {kind} broker cannot do this: {what}"
        )))
    }
}
