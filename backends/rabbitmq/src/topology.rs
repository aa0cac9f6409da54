//! What has been declared, remembered so that it can be declared again when the server has lost it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lapin::Channel;
use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use tokio::sync::Notify;
use trunkline_core::{Error, ErrorKind, Result, Retry};

use crate::config::{QueueType, RabbitMqConfig};
use crate::error::from_driver;
use crate::link::Link;
use crate::native::{Binding, Exchange, Queue, QueueStatus};
use crate::refused::{again, explained, is_refusal};
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

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(exchange) => write!(f, "exchange {}", exchange.name),
            Self::Queue(queue) | Self::Needed(queue) => write!(f, "queue {}", queue.name),
            Self::Binding(binding) => {
                let what = if binding.to_exchange {
                    "exchange"
                } else {
                    "queue"
                };
                let Binding {
                    exchange,
                    to,
                    routing_key,
                    ..
                } = binding;
                write!(
                    f,
                    "binding of {what} {to} to exchange {exchange} by `{routing_key}`"
                )
            }
        }
    }
}

/// A declaration that the server refuses, until it takes it or it is withdrawn.
struct Fault {
    item: Item,
    error: Arc<Error>,
    /// The server ended the whole connection over it: it is not tried again where others would suffer.
    is_fatal: bool,
}

#[derive(Default)]
struct Recorded {
    items: Vec<Item>,
    faults: Vec<Fault>,
}

impl Recorded {
    fn forget_fault(&mut self, item: &Item) {
        self.faults.retain(|fault| !fault.item.is_same(item));
    }
}

/// The declarations of one broker in their order, and those that the server refuses now: these stop nothing but what
/// depends on them, are tried again now and then, and are told by health until then.
pub(crate) struct Topology {
    config: Arc<RabbitMqConfig>,
    recorded: Mutex<Recorded>,
    /// Whether there are faults, for those who ask with every message.
    is_faulty: AtomicBool,
    /// There is one more.
    pub(crate) failed: Notify,
}

impl Topology {
    pub(crate) fn new(config: Arc<RabbitMqConfig>) -> Self {
        Self {
            config,
            recorded: Mutex::default(),
            is_faulty: AtomicBool::new(false),
            failed: Notify::new(),
        }
    }

    /// Changes what is recorded.
    fn record<T>(&self, change: impl FnOnce(&mut Recorded) -> T) -> T {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut recorded);
        let is_faulty = !recorded.faults.is_empty();
        self.is_faulty.store(is_faulty, Ordering::Release);
        changed
    }

    /// Declares and remembers. A later declaration of the same thing takes the place of an earlier one.
    pub(crate) async fn declare(&self, link: &Link, channel: &Channel, item: Item) -> Result<()> {
        self.apply(link, channel, &item).await?;
        self.record(|recorded| {
            recorded.forget_fault(&item);
            match recorded.items.iter_mut().find(|known| known.is_same(&item)) {
                Some(known) => *known = item,
                None => recorded.items.push(item),
            }
        });
        Ok(())
    }

    /// Forgets what is about a queue or exchange.
    pub(crate) fn forget(&self, gone: impl Fn(&Item) -> bool) {
        self.record(|recorded| {
            recorded.items.retain(|item| !gone(item));
            recorded.faults.retain(|fault| !gone(&fault.item));
        });
    }

    /// Notes that the server refuses something.
    fn fail(&self, item: &Item, error: Error, is_fatal: bool) {
        let (item, error) = (item.clone(), Arc::new(error));
        let text = error.report().to_string();
        let is_new = self.record(|recorded| {
            let known = recorded
                .faults
                .iter()
                .any(|fault| fault.item.is_same(&item));
            recorded.forget_fault(&item);
            recorded.faults.push(Fault {
                item,
                error,
                is_fatal,
            });
            !known
        });
        if is_new {
            tracing::error!(
                target: "trunkline", error = text,
                "a declaration is refused; all else goes on, and it will be tried again"
            );
            self.failed.notify_one();
        }
    }

    /// What is refused now, if that is anything.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.is_faulty.load(Ordering::Acquire) {
            return Ok(());
        }
        let errors = self.record(|recorded| {
            let faults = recorded.faults.iter();
            faults
                .map(|fault| Arc::clone(&fault.error))
                .collect::<Vec<_>>()
        });
        match errors.as_slice() {
            [] => Ok(()),
            [only] => Err(again(only)),
            [first, others @ ..] => {
                let text = format!("{}; and {} more", first.message(), others.len());
                Err(Error::new(first.kind(), text).with_source(again(first)))
            }
        }
    }

    /// Fails when an exchange that is needed cannot be declared.
    pub(crate) fn check_exchange(&self, name: &str) -> Result<()> {
        if !self.is_faulty.load(Ordering::Acquire) {
            return Ok(());
        }
        let fault = self.record(|recorded| {
            let faults = recorded.faults.iter();
            let mut faults = faults.filter(
                |fault| matches!(&fault.item, Item::Exchange(exchange) if exchange.name == name),
            );
            faults.next().map(|fault| Arc::clone(&fault.error))
        });
        fault.map_or(Ok(()), |error| Err(again(&error)))
    }

    /// Makes sure of an exchange for what depends on it; a refusal is remembered, and told to those later. The channel may
    /// be closed by then.
    pub(crate) async fn ensure_exchange(
        &self,
        link: &Link,
        channel: &Channel,
        exchange: &Exchange,
    ) -> Result<()> {
        let item = Item::Exchange(exchange.clone());
        match need_exchange(link, channel, exchange).await {
            Ok(()) => {
                self.record(|recorded| recorded.forget_fault(&item));
                Ok(())
            }
            Err(error) if is_refusal(&error) && link.is_connected() => {
                self.fail(&item, self.explained(error, &item), false);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Declares all of it on a new connection. What the server refuses is left out.
    pub(crate) async fn replay(&self, link: &Link) -> Result<()> {
        let items = self.record(|recorded| {
            let is_fatal = |item: &Item| {
                let mut faults = recorded.faults.iter();
                faults.any(|fault| fault.is_fatal && fault.item.is_same(item))
            };
            let items = recorded.items.iter().filter(|item| !is_fatal(item));
            items.cloned().collect::<Vec<_>>()
        });
        if items.is_empty() {
            return Ok(());
        }
        let mut channel = link.channel().await?;
        for item in &items {
            if !channel.status().connected() {
                channel = link.channel().await?;
            }
            match self.apply(link, &channel, item).await {
                Ok(()) => self.record(|recorded| recorded.forget_fault(item)),
                Err(error) if is_refusal(&error) => {
                    let is_fatal = !link.is_connected();
                    self.fail(item, error, is_fatal);
                    if is_fatal {
                        return Err(Error::unavailable("the server ended the connection")
                            .with_retry(Retry::Safe));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if !channel.status().connected() {
            return Ok(());
        }
        let closed = channel.close(200, "declared".into()).await;
        closed.map_err(|error| from_driver("close a channel", error))
    }

    /// Tries again what was refused, on a connection that nobody else uses: the server may end it. A queue that belongs to
    /// its connection is declared on the one where it is to be. Says whether anything is left.
    pub(crate) async fn mend(&self, apart: &Link, publishing: Option<&Link>) -> Result<bool> {
        let faults = self.record(|recorded| {
            let faults = recorded.faults.iter();
            let items = faults.map(|fault| (fault.item.clone(), fault.is_fatal));
            items.collect::<Vec<_>>()
        });
        for (item, is_fatal) in faults {
            let is_exclusive = matches!(&item, Item::Queue(queue) if queue.exclusive);
            let link = match (is_exclusive, publishing) {
                (false, _) => apart,
                (true, Some(link)) if !is_fatal => link,
                // It comes with the next connection.
                (true, _) => continue,
            };
            let channel = link.channel().await?;
            // It may have been withdrawn meanwhile.
            if !self.is_refused(&item) {
                continue;
            }
            match self.apply(link, &channel, &item).await {
                Ok(()) => {
                    tracing::info!(target: "trunkline", declaration = %item, "declared at last");
                    self.record(|recorded| recorded.forget_fault(&item));
                }
                Err(error) if is_refusal(&error) => {
                    let is_fatal = !link.is_connected();
                    if self.is_refused(&item) {
                        self.fail(&item, error, is_fatal);
                    }
                }
                Err(error) => return Err(error),
            }
            if channel.status().connected() {
                let closed = channel.close(200, "declared".into()).await;
                closed.map_err(|error| from_driver("close a channel", error))?;
            }
        }
        Ok(self.is_faulty.load(Ordering::Acquire))
    }

    fn is_refused(&self, item: &Item) -> bool {
        self.record(|recorded| {
            let mut faults = recorded.faults.iter();
            faults.any(|fault| fault.item.is_same(item))
        })
    }

    async fn apply(&self, link: &Link, channel: &Channel, item: &Item) -> Result<()> {
        let usual = self.config.queue_type;
        let applied = match item {
            Item::Exchange(exchange) => declare_exchange(channel, exchange).await,
            Item::Queue(queue) => declare_queue(channel, queue, usual).await.map(drop),
            Item::Needed(queue) => need_queue(link, queue, usual).await,
            Item::Binding(binding) => bind(channel, binding).await,
        };
        applied.map_err(|error| self.explained(error, item))
    }

    fn explained(&self, error: Error, item: &Item) -> Error {
        let user = self.config.connection.username.as_deref();
        explained(
            error,
            item,
            self.config.virtual_host(),
            user.unwrap_or("guest"),
        )
    }
}

/// Makes sure that an exchange is there. Who may not declare one may use it all the same, if somebody else did.
pub(crate) async fn need_exchange(
    link: &Link,
    channel: &Channel,
    exchange: &Exchange,
) -> Result<()> {
    let refused = match declare_exchange(channel, exchange).await {
        Err(error) if error.kind() == ErrorKind::Denied && link.is_connected() => error,
        other => return other,
    };
    let asking = link.channel().await?;
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let name = short("the exchange's name", &exchange.name)?;
    let kind = exchange.kind.of_driver();
    let seen = asking
        .exchange_declare(name, kind, options, Default::default())
        .await;
    match seen {
        Ok(()) => {
            let closed = asking.close(200, "done".into()).await;
            closed.map_err(|error| from_driver("close a channel", error))
        }
        Err(_) if link.is_connected() => Err(refused),
        Err(error) => Err(from_driver("look at an exchange", error)),
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
