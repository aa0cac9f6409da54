//! Messaging: the [`MessageBroker`] contract and everything that is built above it once, for every broker.
//!
//! A backend moves bytes with headers and settles deliveries. Retry, dead letters, deduplication, codecs and tracing
//! live here, above the trait, so that they mean the same on every broker. Use this crate directly to write a backend;
//! applications use the `trunkline` facade.

mod broker;
mod capabilities;
mod config;
mod delivery;
mod erased;
pub mod inbox;
pub mod memory;
mod message;
mod subscription;
mod topic;

pub use broker::{Browse, BrowsePage, MessageBroker, QueueInfo, StoredMessage};
pub use capabilities::{Capabilities, OrderingGuarantee};
pub use config::{ConsumePolicy, MessageBrokerConfig, PublishPolicy, TopicPolicy};
pub use delivery::{Delivery, DeliveryInfo, Settle, Settlement};
pub use erased::AnyBroker;
pub use message::{Message, Publish, Receipt, Routed};
pub use subscription::{Start, Subscribe, Subscription, SubscriptionState};
pub use topic::{Destination, Source, TopicName, TopicPattern};
