//! What the driver calls on the thread that polls it: partitions come and go, commits are answered.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use tokio::time::Instant;

use super::ledger::Place;
use super::positions::{Question, begin};
use super::{Consumer, Hub, PATIENCE, list};
use crate::link;

/// The pause between two attempts to learn where partitions begin.
const PAUSE: Duration = Duration::from_millis(200);

/// What one consumer of the driver reports to.
pub(crate) struct Events(pub(crate) Weak<Hub>);

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, part: &str, text: &str) {
        link::log(level, part, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "trunkline", broker = "kafka", %error, reason, "the driver reports an error");
        if let Some(hub) = self.0.upgrade() {
            hub.link.doubt();
        }
    }
}

impl ConsumerContext for Events {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let cooperative = matches!(
            consumer.rebalance_protocol(),
            RebalanceProtocol::Cooperative
        );
        let hub = self.0.upgrade();
        let answered = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let list = hub.and_then(|hub| hub.assigned(consumer, list));
            match (&list, cooperative) {
                (Some(list), true) => consumer.incremental_assign(list),
                (Some(list), false) => consumer.assign(list),
                (None, _) => consumer.unassign(),
            }
        } else {
            if let Some(hub) = hub {
                hub.revoked(consumer, list);
            }
            if cooperative {
                consumer.incremental_unassign(list)
            } else {
                consumer.unassign()
            }
        };
        if let Err(error) = answered {
            tracing::warn!(target: "trunkline", broker = "kafka", %error, "a rebalance was not followed");
        }
        if let Some(hub) = self.0.upgrade() {
            hub.commit();
            hub.refresh();
            hub.arrived.notify_waiters();
        }
    }
}

fn places(list: &TopicPartitionList) -> Vec<Place> {
    let elements = list.elements();
    elements
        .iter()
        .map(|element| (Arc::from(element.topic()), element.partition()))
        .collect()
}

impl Hub {
    /// Partitions came: they begin where the group stands. `None` when this ends meanwhile.
    fn assigned(
        &self,
        consumer: &Consumer,
        given: &TopicPartitionList,
    ) -> Option<TopicPartitionList> {
        let given = places(given);
        self.know_generation(consumer);
        let list = self.begin(consumer, &given)?;
        let mut roll = self.roll();
        (roll.is_member, roll.was_expelled) = (true, false);
        Some(list)
    }

    /// Transactions are made as this member of this generation, and refused when the group has gone on. Each generation ends in a
    /// call of one or the other kind; the partitions that go with it are this member's until it has answered.
    fn know_generation(&self, consumer: &Consumer) {
        let member = consumer.group_metadata().map(Arc::new);
        self.roll().member = member;
    }

    /// Writes down where partitions begin, and says so in the driver's words. Asks until there is an answer; `None` when
    /// this ends meanwhile.
    pub(super) fn begin(&self, consumer: &Consumer, given: &[Place]) -> Option<TopicPartitionList> {
        if given.is_empty() {
            return Some(TopicPartitionList::new());
        }
        loop {
            if self.is_stopping() {
                return None;
            }
            let (all, initial, since) = {
                let roll = self.roll();
                let since = self.books().since.unwrap_or(roll.since);
                (roll.places.clone(), roll.initial.clone(), since)
            };
            let question = Question {
                places: given,
                all: self.group.is_some().then_some(&all[..]),
                initial: &initial,
                start: self.start,
                since,
            };
            match begin(consumer, &question) {
                Ok((begins, since)) => {
                    let mut books = self.books();
                    books.since = Some(since);
                    books.patient_until = Some(Instant::now() + PATIENCE);
                    for begin in &begins {
                        let committed = if begin.is_new { -1 } else { begin.position };
                        let place = begin.place.clone();
                        books.ledger.assign(
                            place.clone(),
                            begin.position,
                            begin.done.clone(),
                            begin.handed,
                            begin.end,
                        );
                        if self.group.is_some() {
                            books.ledger.is_committed(&place, committed);
                        }
                    }
                    let positions = begins.iter();
                    let positions =
                        positions.map(|begin| (&begin.place, begin.position, String::new()));
                    return Some(list(positions));
                }
                Err(error) => {
                    self.detached(format!("where partitions begin is not known: {error}"));
                    self.link.doubt();
                    self.wait(PAUSE);
                }
            }
        }
    }

    /// Partitions go. What is being handled is waited for; then nothing of them can be settled here any more.
    fn revoked(&self, consumer: &Consumer, given: &TopicPartitionList) {
        let given = places(given);
        if consumer.assignment_lost() {
            let mut roll = self.roll();
            (roll.is_member, roll.member) = (false, None);
            drop(roll);
            self.detached("the group went on without this member");
        } else {
            self.know_generation(consumer);
            self.drain(&given);
            self.hand_over(consumer, &given);
        }
        let mut books = self.books();
        books.ledger.revoke(&given);
        books.tell_gone(&given);
    }

    fn drain(&self, given: &[Place]) {
        let end = Instant::now() + self.link.config().drain_timeout;
        self.books().ledger.leaving(given);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let held = self.books().ledger.held_of(given);
            if held == 0 || left.is_zero() || self.is_stopping() {
                if held > 0 {
                    tracing::info!(target: "trunkline", broker = "kafka", held, "messages that are being handled go to another member as well");
                }
                return;
            }
            self.wait(left.min(Duration::from_millis(100)));
            if self.books().ledger.end_leases() {
                self.arrived.notify_waiters();
            }
        }
    }

    /// Waits on this thread until something is settled, no longer than given.
    pub(super) fn wait(&self, span: Duration) {
        let books = self.books();
        let waited = self.settled.wait_timeout(books, span);
        drop(waited);
    }
}
