#![allow(clippy::unwrap_used, reason = "test code")]
//! The `trunkline` command as its users meet it: the real binary, its streams and its exit codes.

mod asyncapi;
mod call;
mod config;
mod demo;
mod dlq;
mod gateway;
mod health_circuits;
#[cfg(any(feature = "rabbitmq", feature = "kafka"))]
mod message_brokers;
#[cfg(feature = "nats")]
mod nats;
mod place;
mod policy;
mod publish_subscribe;
#[cfg(feature = "redis")]
mod redis;
#[cfg(all(feature = "consul", feature = "etcd"))]
mod registries;
mod services;
mod upstream;
mod usage;
