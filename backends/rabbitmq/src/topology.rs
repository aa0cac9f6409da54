//! What has been declared, remembered so that it can be declared again when the server has lost it.

use std::sync::{Mutex, PoisonError};

use lapin::Channel;
use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use trunkline_core::{ErrorKind, Result};

use crate::config::QueueType;
use crate::error::from_driver;
use crate::link::Link;
use crate::native::{Binding, Exchange, Queue, QueueStatus};
use crate::wire::short;

/// Practically no limit: attempts are counted by the service, and a queue that silently throws messages away after some
/// deliveries (twenty since RabbitMQ 4) is not wanted.
const UNLIMITED_DELIVERIES: i64 = 1_000_000_000;

/// One thing declared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Exchange(Exchange),
    Queue(Queue),
    /// A queue that may be there with other properties, too.
    Needed(Queue),
    Binding(Binding),
}

impl Item {
    /// Whether another declaration is about the same thing.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exchange(one), Self::Exchange(two)) => one.name == two.name,
            (Self::Queue(one) | Self::Needed(one), Self::Queue(two) | Self::Needed(two)) => {
                one.name == two.name
            }
            (Self::Binding(one), Self::Binding(two)) => one == two,
            _ => false,
        }
    }
}

/// The declarations of one broker in their order.
pub(crate) struct Topology {
    usual: QueueType,
    items: Mutex<Vec<Item>>,
}

impl Topology {
    pub(crate) fn new(usual: QueueType) -> Self {
        Self {
            usual,
            items: Mutex::default(),
        }
    }

    /// Declares and remembers.
    pub(crate) async fn declare(&self, link: &Link, channel: &Channel, item: Item) -> Result<()> {
        self.apply(link, channel, &item).await?;
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if !items.iter().any(|known| known.is_same(&item)) {
            items.push(item);
        }
        Ok(())
    }

    /// Forgets what is about a queue or exchange.
    pub(crate) fn forget(&self, gone: impl Fn(&Item) -> bool) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.retain(|item| !gone(item));
    }

    /// Declares all of it on a new connection.
    pub(crate) async fn replay(&self, link: &Link) -> Result<()> {
        let items = self
            .items
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if items.is_empty() {
            return Ok(());
        }
        let channel = link.channel().await?;
        for item in &items {
            self.apply(link, &channel, item).await?;
        }
        let closed = channel.close(200, "declared".into()).await;
        closed.map_err(|error| from_driver("close a channel", error))
    }

    async fn apply(&self, link: &Link, channel: &Channel, item: &Item) -> Result<()> {
        match item {
            Item::Exchange(exchange) => declare_exchange(channel, exchange).await,
            Item::Queue(queue) => declare_queue(channel, queue, self.usual).await.map(drop),
            Item::Needed(queue) => need_queue(link, queue, self.usual).await,
            Item::Binding(binding) => bind(channel, binding).await,
        }
    }
}

pub(crate) async fn declare_exchange(channel: &Channel, exchange: &Exchange) -> Result<()> {
    let options = ExchangeDeclareOptions {
        passive: false,
        durable: exchange.durable,
        auto_delete: exchange.auto_delete,
        internal: exchange.internal,
        nowait: false,
    };
    let name = short("the exchange's name", &exchange.name)?;
    let kind = exchange.kind.of_driver();
    let arguments = exchange.arguments.table()?;
    let declared = channel
        .exchange_declare(name, kind, options, arguments)
        .await;
    declared.map_err(|error| from_driver("declare an exchange", error))
}

/// Declares a queue; one that is neither durable nor shared is classic, as others cannot be.
pub(crate) async fn declare_queue(
    channel: &Channel,
    queue: &Queue,
    usual: QueueType,
) -> Result<QueueStatus> {
    let options = QueueDeclareOptions {
        passive: false,
        durable: queue.durable,
        exclusive: queue.exclusive,
        auto_delete: queue.auto_delete,
        nowait: false,
    };
    let mut arguments = queue.arguments.clone();
    let asked = queue.queue_type.or_else(|| {
        let untold = arguments.get("x-queue-type").is_none();
        let transient = !queue.durable || queue.exclusive || queue.auto_delete;
        untold.then_some(if transient { QueueType::Classic } else { usual })
    });
    match asked {
        Some(QueueType::Quorum) => {
            arguments = arguments.with("x-queue-type", "quorum");
            if arguments.get("x-delivery-limit").is_none() {
                arguments = arguments.with("x-delivery-limit", UNLIMITED_DELIVERIES);
            }
        }
        Some(QueueType::Classic) => arguments = arguments.with("x-queue-type", "classic"),
        None => {}
    }
    let name = short("the queue's name", &queue.name)?;
    let declared = channel
        .queue_declare(name, options, arguments.table()?)
        .await;
    declared
        .map(|queue| QueueStatus::of_driver(&queue))
        .map_err(|error| from_driver("declare a queue", error))
}

/// Makes sure that a queue is there, whatever its properties: it may have been declared with others, by an operator or an
/// earlier version. On channels of its own, as the server closes the one that asks for a queue that is missing.
pub(crate) async fn need_queue(link: &Link, queue: &Queue, usual: QueueType) -> Result<()> {
    let asking = link.channel().await?;
    let (channel, there) = match look_at(&asking, &queue.name).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let channel = link.channel().await?;
            let declared = declare_queue(&channel, queue, usual).await;
            (channel, declared)
        }
        seen => (asking, seen),
    };
    if channel.status().connected() {
        let closed = channel.close(200, "done".into()).await;
        closed.map_err(|error| from_driver("close a channel", error))?;
    }
    there.map(drop)
}

/// Asks about a queue without changing anything.
pub(crate) async fn look_at(channel: &Channel, queue: &str) -> Result<QueueStatus> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let name = short("the queue's name", queue)?;
    let seen = channel
        .queue_declare(name, options, Default::default())
        .await;
    seen.map(|queue| QueueStatus::of_driver(&queue))
        .map_err(|error| from_driver("look at a queue", error))
}

pub(crate) async fn bind(channel: &Channel, binding: &Binding) -> Result<()> {
    let (to, exchange) = (
        short("the name", &binding.to)?,
        short("the exchange's name", &binding.exchange)?,
    );
    let key = short("the routing key", &binding.routing_key)?;
    let arguments = binding.arguments.table()?;
    let bound = if binding.to_exchange {
        let options = ExchangeBindOptions::default();
        channel
            .exchange_bind(to, exchange, key, options, arguments)
            .await
    } else {
        let options = QueueBindOptions::default();
        channel
            .queue_bind(to, exchange, key, options, arguments)
            .await
    };
    bound.map_err(|error| from_driver("bind", error))
}
