//! Publishers that do not give up: each message is sent again, under its own id, until it is confirmed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use bytes::Bytes;
use trunkline::core::{ErrorKind, Id, task};
use trunkline::messaging::{
    AnyBroker, Destination, Message, MessageBroker as _, Publish, Receipt, TopicName,
};

use crate::member::Numbered;

/// Publishers at work, each with keys of its own.
pub(super) const PUBLISHERS: u32 = 4;
/// Keys of one publisher; a batch holds one message of each, so that the order within a key is that of the confirms.
pub(super) const KEYS: u32 = 32;

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Messages that the broker confirmed.
    pub(super) confirmed: AtomicU64,
    /// Publishes that failed, each repeated.
    pub(super) failed: AtomicU64,
    /// What the broker said of each, by key and number.
    confirms: Mutex<HashMap<(u32, u32), Confirm>>,
}

/// A message as its publisher knows it.
#[derive(Clone, Debug)]
pub(super) struct Confirm {
    pub(super) receipt: Receipt,
    /// How often it was sent.
    pub(super) sent: u32,
}

impl Progress {
    /// All confirms so far, by key and number.
    pub(super) fn confirms(&self) -> HashMap<(u32, u32), Confirm> {
        let confirms = self.confirms.lock();
        confirms.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn confirm(&self, numbered: Numbered, receipt: Receipt, sent: u32) {
        let mut confirms = self.confirms.lock().unwrap_or_else(PoisonError::into_inner);
        confirms.insert((numbered.key, numbered.seq), Confirm { receipt, sent });
        drop(confirms);
        self.confirmed.fetch_add(1, Ordering::AcqRel);
    }
}

/// How many messages are published when somebody asks for about so many.
pub(super) fn rounded(messages: u32) -> u32 {
    rounds(messages) * PUBLISHERS * KEYS
}

pub(super) fn rounds(messages: u32) -> u32 {
    messages.div_ceil(PUBLISHERS * KEYS)
}

/// Publishes once, to nobody.
pub(super) async fn warm_up(broker: &AnyBroker) -> Result<()> {
    let topic = TopicName::new(format!("chaos.nobody.t{}", Id::new()))?;
    let publish = Publish::new(Destination::Topic(topic), Message::new("nothing"));
    broker.publish(publish).await?;
    Ok(())
}

/// Publishes them all; ends when each is confirmed.
pub(super) async fn publish_all(
    broker: AnyBroker,
    topic: TopicName,
    messages: u32,
    progress: Arc<Progress>,
) -> Result<()> {
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|number| {
            let (broker, topic, progress) = (broker.clone(), topic.clone(), Arc::clone(&progress));
            task::spawn("publisher", async move {
                for seq in 0..rounds(messages) {
                    let keys = (0..KEYS).map(|key| number * KEYS + key);
                    let batch = keys.map(|key| {
                        let numbered = Numbered { key, seq };
                        Ok((numbered, message(&topic, numbered)?))
                    });
                    publish(&broker, batch.collect::<Result<_>>()?, &progress).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await??;
    }
    Ok(())
}

fn message(topic: &TopicName, numbered: Numbered) -> Result<Publish> {
    let payload = Bytes::from(serde_json::to_vec(&numbered)?);
    let message = Message::new(payload)
        .with_content_type("application/json")
        .with_key(numbered.key.to_string());
    Ok(Publish::new(Destination::Topic(topic.clone()), message))
}

async fn publish(
    broker: &AnyBroker,
    mut batch: Vec<(Numbered, Publish)>,
    progress: &Progress,
) -> Result<()> {
    let mut sent = 0;
    while !batch.is_empty() {
        sent += 1;
        let publishes = batch.iter().map(|(_, publish)| publish.clone());
        let outcomes = broker.publish_batch(publishes.collect()).await;
        let mut again = Vec::new();
        for ((numbered, publish), outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Ok(receipt) => progress.confirm(numbered, receipt, sent),
                Err(error) if is_passing(error.kind()) => {
                    progress.failed.fetch_add(1, Ordering::AcqRel);
                    again.push((numbered, publish));
                }
                Err(error) => bail!("a publish failed for good: {}", error.report()),
            }
        }
        batch = again;
    }
    Ok(())
}

/// What a broker may say while it is disturbed.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Exhausted
    )
}
