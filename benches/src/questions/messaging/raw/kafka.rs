//! rdkafka: the driver batches by itself; its delivery reports are counted, and positions are committed as it goes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tokio::sync::Semaphore;

use super::super::{Job, Order, PAUSE, Sample, median, ours};
use crate::stopwatch::Stopwatch;

const PATIENCE: Duration = Duration::from_secs(30);

/// A place is free again when its message is confirmed.
struct Confirms(Arc<Semaphore>);

impl ClientContext for Confirms {}

impl ProducerContext for Confirms {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.0.add_permits(1);
        } else {
            // Whoever waits for places learns that none will come.
            self.0.close();
        }
    }
}

type Producer = ThreadedProducer<Confirms>;

pub(in super::super) fn measure(job: &Job) -> Result<Sample> {
    let places = Arc::new(Semaphore::new(job.under_way));
    let mut config = servers(job);
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0");
    let producer = Producer::from_config_and_context(&config, Confirms(Arc::clone(&places)))?;
    let runtime = ours::runtime()?;
    let all = u32::try_from(job.under_way)?;
    let watch = Stopwatch::start();
    runtime.block_on(async {
        for id in 0..job.messages {
            places.acquire().await?.forget();
            send(&producer, &job.address, id)?;
        }
        places.acquire_many(all).await?.forget();
        places.add_permits(job.under_way);
        anyhow::Ok(())
    })?;
    let publish = watch.per_second(u64::from(job.messages));
    let consume = consume(job)?;
    let consumer = consumer(job, &job.single_address)?;
    let mut spans = Vec::new();
    for id in 0..=job.singles {
        runtime.block_on(tokio::time::sleep(PAUSE));
        let watch = Stopwatch::start();
        send(&producer, &job.single_address, id)?;
        take(&consumer)?;
        spans.push(watch.seconds() * 1e6);
        consumer.commit_consumer_state(CommitMode::Async)?;
    }
    // The first waited for the group to form.
    spans.remove(0);
    Ok(Sample {
        publish,
        consume,
        round_trip: median(&mut spans),
    })
}

fn servers(job: &Job) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", job.url.trim_start_matches("kafka://"));
    config
}

fn send(producer: &Producer, topic: &str, id: u32) -> Result<()> {
    let body = Order::bytes(id)?;
    let record = BaseRecord::<(), _>::to(topic).payload(&body);
    match producer.send(record) {
        Ok(()) => Ok(()),
        Err((error, _)) => bail!("not sent: {error}"),
    }
}

fn consumer(job: &Job, topic: &str) -> Result<BaseConsumer> {
    let mut config = servers(job);
    config
        .set("group.id", format!("bare.{topic}"))
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "10")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "100");
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&[topic])?;
    Ok(consumer)
}

fn take(consumer: &BaseConsumer) -> Result<()> {
    let watch = Stopwatch::start();
    // It comes back without a message after an event of the group.
    while watch.elapsed() < PATIENCE {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            message?;
            return Ok(());
        }
    }
    bail!("nothing came")
}

fn consume(job: &Job) -> Result<f64> {
    let consumer = consumer(job, &job.address)?;
    take(&consumer)?;
    let watch = Stopwatch::start();
    for _ in 1..job.messages {
        take(&consumer)?;
    }
    consumer.commit_consumer_state(CommitMode::Sync)?;
    Ok(watch.per_second(u64::from(job.messages)))
}
