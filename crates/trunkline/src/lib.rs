//! How services talk to each other in Rust: one library, one configuration, one binary.
//!
//! A service gets resilient HTTP calls, messaging, service discovery, an event store, logs and metrics from one
//! [`CommunicationManager`], and starts with nothing installed. It is for backend engineers who would otherwise glue an
//! HTTP client, a broker's driver, a breaker and a retry crate together by hand. It is not a web framework (it serves
//! your axum router) and not a workflow engine.
//!
//! ```no_run
//! use trunkline::{CommunicationConfig, CommunicationManager};
//!
//! #[tokio::main]
//! async fn main() -> trunkline::Result<()> {
//!     // File < profile < environment; every problem reported at once.
//!     let config = CommunicationConfig::load()?;
//!     CommunicationManager::new(config)
//!         .lifespan(async |manager| {
//!             manager.publish_message("default", "order.created", &serde_json::json!({ "id": 1 })).await?;
//!             manager.until_shutdown().await;
//!             Ok(())
//!         })
//!         .await
//! }
//! ```
//!
//! # Concepts
//! - [`CommunicationManager`]: what there is by name, started in order, drained and stopped in the reverse order.
//! - [`Context`]: correlation id, trace, deadline; it travels through HTTP and messages by itself.
//! - Policies ([`resilience`]): timeout, retry with budget, circuit breaker, bulkhead, fallback, the same on every path.
//! - [`messaging`], [`discovery`], [`events`]: contracts that every backend fulfils, checked by conformance suites.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `http` | yes | HTTP clients with policies |
//! | `macros` | yes | `#[service_interface]`: typed clients from a trait |
//! | `cache` | yes | HTTP clients keep answers: what says itself how long it holds, and what you give a time |
//! | `embedded` | yes | broker, registry, event store and inbox on local disk; supplies what is not configured |
//! | `validate` | | `#[service_interface(…, validate)]`: bodies and answers keep their rules (garde) |
//! | `graphql` | | GraphQL requests through the HTTP clients |
//! | `compression` | | gzip, br and zstd for the bodies of HTTP clients, gzip and zstd for messages |
//! | `protection` | | messages that are encrypted and signed |
//! | `protobuf` | | messages in Protocol Buffers, by the types that prost generates |
//! | `json-schema` | | messages that keep a JSON Schema, where they are published and where they are handled |
//! | `consul` | | service discovery by Consul |
//! | `dns` | | service discovery by DNS |
//! | `etcd` | | service discovery by etcd |
//! | `kubernetes` | | service discovery by Kubernetes |
//! | `redis` | | Redis Streams as a message broker, and a shared inbox |
//! | `nats` | | NATS as a broker: JetStream, core |
//! | `rabbitmq` | | RabbitMQ as a broker, and its exchanges, queues and bindings |
//! | `kafka` | | Kafka as a broker; builds librdkafka, with a C compiler and make |
//! | `kafka-ssl` | | the same with TLS and SCRAM: links OpenSSL |
//! | `server` | | the axum side: `serve`, context, deadlines, problem+json, idempotency keys |
//! | `gateway` | | the API gateway |
//! | `full` | | all of them but `kafka-ssl` |
//!
//! # Guarantees
//! Messages are delivered at least once, and handled once behind an inbox; messages of one key keep their order. What
//! was confirmed survives the death of any process. A request that may have been processed is sent again only when that
//! does no harm. Nothing global is installed over the application's own.

pub use trunkline_core::{
    Clock, ComponentStatus, Context, CorrelationId, Error, ErrorKind, Health, HealthDocument, Id,
    Metadata, Problem, Propagation, Result, Retry, Secret, Status, Timestamp, duration, task,
};
pub use trunkline_manager::*;

#[cfg(feature = "consul")]
pub use trunkline_consul as consul;
pub use trunkline_core as core;
pub use trunkline_discovery as discovery;
#[cfg(feature = "dns")]
pub use trunkline_dns as dns;
#[cfg(feature = "etcd")]
pub use trunkline_etcd as etcd;
pub use trunkline_events as events;
#[cfg(feature = "gateway")]
pub use trunkline_gateway as gateway;
#[cfg(feature = "http")]
pub use trunkline_http as http;
#[cfg(feature = "kubernetes")]
pub use trunkline_kubernetes as kubernetes;
#[cfg(feature = "macros")]
pub use trunkline_macros::service_interface;
pub use trunkline_messaging as messaging;
#[cfg(feature = "nats")]
pub use trunkline_nats as nats;
#[cfg(feature = "rabbitmq")]
pub use trunkline_rabbitmq as rabbitmq;

#[cfg(feature = "kafka")]
pub use trunkline_kafka as kafka;
#[cfg(feature = "redis")]
pub use trunkline_redis as redis;
pub use trunkline_resilience as resilience;
#[cfg(feature = "server")]
pub use trunkline_server as server;
#[cfg(feature = "embedded")]
pub use trunkline_sqlite as sqlite;
pub use trunkline_telemetry as telemetry;

#[cfg(feature = "macros")]
#[doc(hidden)]
pub mod __private;

#[cfg(all(doctest, feature = "full"))]
mod guide;
