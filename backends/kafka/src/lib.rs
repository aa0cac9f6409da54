//! Messaging over Kafka.
//!
//! [`KafkaBroker`] publishes by an idempotent producer and waits until all replicas have a message; it consumes in groups,
//! commits what is done up to the first message that is not, and gives partitions up in good order. The driver is librdkafka,
//! which reconnects by itself and is watched here.
//!
//! What maps to what, what is guaranteed and what is not: the README of this crate.
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `ssl` | | TLS and `SCRAM`, by OpenSSL of the machine, whose headers must be there |

mod broker;
mod browse;
mod catalog;
mod config;
mod delays;
mod error;
mod hub;
mod link;
mod names;
mod note;
mod publish;
mod topics;
mod wire;

pub use broker::KafkaBroker;
pub use config::{ConsumerConfig, KafkaConfig, ProducerConfig};
pub use topics::{TopicDescription, TopicPlan};
