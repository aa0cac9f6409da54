//! Who speaks with Trunkline, over which system, and what it cannot say.

use trunkline_testing::servers::{KAFKA, NATS, RABBITMQ, REDIS, System};

use super::cases::{BINARY_HEADER, REPEATED};
use crate::peers::python::version_of;

/// A client that is not ours.
pub(super) struct Client {
    pub(super) name: &'static str,
    pub(super) script: &'static str,
    /// Its package on PyPI, whose version is shown.
    package: Option<&'static str>,
    pub(super) system: &'static System,
    /// More of the URL for Trunkline.
    pub(super) options: &'static str,
    /// Where that client finds a topic: what stands before its name.
    place: &'static str,
    /// What stands before the attributes of CloudEvents on the wire.
    pub(super) attributes: &'static str,
    /// Bindings of the package `cloudevents` in which it writes events; it reads by the first one.
    pub(super) bindings: &'static [&'static str],
    /// Cases that it cannot do, and why.
    lacks: &'static [(&'static str, &'static str)],
    /// Whether headers may be numbers.
    pub(super) typed_headers: bool,
}

const OF_NATS: &[(&str, &str)] = &[
    (REPEATED, "nats-py has each name once"),
    (BINARY_HEADER, "headers of NATS are text"),
];

pub(super) static CLIENTS: &[Client] = &[
    Client {
        name: "RabbitMQ, pika",
        script: "with_pika.py",
        package: Some("pika"),
        system: &RABBITMQ,
        options: "",
        place: "",
        attributes: "cloudEvents:",
        bindings: &["amqp", "rabbitmq"],
        lacks: &[],
        typed_headers: true,
    },
    Client {
        name: "Kafka, confluent-kafka",
        script: "with_confluent_kafka.py",
        package: Some("confluent-kafka"),
        system: &KAFKA,
        options: "",
        place: "",
        attributes: "ce_",
        bindings: &["kafka"],
        lacks: &[],
        typed_headers: false,
    },
    Client {
        name: "Kafka, kcat",
        script: "with_kcat.py",
        package: None,
        system: &KAFKA,
        options: "",
        place: "",
        attributes: "ce_",
        bindings: &[],
        lacks: &[(BINARY_HEADER, "kcat writes and shows text")],
        typed_headers: false,
    },
    Client {
        name: "Redis Streams, redis-py",
        script: "with_redis.py",
        package: Some("redis"),
        system: &REDIS,
        options: "",
        place: "{trunkline}:topic:",
        attributes: "ce-",
        bindings: &["rabbitmq"],
        lacks: &[],
        typed_headers: false,
    },
    Client {
        name: "NATS JetStream, nats-py",
        script: "with_nats.py",
        package: Some("nats-py"),
        system: &NATS,
        options: "",
        place: "jetstream:topics.",
        attributes: "ce-",
        bindings: &["http"],
        lacks: OF_NATS,
        typed_headers: false,
    },
    Client {
        name: "core NATS, nats-py",
        script: "with_nats.py",
        package: Some("nats-py"),
        system: &NATS,
        options: "?mode=core",
        place: "core:",
        attributes: "ce-",
        bindings: &["http"],
        lacks: OF_NATS,
        typed_headers: false,
    },
];

impl Client {
    /// Its name with its version.
    pub(super) fn title(&self) -> String {
        match self.package {
            Some(package) => format!("{} {}", self.name, version_of(package)),
            None => self.name.to_owned(),
        }
    }

    pub(super) fn place(&self, topic: &str) -> String {
        format!("{}{topic}", self.place)
    }

    /// Why it cannot do a case, if it cannot.
    pub(super) fn lacks(&self, case: &str) -> Option<&'static str> {
        let known = self.lacks.iter().find(|(name, _)| *name == case);
        known.map(|(_, why)| *why)
    }
}
