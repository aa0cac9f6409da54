//! Exchanges, queues and bindings as RabbitMQ has them, for those who need more than topics and queues.

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString};
use trunkline_core::Result;

use crate::config::QueueType;
use crate::wire::short;

/// How an exchange routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeKind {
    /// To bindings with exactly the routing key.
    #[default]
    Direct,
    /// To every binding.
    Fanout,
    /// To bindings whose pattern the routing key follows; `*` is one segment, `#` any number.
    Topic,
    /// To bindings whose arguments the headers have.
    Headers,
    /// As a plugin of this name does.
    Custom(String),
}

impl ExchangeKind {
    pub(crate) fn of_driver(&self) -> lapin::ExchangeKind {
        match self {
            Self::Direct => lapin::ExchangeKind::Direct,
            Self::Fanout => lapin::ExchangeKind::Fanout,
            Self::Topic => lapin::ExchangeKind::Topic,
            Self::Headers => lapin::ExchangeKind::Headers,
            Self::Custom(name) => lapin::ExchangeKind::Custom(name.clone()),
        }
    }
}

/// Arguments of a declaration, such as `x-max-priority`.
///
/// ```
/// use trunkline_rabbitmq::Arguments;
///
/// let arguments = Arguments::new().with("x-max-priority", 10).with("x-overflow", "reject-publish");
/// assert_eq!(arguments.get("x-max-priority"), Some(&10.into()));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments(BTreeMap<String, serde_json::Value>);

impl Arguments {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one: a text, a number, yes or no, or a list or table of these.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// The argument of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&serde_json::Value> {
        self.0.get(name)
    }

    pub(crate) fn table(&self) -> Result<FieldTable> {
        let mut table = FieldTable::default();
        for (name, value) in &self.0 {
            table.insert(short("the name of an argument", name)?, value_of(value)?);
        }
        Ok(table)
    }
}

fn value_of(value: &serde_json::Value) -> Result<AMQPValue> {
    use serde_json::Value;
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => AMQPValue::LongLongInt(number),
            None => AMQPValue::Double(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => AMQPValue::LongString(LongString::from(text.as_str())),
        Value::Array(values) => {
            let values = values.iter().map(value_of).collect::<Result<Vec<_>>>()?;
            AMQPValue::FieldArray(FieldArray::from(values))
        }
        Value::Object(members) => {
            let mut table = FieldTable::default();
            for (name, value) in members {
                table.insert(short("the name of an argument", name)?, value_of(value)?);
            }
            AMQPValue::FieldTable(table)
        }
    })
}

/// An exchange to declare: durable and direct unless said otherwise.
///
/// ```
/// use trunkline_rabbitmq::{Exchange, ExchangeKind};
///
/// let exchange = Exchange::new("orders").with_kind(ExchangeKind::Topic);
/// assert!(exchange.durable);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes. Default direct.
    pub kind: ExchangeKind,
    /// Whether it survives a restart of the server. Default true.
    pub durable: bool,
    /// Whether it goes with its last binding. Default false.
    pub auto_delete: bool,
    /// Whether only other exchanges publish to it. Default false.
    pub internal: bool,
    /// More, such as `alternate-exchange`. Default none.
    pub arguments: Arguments,
}

impl Exchange {
    /// A durable direct exchange.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: ExchangeKind::default(),
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Arguments::default(),
        }
    }

    /// Sets how it routes.
    #[must_use]
    pub fn with_kind(mut self, kind: ExchangeKind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn with_argument(
        mut self,
        name: impl Into<String>,
        value: impl Into<serde_json::Value>,
    ) -> Self {
        self.arguments = self.arguments.with(name, value);
        self
    }
}

/// A queue to declare: durable unless said otherwise.
///
/// ```
/// use trunkline_rabbitmq::{Queue, QueueType};
///
/// let queue = Queue::new("mails").with_type(QueueType::Classic).with_argument("x-max-priority", 10);
/// assert!(queue.durable);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// How the server keeps it. Default: as the argument `x-queue-type` says, else as the broker is configured.
    pub queue_type: Option<QueueType>,
    /// Whether it survives a restart of the server. Default true.
    pub durable: bool,
    /// Whether only this connection uses it, and it goes with it. Default false.
    pub exclusive: bool,
    /// Whether it goes with its last consumer. Default false.
    pub auto_delete: bool,
    /// More, such as `x-message-ttl`. Default none.
    pub arguments: Arguments,
}

impl Queue {
    /// A durable queue.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            queue_type: None,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Arguments::default(),
        }
    }

    /// Sets how the server keeps it.
    #[must_use]
    pub fn with_type(mut self, queue_type: QueueType) -> Self {
        self.queue_type = Some(queue_type);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn with_argument(
        mut self,
        name: impl Into<String>,
        value: impl Into<serde_json::Value>,
    ) -> Self {
        self.arguments = self.arguments.with(name, value);
        self
    }
}

/// What a queue or exchange gets from an exchange.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Binding {
    /// The exchange that gives.
    pub exchange: String,
    /// The queue that gets, or the exchange if `to_exchange`.
    pub to: String,
    /// Whether an exchange gets. Default false.
    pub to_exchange: bool,
    /// Which messages; what it means is the exchange's kind.
    pub routing_key: String,
    /// More, as exchanges of the kind `headers` need it. Default none.
    pub arguments: Arguments,
}

impl Binding {
    /// Binds a queue to an exchange.
    #[must_use]
    pub fn new(
        queue: impl Into<String>,
        exchange: impl Into<String>,
        routing_key: impl Into<String>,
    ) -> Self {
        Self {
            exchange: exchange.into(),
            to: queue.into(),
            to_exchange: false,
            routing_key: routing_key.into(),
            arguments: Arguments::default(),
        }
    }

    /// Binds an exchange instead of a queue.
    #[must_use]
    pub fn to_exchange(mut self) -> Self {
        self.to_exchange = true;
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn with_argument(
        mut self,
        name: impl Into<String>,
        value: impl Into<serde_json::Value>,
    ) -> Self {
        self.arguments = self.arguments.with(name, value);
        self
    }
}

/// What the server says about a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStatus {
    /// Messages that wait for a consumer.
    pub messages: u32,
    /// Its consumers.
    pub consumers: u32,
}

impl QueueStatus {
    pub(crate) fn of_driver(queue: &lapin::Queue) -> Self {
        Self {
            messages: queue.message_count(),
            consumers: queue.consumer_count(),
        }
    }
}
