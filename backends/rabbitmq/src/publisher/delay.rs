//! Messages for later, with nothing but what every RabbitMQ has: a queue for each delay, whose messages expire all after the
//! same time and then go to the exchange that they were meant for.
//!
//! Each such queue has a fanout exchange of its own, so that the routing key stays the one of the target. Messages move on
//! with confirms (quorum queues, `at-least-once`): a crash in between loses none. So moved, a message that no queue wants
//! stays, and some of them hold up those behind them. Therefore topics are reached through an exchange of ours that always
//! finds a queue, at worst one in which nothing stays; and each target queue has delays of its own, where messages wait for
//! a queue that is missing and hold up nobody else's. Queues that nobody uses go away by themselves; one is declared anew
//! before it is used, so that it cannot go while a message waits in it.

use std::collections::HashMap;
use std::time::Duration;

use lapin::Channel;
use lapin::types::ShortString;
use tokio::time::Instant;
use trunkline_core::Result;

use super::job::Envelope;
use crate::config::QueueType;
use crate::error::from_driver;
use crate::link::Link;
use crate::names;
use crate::native::{Binding, Exchange, ExchangeKind, Queue};
use crate::topology::{bind, declare_exchange, declare_queue, look_at};
use crate::wire::short;

/// A queue is declared again when this has passed.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// An unused queue stays for the delay and so much longer. Must be much more than [`FRESH_FOR`].
const STAYS: Duration = Duration::from_secs(10 * 60);
/// Entries that are kept of queues declared before.
const REMEMBERED: usize = 1_000;

/// The exchange and the queue of what nobody wants any more.
const NOWHERE: &str = "trunkline.nowhere";
#[derive(Default)]
pub(super) struct Delays {
    declared: HashMap<String, (ShortString, Instant)>,
}

impl Delays {
    /// Makes sure that a message can wait and move on, and returns the exchange to give it to.
    pub(super) async fn prepare(
        &mut self,
        link: &Link,
        channel: &Channel,
        millis: u64,
        envelope: &Envelope,
    ) -> Result<ShortString> {
        let (target, key) = (envelope.exchange.as_str(), envelope.routing_key.as_str());
        let name = names::delay(millis, target, key);
        if let Some((exchange, at)) = self.declared.get(&name)
            && at.elapsed() < FRESH_FOR
        {
            return Ok(exchange.clone());
        }
        if self.declared.len() >= REMEMBERED {
            self.declared.retain(|_, (_, at)| at.elapsed() < FRESH_FOR);
        }
        let at = Instant::now();
        let due = reach(link, target, key).await?;
        let exchange = Exchange {
            // It goes with its queue.
            auto_delete: true,
            ..Exchange::new(&name).with_kind(ExchangeKind::Fanout)
        };
        let stays = millis.saturating_add(u64::try_from(STAYS.as_millis()).unwrap_or(u64::MAX));
        let queue = Queue::new(&name)
            .with_type(QueueType::Quorum)
            .with_argument("x-message-ttl", millis)
            .with_argument("x-expires", stays)
            .with_argument("x-dead-letter-exchange", due)
            .with_argument("x-dead-letter-strategy", "at-least-once")
            .with_argument("x-overflow", "reject-publish");
        declare_exchange(channel, &exchange).await?;
        declare_queue(channel, &queue, QueueType::Quorum).await?;
        bind(channel, &Binding::new(&name, &name, "")).await?;
        let exchange = short("the name of a delay", &name)?;
        self.declared.insert(name, (exchange.clone(), at));
        Ok(exchange)
    }
}

/// Makes sure that what is due gets to its exchange or queue, and returns the exchange that gives it there.
async fn reach(link: &Link, exchange: &str, routing_key: &str) -> Result<String> {
    // On a channel of its own: the server closes it when the queue is missing.
    let channel = link.channel().await?;
    let due = if exchange.is_empty() {
        look_at(&channel, routing_key).await?;
        String::new()
    } else {
        let due = names::due(exchange);
        nowhere(&channel).await?;
        let on = Exchange::new(&due).with_kind(ExchangeKind::Fanout);
        declare_exchange(&channel, &on).await?;
        bind(&channel, &Binding::new(exchange, &due, "").to_exchange()).await?;
        bind(&channel, &Binding::new(NOWHERE, &due, "")).await?;
        due
    };
    let closed = channel.close(200, "done".into()).await;
    closed.map_err(|error| from_driver("close a channel", error))?;
    Ok(due)
}

/// Takes every message and keeps none.
async fn nowhere(channel: &Channel) -> Result<()> {
    let all = Exchange::new(NOWHERE).with_kind(ExchangeKind::Fanout);
    let nothing = Queue::new(NOWHERE)
        .with_type(QueueType::Classic)
        .with_argument("x-message-ttl", 0)
        .with_argument("x-max-length", 1);
    declare_exchange(channel, &all).await?;
    declare_queue(channel, &nothing, QueueType::Classic).await?;
    bind(channel, &Binding::new(NOWHERE, NOWHERE, "")).await
}
