//! Messaging: the [`MessageBroker`] contract and everything that is built above it once, for every broker.
//!
//! A backend moves bytes with headers and settles deliveries. Retry, dead letters, deduplication, codecs and tracing
//! live here, above the trait, so that they mean the same on every broker. Use this crate directly to write a backend;
//! applications use the `trunkline` facade.

mod broker;
mod capabilities;
pub mod codec;
mod config;
mod delivery;
mod erased;
pub mod inbox;
pub mod memory;
mod message;
mod policies;
mod prefix;
mod publisher;
mod subscription;
mod surroundings;
mod topic;
mod typed;

pub use broker::{Browse, BrowsePage, MessageBroker, QueueInfo, StoredMessage};
pub use capabilities::{Capabilities, OrderingGuarantee};
pub use config::{ConsumePolicy, MessageBrokerConfig, PublishPolicy, TopicPolicy};
pub use delivery::{Delivery, DeliveryInfo, Settle, Settlement};
pub use erased::AnyBroker;
pub use message::{Message, Publish, Receipt, Routed};
pub use policies::{ConsumeSettings, PublishSettings, SamePolicies, TopicPolicies};
pub use prefix::Prefix;
pub use publisher::{Outgoing, Publisher};
pub use subscription::{Start, Subscribe, Subscription, SubscriptionState};
pub use topic::{Destination, Source, TopicName, TopicPattern};
pub use typed::{Accepts, Listen, Queue, To, Topic, Typed, Untyped};
