//! The brokers on real servers that the proofs about messaging are about.

mod look;
mod settle;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use trunkline::messaging::{AnyBroker, MessageBrokerConfig};
use trunkline_testing::faults::Relay;
use trunkline_testing::servers::{KAFKA, Launch, NATS, RABBITMQ, REDIS, Server, System, kafka};

/// A broker, and the server that it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    /// As the tables call it.
    pub(super) name: &'static str,
    system: &'static System,
    /// Arguments without which the server would confirm what it has not yet written down.
    arguments: &'static [&'static str],
    /// Makes the server send its clients over the link, where it tells them itself where to go.
    relayed: fn(&mut Server, &Relay) -> Result<()>,
    /// Added to the address, as `?name=value`.
    options: &'static str,
    /// Whether what was declared survives the death of the server.
    pub(super) settled: fn(&Stage) -> Result<bool>,
    /// What the server knows of messages at these positions, a line each, for when some are missing.
    pub(super) look: fn(&Stage, &[u64]) -> Result<Vec<String>>,
}

pub(super) static ON_REDIS: Subject = Subject {
    name: "Redis Streams",
    system: &REDIS,
    arguments: &["--appendfsync", "always"],
    relayed: |_, _| Ok(()),
    options: "",
    settled: |_| Ok(true),
    look: |_, _| Ok(Vec::new()),
};

pub(super) static ON_NATS: Subject = Subject {
    name: "NATS JetStream",
    system: &NATS,
    arguments: &[],
    relayed: |_, _| Ok(()),
    options: "",
    settled: |_| Ok(true),
    look: look::nats,
};

pub(super) static ON_RABBITMQ: Subject = Subject {
    name: "RabbitMQ",
    system: &RABBITMQ,
    arguments: &[],
    relayed: |_, _| Ok(()),
    options: "",
    settled: settle::rabbitmq,
    look: look::rabbitmq,
};

pub(super) static ON_KAFKA: Subject = Subject {
    name: "Kafka",
    system: &KAFKA,
    arguments: &[],
    relayed: |server, link| {
        server.stop()?;
        kafka::advertise(server.site(), link.address())?;
        Ok(server.restart()?)
    },
    // Work for all members, and for those that come.
    options: "?partitions=8",
    settled: |_| Ok(true),
    look: |_, _| Ok(Vec::new()),
};

/// All of them.
pub(super) static ALL: &[&Subject] = &[&ON_RABBITMQ, &ON_KAFKA, &ON_REDIS, &ON_NATS];

/// The server, and a link to it that fails on demand. All clients go over the link.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) link: Arc<Relay>,
    pub(super) url: String,
}

impl Stage {
    pub(super) fn set(subject: &Subject) -> Result<Self> {
        let mut server = Launch::new(subject.system)
            .arguments(subject.arguments)
            .start()?;
        let link = Relay::to(server.address()).context("cannot relay")?;
        let [direct, relayed] = [server.address(), link.address()].map(|at| at.to_string());
        (subject.relayed)(&mut server, &link)?;
        let url = server.url().replace(&direct, &relayed) + subject.options;
        let link = Arc::new(link);
        Ok(Self { server, link, url })
    }

    pub(super) fn broker(&self) -> Result<AnyBroker> {
        let config = MessageBrokerConfig::from_url(&self.url)?;
        Ok(trunkline::backends::open_broker(&config)?)
    }
}
