//! rdkafka: its example of handling at least once.

use std::time::Duration;

use anyhow::{Result, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::{Consumer, GROUP, say};

fn servers(url: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url.trim_start_matches("kafka://"));
    config
}

pub struct Publisher {
    producer: FutureProducer,
    topic: String,
}

impl Publisher {
    pub async fn open(url: &str, name: &str) -> Result<Self> {
        let mut config = servers(url);
        config.set("message.timeout.ms", "5000");
        Ok(Self {
            producer: config.create()?,
            topic: name.to_owned(),
        })
    }

    pub async fn publish(&self, line: &str) -> Result<()> {
        let key = line.split(' ').next().unwrap_or_default();
        let record = FutureRecord::to(&self.topic).payload(line).key(key);
        match self.producer.send(record, Duration::from_secs(0)).await {
            Ok(_) => Ok(()),
            Err((error, _)) => bail!("{error}"),
        }
    }
}

pub async fn consume(mut to: Consumer, leave: impl Future<Output = Result<()>>) -> Result<()> {
    let consumer: StreamConsumer = servers(&to.url)
        .set("group.id", GROUP)
        .set("enable.partition.eof", "false")
        .set("session.timeout.ms", "6000")
        .set("auto.offset.reset", "earliest")
        // Commits every five seconds what is stored after the handler.
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "5000")
        .set("enable.auto.offset.store", "false")
        .create()?;
    consumer.subscribe(&[&to.name])?;
    say("ready");
    tokio::pin!(leave);
    loop {
        let message = tokio::select! {
            message = consumer.recv() => message,
            left = &mut leave => return left,
        };
        match message {
            Err(error) => eprintln!("{error}"),
            Ok(message) => {
                to.handle(message.payload().unwrap_or_default())?;
                if let Err(error) = consumer.store_offset_from_message(&message) {
                    eprintln!("cannot store the offset: {error}");
                }
            }
        }
    }
}
