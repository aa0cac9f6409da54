//! The roles against the embedded broker.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use futures_util::future::{join_all, try_join_all};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use trunkline_core::task;
use trunkline_messaging::{
    Delivery, Destination, Message, MessageBroker, Publish, Start, Subscribe, TopicName,
};
use trunkline_sqlite::{EmbeddedBroker, EmbeddedBrokerConfig};

use super::clock::{cpu_seconds, now};
use super::{Moment, Outcome, PAYLOAD, Role};
use crate::stopwatch::Stopwatch;

/// Deliveries that are acknowledged together.
const TOGETHER: usize = 500;

pub(super) fn play(directory: &str, role: Role) -> Result<Outcome> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = EmbeddedBrokerConfig::new(Path::new(directory));
        let broker = Arc::new(EmbeddedBroker::new(config));
        broker.connect().await?;
        let outcome = match role {
            Role::Publish { count, batch } => publish(&broker, count, batch).await,
            Role::Consume { count } => consume(&broker, count).await,
            Role::Confirm {
                publishers,
                seconds,
            } => confirm(&broker, publishers, Duration::from_secs(seconds)).await,
            Role::Paced { count, every } => paced(&broker, count, every).await,
            Role::Times { count } => times(&broker, count).await,
            Role::Idle {
                subscriptions,
                seconds,
            } => idle(&broker, subscriptions, Duration::from_secs(seconds)).await,
        }?;
        broker
            .disconnect(Instant::now() + Duration::from_secs(20))
            .await?;
        Ok(outcome)
    })
}

fn topic() -> Result<TopicName> {
    Ok(TopicName::new("orders")?)
}

fn message(topic: &TopicName) -> Publish {
    let body = Message::new(vec![7; PAYLOAD]);
    Publish::new(Destination::Topic(topic.clone()), body)
}

fn member(topic: &TopicName) -> Subscribe {
    Subscribe::topics(topic.clone())
        .with_group("mailer")
        .with_start(Start::Earliest)
        .with_prefetch(4 * TOGETHER as u32)
}

async fn publish(broker: &EmbeddedBroker, count: usize, batch: usize) -> Result<Outcome> {
    let topic = topic()?;
    let (watch, cpu) = (Stopwatch::start(), cpu_seconds());
    let mut sent = 0;
    while sent < count {
        let batch = (0..batch.min(count - sent)).map(|_| message(&topic));
        for outcome in broker.publish_batch(batch.collect()).await {
            outcome?;
            sent += 1;
        }
    }
    Ok(Outcome {
        count: sent as u64,
        seconds: watch.seconds(),
        cpu_seconds: cpu_seconds() - cpu,
        ..Outcome::default()
    })
}

async fn consume(broker: &EmbeddedBroker, count: usize) -> Result<Outcome> {
    let mut subscription = broker.subscribe(member(&topic()?)).await?;
    let mut acks: JoinSet<Result<()>> = JoinSet::new();
    let mut begun = None;
    let mut done = 0;
    while done < count {
        let first = subscription.next().await.context("the broker closed")?;
        begun.get_or_insert_with(|| (Stopwatch::start(), cpu_seconds()));
        let mut batch = vec![first];
        while batch.len() < TOGETHER {
            let Some(Some(delivery)) = subscription.next().now_or_never() else {
                break;
            };
            batch.push(delivery);
        }
        done += batch.len();
        acks.spawn(acknowledge(batch));
        while let Some(outcome) = acks.try_join_next() {
            outcome??;
        }
    }
    while let Some(outcome) = acks.join_next().await {
        outcome??;
    }
    let (watch, cpu) = begun.context("nothing was to be done")?;
    Ok(Outcome {
        count: done as u64,
        seconds: watch.seconds(),
        cpu_seconds: cpu_seconds() - cpu,
        ..Outcome::default()
    })
}

async fn acknowledge(batch: Vec<Delivery>) -> Result<()> {
    for outcome in join_all(batch.into_iter().map(Delivery::ack)).await {
        outcome?;
    }
    Ok(())
}

async fn confirm(
    broker: &Arc<EmbeddedBroker>,
    publishers: usize,
    time: Duration,
) -> Result<Outcome> {
    let topic = topic()?;
    let (watch, cpu) = (Stopwatch::start(), cpu_seconds());
    let tasks = (0..publishers).map(|_| {
        let (broker, topic) = (Arc::clone(broker), topic.clone());
        task::spawn("publisher", async move {
            let mut spans = Vec::new();
            while watch.elapsed() < time {
                let asked = Stopwatch::start();
                broker.publish(message(&topic)).await?;
                spans.push(micros(asked.elapsed()));
            }
            Ok::<_, trunkline_core::Error>(spans)
        })
    });
    let mut spans = Vec::new();
    for outcome in try_join_all(tasks).await? {
        spans.extend(outcome?);
    }
    Ok(Outcome {
        count: spans.len() as u64,
        seconds: watch.seconds(),
        cpu_seconds: cpu_seconds() - cpu,
        spans,
        ..Outcome::default()
    })
}

async fn paced(broker: &EmbeddedBroker, count: usize, every: u64) -> Result<Outcome> {
    let topic = topic()?;
    // The consumer is there first.
    sleep(Duration::from_millis(500)).await;
    let mut outcome = Outcome::default();
    for number in 0..count as u64 {
        let mut publish = message(&topic);
        publish.message = publish.message.with_id(number.to_string());
        broker.publish(publish).await?;
        outcome.moments.push(Moment {
            message: number,
            at: now(),
        });
        sleep(Duration::from_micros(every)).await;
    }
    Ok(outcome)
}

async fn times(broker: &EmbeddedBroker, count: usize) -> Result<Outcome> {
    let mut subscription = broker.subscribe(member(&topic()?)).await?;
    let mut acks: JoinSet<trunkline_core::Result<()>> = JoinSet::new();
    let mut outcome = Outcome::default();
    for _ in 0..count {
        let delivery = subscription.next().await.context("the broker closed")?;
        let message = delivery.message().id.parse()?;
        outcome.moments.push(Moment { message, at: now() });
        acks.spawn(delivery.ack());
    }
    while let Some(outcome) = acks.join_next().await {
        outcome??;
    }
    Ok(outcome)
}

async fn idle(broker: &EmbeddedBroker, subscriptions: usize, time: Duration) -> Result<Outcome> {
    let mut waiting = JoinSet::new();
    for number in 0..subscriptions {
        let topic = TopicName::new(format!("orders.{number}"))?;
        let mut subscription = broker.subscribe(member(&topic)).await?;
        waiting.spawn(async move { subscription.next().await.is_some() });
    }
    sleep(Duration::from_secs(1)).await;
    let (watch, cpu) = (Stopwatch::start(), cpu_seconds());
    sleep(time).await;
    Ok(Outcome {
        count: subscriptions as u64,
        seconds: watch.seconds(),
        cpu_seconds: cpu_seconds() - cpu,
        ..Outcome::default()
    })
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
