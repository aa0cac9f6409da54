//! Redis as a message broker: Streams, with groups, leases, delays and order per key, that lose nothing; and Pub/Sub, which
//! passes on to whoever listens.
//!
//! For services that have a Redis already. Who needs a log of months, or more messages than fit into memory, is better
//! served by another broker: Redis keeps everything in memory.
//!
//! ```no_run
//! use trunkline_messaging::{Destination, Message, MessageBroker, Publish, Subscribe, TopicName};
//! use trunkline_redis::{RedisConfig, open};
//!
//! # async fn example() -> trunkline_core::Result<()> {
//! let broker = open(&RedisConfig::from_url("redis://localhost:6379/0")?.into())?;
//! broker.connect().await?;
//! let topic = TopicName::new("order.created")?;
//! let mut mails = broker.subscribe(Subscribe::topics(topic.clone()).with_group("mail")).await?;
//! broker.publish(Publish::new(Destination::Topic(topic), Message::new("{}"))).await?;
//! if let Some(delivery) = mails.next().await {
//!     delivery.ack().await?;
//! }
//! # Ok(()) }
//! ```
//!
//! # Guarantees
//! With Streams, a confirmed message is delivered at least once to every group, also when server, connection or consumer die at any
//! moment. What survives the death of the *server* is up to its own settings: with `appendonly yes` what was confirmed
//! survives the death of its process, with `appendfsync always` a power cut too. There is one owner of reconnection, the
//! supervisor of `trunkline-messaging`; the driver repairs nothing.

mod cache;
mod config;
mod error;
mod inbox;
mod link;
mod packed;
mod pubsub;
mod script;
mod streams;
mod wire;

use trunkline_core::Result;
use trunkline_messaging::{AnyBroker, MessageBroker, MessageBrokerConfig};

pub use cache::RedisCacheTier;
pub use config::{Mode, RedisConfig};
pub use inbox::RedisInbox;
pub use pubsub::RedisPubSubBroker;
pub use streams::RedisBroker;

/// The broker of these settings; connects nothing.
///
/// # Errors
/// `Config` when the settings are wrong; the message names every problem.
pub fn open(config: &MessageBrokerConfig) -> Result<AnyBroker> {
    let config = RedisConfig::from_neutral(config)?;
    match config.mode {
        Mode::Streams => Ok(RedisBroker::new(config)?.erase()),
        Mode::PubSub => Ok(RedisPubSubBroker::new(config)?.erase()),
    }
}
