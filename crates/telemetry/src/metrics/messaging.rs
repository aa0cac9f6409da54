//! Messages out and in.

use std::sync::Arc;
use std::time::Duration;

use trunkline_core::ErrorKind;

use super::instrument::{ActiveGuard, Counter, Detailed, Gauge, Latency, Slots};
use super::{Metrics, table};

/// What is measured about messages of one broker.
#[derive(Clone, Debug)]
pub struct MessagingMetrics {
    metrics: Metrics,
    broker: Arc<str>,
}

impl MessagingMetrics {
    pub(super) fn new(metrics: Metrics, broker: &str) -> Self {
        Self {
            metrics,
            broker: broker.into(),
        }
    }

    /// Handles of what is published to a topic or queue. Keep them; do not ask per message.
    #[must_use]
    pub fn destination(&self, destination: &str) -> PublishMetrics {
        let table = self.metrics.table();
        let broker = &*self.broker;
        PublishMetrics(Arc::new(Publish {
            metrics: self.metrics.clone(),
            broker: Arc::clone(&self.broker),
            destination: destination.into(),
            published: table::counter(table, |t| {
                t.published.series([broker, destination, "published"])
            }),
            duration: table::latency(table, |t| t.publish_duration.series([broker, destination])),
            unroutable: table::counter(table, |t| t.unroutable.series([broker, destination])),
            size: table::detailed(table, |t| {
                t.message_size.series([broker, destination, "out"])
            }),
            failed: Slots::default(),
        }))
    }

    /// Handles of what a group receives from a topic or queue; an ephemeral subscriber has the group `""`.
    #[must_use]
    pub fn group(&self, destination: &str, group: &str) -> ConsumeMetrics {
        let table = self.metrics.table();
        let labels = [&*self.broker, destination, group];
        let outcome = |outcome: Processed| {
            table::counter(table, |t| {
                let [broker, destination, group] = labels;
                t.consumed
                    .series([broker, destination, group, outcome.as_str()])
            })
        };
        ConsumeMetrics(Arc::new(Consume {
            outcomes: Processed::ALL.map(outcome),
            duration: table::latency(table, |t| t.process_duration.series(labels)),
            size: table::detailed(table, |t| {
                t.message_size.series([&self.broker, destination, "in"])
            }),
            redeliveries: table::counter(table, |t| t.redeliveries.series(labels)),
            duplicates: table::counter(table, |t| t.duplicates.series(labels)),
            in_flight: table::gauge(table, |t| t.in_flight.series(labels)),
            attached: table::gauge(table, |t| t.attached.series(labels)),
            dead_letters: Slots::default(),
            metrics: self.metrics.clone(),
            labels: labels.map(Box::from),
        }))
    }
}

/// What is measured about publishing to one destination.
#[derive(Clone, Debug)]
pub struct PublishMetrics(Arc<Publish>);

#[derive(Debug)]
struct Publish {
    metrics: Metrics,
    broker: Arc<str>,
    destination: Box<str>,
    published: Counter,
    duration: Latency,
    unroutable: Counter,
    size: Detailed,
    failed: Slots<ErrorKind, Counter>,
}

impl PublishMetrics {
    /// Messages were confirmed together, `elapsed` after they were handed over.
    pub fn published(&self, messages: u64, elapsed: Duration) {
        self.0.published.add(messages);
        self.0.duration.observe(elapsed);
    }

    /// Messages were not confirmed.
    pub fn failed(&self, messages: u64, kind: ErrorKind) {
        let Publish {
            metrics,
            broker,
            destination,
            failed,
            ..
        } = &*self.0;
        let make = || {
            table::counter(metrics.table(), |t| {
                t.published.series([broker, destination, kind.as_str()])
            })
        };
        failed.with(kind, make, |counter| counter.add(messages));
    }

    /// A message was confirmed and reached no subscriber.
    pub fn unroutable(&self) {
        self.0.unroutable.add(1);
    }

    /// The size of a payload; recorded while detailed metrics are on.
    pub fn payload(&self, bytes: usize) {
        self.0.size.observe(bytes as u64);
    }
}

/// What is measured about what one group receives from one destination.
#[derive(Clone, Debug)]
pub struct ConsumeMetrics(Arc<Consume>);

#[derive(Debug)]
struct Consume {
    metrics: Metrics,
    labels: [Box<str>; 3],
    outcomes: [Counter; Processed::ALL.len()],
    duration: Latency,
    size: Detailed,
    redeliveries: Counter,
    duplicates: Counter,
    in_flight: Gauge,
    attached: Gauge,
    dead_letters: Slots<&'static str, Counter>,
}

impl ConsumeMetrics {
    /// A handler is done with a message.
    pub fn processed(&self, outcome: Processed, elapsed: Duration) {
        self.0.outcomes[outcome as usize].add(1);
        self.0.duration.observe(elapsed);
    }

    /// Counts a message as in its handler until the guard is dropped.
    pub fn in_flight(&self) -> ActiveGuard {
        self.0.in_flight.hold()
    }

    /// A message came again.
    pub fn redelivered(&self) {
        self.0.redeliveries.add(1);
    }

    /// A message was recognised as handled before and skipped.
    pub fn duplicate(&self) {
        self.0.duplicates.add(1);
    }

    /// A message was put into dead letters. The reason is one of a few words, such as `attempts` or `undecodable`.
    pub fn dead_lettered(&self, reason: &'static str) {
        let Consume {
            metrics,
            labels: [broker, destination, group],
            dead_letters,
            ..
        } = &*self.0;
        let make = || {
            table::counter(metrics.table(), |t| {
                t.dead_letters.series([broker, destination, group, reason])
            })
        };
        dead_letters.with(reason, make, |counter| counter.add(1));
    }

    /// Whether the subscription is attached to its broker.
    pub fn set_attached(&self, attached: bool) {
        self.0.attached.set(u64::from(attached));
    }

    /// How many messages wait for the group; `None` while nobody knows, when nothing is shown rather than an old number.
    pub fn set_lag(&self, messages: Option<u64>) {
        let Some(table) = self.0.metrics.table() else {
            return;
        };
        let [broker, destination, group] = &self.0.labels;
        let labels = [&**broker, destination, group];
        match messages {
            Some(messages) => {
                // Not among those that share one series: their sum is not what any of them says.
                if let Some(gauge) = table.lag.own(labels) {
                    gauge.set(i64::try_from(messages).unwrap_or(i64::MAX));
                }
            }
            None => table.lag.remove(labels),
        }
    }

    /// The size of a payload; recorded while detailed metrics are on.
    pub fn payload(&self, bytes: usize) {
        self.0.size.observe(bytes as u64);
    }
}

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processed {
    /// The message is done with.
    Handled,
    /// It will be tried again.
    Retried,
    /// It was refused for good.
    Rejected,
    /// It went to dead letters.
    DeadLettered,
    /// It was dropped before its handler began: nobody waited for it any more.
    Expired,
}

impl Processed {
    const ALL: [Self; 5] = [
        Self::Handled,
        Self::Retried,
        Self::Rejected,
        Self::DeadLettered,
        Self::Expired,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Retried => "retried",
            Self::Rejected => "rejected",
            Self::DeadLettered => "dead_lettered",
            Self::Expired => "expired",
        }
    }
}
