//! Publishing, consuming and the way there and back, beside the bare driver, FastStream and Watermill on the same server.
//!
//! Every peer has a queue of its own, declared by Trunkline, so that all are equally durable: a quorum queue, a topic of
//! Kafka, a stream. Every publish is persistent and waits for its confirm, with up to as many under way at a time as the
//! table says; every message is acknowledged after its handler. Ours does all it does in production: codec, context, headers,
//! policy, metrics. The bare driver does nothing of that, and is used as well as it can be: confirms are pipelined, deliveries
//! prefetched, acknowledgements sent in batches where the protocol has them.

mod ours;
mod peers;
mod raw;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use trunkline_testing::servers::{KAFKA, Launch, NATS, RABBITMQ, REDIS, System};

use self::peers::{FastStream, Watermill};
use crate::entry::{Entry, Options};
use crate::race::{Better, Race};
use crate::report::Report;

pub(super) static ON_RABBITMQ: Entry = Entry {
    name: "messaging-rabbitmq",
    about: "what does a message on RabbitMQ cost beside the bare driver, FastStream and Watermill?",
    run: |options| run(options, &BROKERS[0]),
};

pub(super) static ON_KAFKA: Entry = Entry {
    name: "messaging-kafka",
    about: "what does a message on Kafka cost beside the bare driver, FastStream and Watermill?",
    run: |options| run(options, &BROKERS[1]),
};

pub(super) static ON_REDIS: Entry = Entry {
    name: "messaging-redis",
    about: "what does a message on Redis Streams cost beside the bare driver, FastStream and Watermill?",
    run: |options| run(options, &BROKERS[2]),
};

pub(super) static ON_NATS: Entry = Entry {
    name: "messaging-nats",
    about: "what does a message on JetStream cost beside the bare driver, FastStream and Watermill?",
    run: |options| run(options, &BROKERS[3]),
};

/// Publishes that wait for their confirm, and deliveries that wait for their acknowledgement.
const UNDER_WAY: usize = 256;
/// Between two messages that go there and back, so that the acknowledgement of one does not hold up the next: the bare driver
/// can wait for its own, the others cannot tell when theirs has arrived.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes of the text in a message.
const TEXT: usize = 220;

/// A system, and how it is addressed.
struct Broker {
    system: &'static System,
    /// Without these the server would confirm what it has not yet written down.
    arguments: &'static [&'static str],
    driver: &'static str,
    durability: &'static str,
    /// What could not be made alike.
    unlike: &'static str,
    /// Messages of a measurement, in full and quick.
    messages: (u32, u32),
    raw: fn(&Job) -> Result<Sample>,
}

static BROKERS: [Broker; 4] = [
    Broker {
        system: &RABBITMQ,
        arguments: &[],
        driver: "lapin",
        durability: "quorum queues, persistent mandatory messages, publisher confirms",
        unlike: "lapin: messages without id, context and CloudEvents attributes, which the server and both sides need not \
                 read, and one acknowledgement for 64 deliveries; trunkline: the same for as many as are done without a gap, \
                 64 at most; FastStream and Watermill: one for each. Watermill waits for a confirm on each of 64 channels",
        messages: (30_000, 3_000),
        raw: raw::rabbitmq::measure,
    },
    Broker {
        system: &KAFKA,
        arguments: &[],
        driver: "rdkafka",
        durability: "acks=all, one partition, positions committed now and then",
        unlike: "rdkafka commits what it has handed out, handled or not, and its messages are their bodies alone; trunkline \
                 commits what is handled, and compresses by lz4, its default; Watermill's producer is not idempotent",
        messages: (200_000, 5_000),
        raw: raw::kafka::measure,
    },
    Broker {
        system: &REDIS,
        arguments: &["--appendfsync", "always"],
        driver: "redis-rs",
        durability: "appendfsync always, XACK after the handler",
        unlike: "redis-rs: messages of an id and a body; trunkline: context and CloudEvents attributes besides, leases with \
                 tokens, order by key; both remove what is done, FastStream and Watermill leave it in the stream",
        messages: (100_000, 5_000),
        raw: raw::redis::measure,
    },
    Broker {
        system: &NATS,
        arguments: &[],
        driver: "async-nats",
        durability: "streams on disk, PubAck awaited, explicit acknowledgements",
        unlike: "async-nats: messages of an id, which the server must know repetitions by, and a body; trunkline: context and \
                 CloudEvents attributes besides; FastStream's and Watermill's have no such id. FastStream does not wait for \
                 the answers to its acknowledgements, the others do",
        messages: (100_000, 5_000),
        raw: raw::nats::measure,
    },
];

/// What a peer has to do.
#[derive(Clone, Debug, Serialize)]
struct Job {
    system: &'static str,
    /// For clients of the system.
    url: String,
    /// Name of the queue for Trunkline; where it is for others, [`Job::address`] says.
    queue: String,
    address: String,
    /// Where single messages go there and back.
    single: String,
    single_address: String,
    messages: u32,
    singles: u32,
    under_way: usize,
}

/// What it took.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Sample {
    /// Confirmed publishes a second.
    publish: f64,
    /// Messages handled and acknowledged a second.
    consume: f64,
    /// Microseconds from the publish to the handler, median.
    round_trip: f64,
}

/// A message of ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    id: u32,
    text: String,
}

impl Order {
    fn new(id: u32) -> Self {
        Self {
            id,
            text: "x".repeat(TEXT),
        }
    }

    /// As others send it.
    fn bytes(id: u32) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(&Self::new(id))?)
    }
}

/// Where a queue of ours is for other clients.
fn address(system: &str, queue: &str) -> String {
    match system {
        "kafka" | "nats" => format!("queues.{queue}"),
        "redis" => format!("{{trunkline}}:queue:{queue}"),
        _ => queue.to_owned(),
    }
}

/// Half of the values are below it.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

const OURS: &str = "trunkline";
const FAST_STREAM: &str = "FastStream";
const WATERMILL: &str = "Watermill";

/// Every sample of a peer, in the order of the rounds.
type Samples = RefCell<Vec<(&'static str, Sample)>>;

fn run(options: &Options, broker: &'static Broker) -> Result<Report> {
    let server = Launch::new(broker.system)
        .arguments(broker.arguments)
        .start()?;
    let fast_stream = FastStream::install()?;
    let watermill = Watermill::build()?;
    let (full, quick) = broker.messages;
    let name = broker.system.name;
    let number = Cell::new(0);
    let samples = Samples::default();
    let measure = |peer: &'static str, of: &dyn Fn(&Job) -> Result<Sample>| -> Result<f64> {
        number.set(number.get() + 1);
        let [queue, single] =
            ["many", "single"].map(|kind| format!("bench.{kind}{}", number.get()));
        let job = Job {
            system: name,
            url: server.url(),
            address: address(name, &queue),
            single_address: address(name, &single),
            queue,
            single,
            messages: options.choose(full, quick),
            singles: options.choose(1_000, 200),
            under_way: UNDER_WAY,
        };
        ours::declare(&job)?;
        let sample = of(&job)?;
        samples.borrow_mut().push((peer, sample));
        Ok(sample.publish)
    };
    let mut race = Race::new("published and confirmed", "messages/s", Better::Higher)
        .peer(OURS, || measure(OURS, &ours::measure))
        .peer(broker.driver, || measure(broker.driver, &broker.raw))
        .peer(FAST_STREAM, || {
            measure(FAST_STREAM, &|job| fast_stream.measure(job))
        });
    if let Some(watermill) = &watermill {
        race = race.peer(WATERMILL, || {
            measure(WATERMILL, &|job| watermill.measure(job))
        });
    }
    let rounds = options.rounds();
    let mut report = Report::new();
    let published = race.run(rounds)?;
    let samples = samples.into_inner();
    let consumed = replay(
        &samples,
        "handled and acknowledged",
        "messages/s",
        Better::Higher,
        |one| one.consume,
    );
    let consumed = consumed.run(rounds)?;
    let back = replay(
        &samples,
        "from the publish to the handler, one at a time after a pause, median",
        "µs",
        Better::Lower,
        |one| one.round_trip,
    );
    let back = back.run(rounds)?;
    for results in [&published, &consumed, &back] {
        results.put_into(&mut report);
        results.target(&mut report, broker.driver, 0.9)?;
        results.target(&mut report, FAST_STREAM, 2.0)?;
        if watermill.is_some() {
            results.target(&mut report, WATERMILL, 1.0)?;
        }
    }
    report.note(format!("on all sides: {}", broker.durability));
    report.note(format!("not alike: {}", broker.unlike));
    report.note(format!(
        "bodies of about 250 bytes; {UNDER_WAY} publishes and {UNDER_WAY} deliveries under way; {}, {}",
        peers::fast_stream_version(),
        watermill.map_or("Go is not installed: Watermill was not measured".to_owned(), |_| peers::watermill_version())
    ));
    Ok(report)
}

/// The same measurements, looked at in another way.
fn replay<'a>(
    samples: &'a [(&'static str, Sample)],
    title: &str,
    unit: &str,
    better: Better,
    look: impl Fn(&Sample) -> f64 + Copy + 'a,
) -> Race<'a> {
    let mut peers = vec![OURS];
    for (name, _) in samples {
        if !peers.contains(name) {
            peers.push(name);
        }
    }
    peers
        .into_iter()
        .fold(Race::new(title, unit, better), |race, peer| {
            let mut own = samples.iter().filter(move |(name, _)| *name == peer);
            race.peer(peer, move || {
                let (_, sample) = own.next().context("it was measured in every round")?;
                Ok(look(sample))
            })
        })
}
