//! The programs of the peers: each publishes what it is told, line by line, or consumes.
//!
//! Called with `publisher|consumer`, the system, its address, the name of the queue, the file for what is handled, and the
//! number of the process. A publisher says `ready`, takes `key seq` from its input, and says `ok key seq` when the broker
//! has confirmed it, `failed key seq` when it has not; a consumer says `ready` when it consumes, appends
//! `number key seq` to the file and acknowledges after that. Both leave in good order when their input ends.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use tempfile::TempDir;

use crate::peers::go;
use crate::peers::python::{Python, version_of};
use crate::peers::rust;
use crate::proofs::brokers::Subject;

/// The queue, topic or stream.
const NAME: &str = "chaos";
/// As many as Trunkline's topic has on Kafka.
const PARTITIONS: i32 = 8;

const WATERMILL: &[(&str, &str)] = &[
    (
        "go.mod",
        include_str!("../../../questions/messaging/watermill/go.mod"),
    ),
    (
        "go.sum",
        include_str!("../../../questions/messaging/watermill/go.sum"),
    ),
    ("main.go", include_str!("watermill/main.go")),
    ("systems.go", include_str!("watermill/systems.go")),
];

const BARE: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("bare/Cargo.toml")),
    ("Cargo.lock", include_str!("bare/Cargo.lock")),
    ("main.rs", include_str!("bare/main.rs")),
    ("kafka.rs", include_str!("bare/kafka.rs")),
    ("nats.rs", include_str!("bare/nats.rs")),
    ("rabbitmq.rs", include_str!("bare/rabbitmq.rs")),
    ("redis.rs", include_str!("bare/redis.rs")),
];

const RUST_STREAM: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("ruststream/Cargo.toml")),
    ("Cargo.lock", include_str!("ruststream/Cargo.lock")),
    ("main.rs", include_str!("ruststream/main.rs")),
    ("kafka.rs", include_str!("ruststream/kafka.rs")),
    ("nats.rs", include_str!("ruststream/nats.rs")),
    ("rabbitmq.rs", include_str!("ruststream/rabbitmq.rs")),
    ("redis.rs", include_str!("ruststream/redis.rs")),
];

/// Watermill's part of `go.mod`, as it is written there.
const WATERMILL_IN_GO_MOD: &str = "github.com/ThreeDotsLabs/watermill ";

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Publisher,
    Consumer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publisher => "publisher",
            Self::Consumer => "consumer",
        })
    }
}

/// A peer that can be run.
#[derive(Debug)]
pub(super) struct Program {
    /// As the table calls it.
    pub(super) name: String,
    words: Vec<PathBuf>,
    /// Where its script is, if it has one.
    _directory: Option<TempDir>,
}

impl Program {
    fn of(name: String, words: Vec<PathBuf>) -> Self {
        Self {
            name,
            words,
            _directory: None,
        }
    }

    /// A call of it.
    pub(super) fn command(&self, role: Role, url: &str, handled: &Path, number: u32) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map_or(Path::new(""), PathBuf::as_path));
        command
            .args(words)
            .arg(role.to_string())
            .args([system(url), plain(url), NAME])
            .arg(handled)
            .arg(number.to_string())
            // The last line of what it complains of says what it is.
            .env("RUST_BACKTRACE", "0");
        command
    }

    /// Makes what its documentation takes for granted.
    pub(super) fn prepare(&self, url: &str) -> Result<()> {
        if system(url) != "kafka" {
            return Ok(());
        }
        let servers = plain(url).trim_start_matches("kafka://");
        let admin: AdminClient<_> = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .create()?;
        let topic = NewTopic::new(NAME, PARTITIONS, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let made = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))?;
        for made in made {
            made.map_err(|(topic, error)| anyhow::anyhow!("cannot create {topic}: {error}"))?;
        }
        Ok(())
    }
}

/// `nats` of `nats://…`.
fn system(url: &str) -> &str {
    url.split_once("://")
        .map_or(url, |(scheme, _)| match scheme {
            "amqp" => "rabbitmq",
            scheme => scheme,
        })
}

/// Without options that only Trunkline knows.
fn plain(url: &str) -> &str {
    url.split_once('?').map_or(url, |(plain, _)| plain)
}

/// FastStream.
fn fast_stream() -> Result<Program> {
    let python = Python::with_packages()?;
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("peer.py");
    fs::write(&script, include_str!("fast_stream.py"))?;
    let python = python.command(&script);
    let name = format!("FastStream {}", version_of("faststream"));
    Ok(Program {
        name,
        words: vec![python.get_program().into(), script],
        _directory: Some(directory),
    })
}

/// Watermill; `None` where there is no Go.
fn watermill() -> Result<Option<Program>> {
    let program = go::program("watermill-chaos", WATERMILL)?;
    let lines = WATERMILL.iter().flat_map(|(_, text)| text.lines());
    let version = lines
        .filter_map(|line| line.trim().strip_prefix(WATERMILL_IN_GO_MOD))
        .next();
    let name = format!("Watermill {}", version.unwrap_or("of no known version"));
    Ok(program.map(|program| Program::of(name, vec![program])))
}

/// The bare driver of a broker; `None` where there is no Cargo.
fn bare(subject: &Subject) -> Result<Option<Program>> {
    let (feature, driver) = match subject.name {
        "RabbitMQ" => ("rabbitmq", "lapin"),
        "Kafka" => ("kafka", "rdkafka"),
        "Redis Streams" => ("redis", "redis"),
        _ => ("nats", "async-nats"),
    };
    rust("bare", feature, BARE, driver)
}

/// RustStream; `None` where there is no Cargo.
fn rust_stream(subject: &Subject) -> Result<Option<Program>> {
    let (feature, broker) = match subject.name {
        "RabbitMQ" => ("rabbitmq", "ruststream-lapin"),
        "Kafka" => ("kafka", "ruststream-rdkafka"),
        "Redis Streams" => ("redis", "ruststream-fred"),
        _ => ("nats", "ruststream-nats"),
    };
    rust("ruststream-peer", feature, RUST_STREAM, broker)
}

fn rust(
    program: &str,
    feature: &str,
    sources: &[(&str, &str)],
    package: &str,
) -> Result<Option<Program>> {
    let program = rust::program(program, feature, sources)?;
    let lines = sources.iter().flat_map(|(_, text)| text.lines());
    let named = lines.filter_map(|line| {
        line.strip_prefix(package)?
            .strip_prefix(" = { version = \"=")
    });
    let version = named.filter_map(|rest| rest.split('"').next()).next();
    let name = format!("{package} {}", version.unwrap_or("of no known version"));
    Ok(program.map(|program| Program::of(name, vec![program])))
}

/// All peers, in the order of the table; `None` where what they are written in is not installed.
pub(super) fn all(subject: &Subject) -> Vec<(&'static str, Result<Option<Program>>)> {
    vec![
        ("the bare driver", bare(subject)),
        ("RustStream", rust_stream(subject)),
        ("FastStream", fast_stream().map(Some)),
        ("Watermill", watermill()),
    ]
}
