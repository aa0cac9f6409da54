//! RabbitMQ over AMQP 0-9-1: topics, groups and queues of [`trunkline_messaging`], and its own exchanges, queues and
//! bindings besides.
//!
//! The driver is lapin, with its own recovery off: [`trunkline_messaging::supervisor`] is the one owner of
//! reconnection. What a connection carries (channels, confirm mode, prefetch, topology, consumers) is made anew for each
//! generation of it. See the README for what maps to what.

mod broker;
mod config;
mod consumer;
mod error;
mod foreign;
mod lag;
mod line;
mod link;
mod names;
mod native;
mod peek;
mod pool;
mod publisher;
mod refused;
mod runtime;
mod tls;
mod topology;
mod wire;

pub use broker::RabbitMqBroker;
pub use config::{AuthMechanism, QueueType, RabbitMqConfig};
pub use native::{Arguments, Binding, Exchange, ExchangeKind, Queue, QueueStatus};
pub use refused::Refused;
