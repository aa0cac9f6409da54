//! Messaging: the [`MessageBroker`] contract and everything that is built above it once, for every broker.
//!
//! A backend moves bytes with headers and settles deliveries. Retry, dead letters, deduplication, codecs and tracing
//! live here, above the trait, so that they mean the same on every broker. Use this crate directly to write a backend;
//! applications use the `trunkline` facade.

mod broker;
mod capabilities;
pub mod codec;
mod config;
mod dead_letters;
mod delivery;
mod erased;
pub mod inbox;
pub mod memory;
mod message;
mod messaging;
mod patterns;
mod policies;
mod prefix;
mod publisher;
mod router;
mod subscription;
mod surroundings;
mod topic;
mod typed;

pub use broker::{Browse, BrowsePage, MessageBroker, QueueInfo, StoredMessage};
pub use capabilities::{Capabilities, OrderingGuarantee};
pub use config::{ConsumePolicy, MessageBrokerConfig, PublishPolicy, TopicPolicy};
pub use dead_letters::{DeadLetter, DeadLetters, LetterFilter, LetterPage, Replay, ReplayReport};
pub use delivery::{Delivery, DeliveryInfo, Settle, Settlement};
pub use erased::AnyBroker;
pub use message::{Message, Publish, Receipt, Routed};
pub use messaging::{Messaging, MessagingBuilder};
pub use patterns::{Envelope, EventBus, Requester};
pub use policies::{ConsumeSettings, PublishSettings, SamePolicies, TopicPolicies};
pub use prefix::Prefix;
pub use publisher::{Outgoing, Publisher};
pub use router::{
    AnyMiddleware, Attempt, Extract, Handled, Handler, HandlerError, Headers, Incoming, IntoAnswer,
    IntoOutcome, Listening, MessageKey, Middleware, Next, Router, Subscribing, ViaPart, ViaPayload,
};
pub use subscription::{Start, Subscribe, Subscription, SubscriptionState};
pub use topic::{Destination, Source, TopicName, TopicPattern};
pub use typed::{Accepts, Listen, Queue, To, Topic, Typed, Untyped};
