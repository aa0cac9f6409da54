//! The thread of a group: it polls the driver's consumer, and is the only one that does.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use tokio::sync::oneshot;
use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_core::{Clock as _, ErrorKind, Id, SystemClock};
use trunkline_messaging::{Destination, Source, SubscriptionState};

use super::forward::ASIDE;
use super::ledger::{Place, Record};
use super::rebalance::Events;
use super::{Consumer, Hub};
use crate::catalog::Catalog;
use crate::delays;
use crate::error::kind_of;
use crate::link::{State, is_login};
use crate::topics::TopicPlan;
use crate::wire;

/// How long the driver is waited for; leases end and commits are repeated at this pace.
const TICK: Duration = Duration::from_millis(50);
/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(500);
/// Subscriptions that take nothing for so long have the fetching paused: until then fetching goes on, as the driver throws
/// away what it has fetched when it is paused.
const STALLED: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A consumer that gets no answer for so long, and is no member, is replaced if others get theirs: after a server has hung,
/// the driver may wait on a connection that has been forgotten.
const STUCK: Duration = Duration::from_secs(15);

/// So many messages of a partition may wait here for their time, and so many bytes; then the rest of it waits at the servers.
const MOST_WAITING: usize = 2000;
const MOST_BYTES_WAITING: usize = 16 << 20;

/// How long the driver may need to leave a group.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// Why a consumer ended before it was told to.
type Reason = String;

/// Begins the work of a group, as soon as the servers are there.
pub(super) fn start(hub: Arc<Hub>, catalog: Arc<Catalog>, scope: &Scope) {
    let stop = scope.token();
    scope.spawn("kafka group", async move {
        loop {
            let ready = async {
                loop {
                    let deadline = Instant::now() + Duration::from_secs(3600);
                    if let Err(error) = hub.link.ready(deadline).await {
                        if error.kind() == ErrorKind::Cancelled {
                            return false;
                        }
                        continue;
                    }
                    let Some(topic) = hub.topic() else {
                        return true;
                    };
                    let made = match topic {
                        Ok(topic) => {
                            let plan = match hub.names.is_delays(&topic) {
                                true => delays::plan(),
                                false => TopicPlan::default(),
                            };
                            let until = Instant::now() + PAUSE * 20;
                            catalog.ensure_as(&topic, &plan, until).await.map(drop)
                        }
                        Err(error) => Err(error),
                    };
                    match made {
                        Ok(()) => return true,
                        Err(error) if error.kind() == ErrorKind::Cancelled => return false,
                        Err(error) => {
                            hub.detached(error.message().to_owned());
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ready = ready => if !ready { return },
            }
            // Not one of the runtime's: it runs as long as the subscription, and the runtime would wait for it.
            let (tell, told) = oneshot::channel();
            let own = Arc::clone(&hub);
            let thread = std::thread::Builder::new().name("kafka group".to_owned());
            let spawned = thread.spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(|| own.session()));
                drop(tell.send(ended.unwrap_or_else(|_| Err("the consumer panicked".to_owned()))));
            });
            let ended = match spawned {
                Ok(_) => told.await.unwrap_or_else(|_| Err("the consumer ended".to_owned())),
                Err(error) => Err(format!("no thread for the consumer: {error}")),
            };
            match ended {
                Ok(()) => return,
                Err(reason) => {
                    tracing::warn!(target: "trunkline", broker = "kafka", reason, "a consumer is replaced");
                    hub.detached(reason);
                    if let Some(topic) = hub.topic().and_then(Result::ok) {
                        // It may be what is missing.
                        catalog.forget(&topic);
                    }
                }
            }
            let aside = hub.stands_aside().is_some();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(if aside { ASIDE } else { PAUSE }) => {}
            }
            hub.comes_back();
        }
    });
}

impl Hub {
    /// The one topic that is wanted, if it is one.
    fn topic(&self) -> Option<trunkline_core::Result<String>> {
        let destination = match &self.source {
            Source::Topics(pattern) => Destination::Topic(pattern.as_topic()?),
            Source::Queue(queue) => Destination::Queue(queue.clone()),
        };
        Some(self.names.topic(&destination))
    }

    /// One consumer, from its beginning to its end.
    fn session(self: &Arc<Self>) -> Result<(), Reason> {
        let own = || format!("trunkline-{}", Id::new());
        let group = self.group.clone().unwrap_or_else(own);
        let config = self.link.config().consumer(&group);
        let events = Events(Arc::downgrade(self));
        let consumer: Consumer = BaseConsumer::from_config_and_context(&config, events)
            .map_err(|error| error.to_string())?;
        let consumer = Arc::new(consumer);
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&consumer);
        let over = AtomicBool::new(false);
        // Where partitions begin is not told before what was in doubt has ended.
        self.in_doubt.store(false, Ordering::SeqCst);
        let ended = std::thread::scope(|threads| {
            if self.group.is_some() {
                let committing = std::thread::Builder::new().name("kafka commits".to_owned());
                let committing =
                    committing.spawn_scoped(threads, || self.commit_what_is_done(&consumer, &over));
                committing.map_err(|error| format!("no thread for commits: {error}"))?;
            }
            // Whatever becomes of this: the other thread is waited for.
            let ended = catch_unwind(AssertUnwindSafe(|| self.consume(&consumer)));
            let ended = ended.unwrap_or_else(|_| Err("the consumer panicked".to_owned()));
            let places = self.books().ledger.places();
            if ended.is_ok() {
                self.hand_over(&consumer, &places);
            }
            over.store(true, Ordering::SeqCst);
            self.done.notify_all();
            {
                let mut books = self.books();
                books.ledger.revoke(&places);
                books.tell_gone(&places);
            }
            self.forget_forwards();
            let mut roll = self.roll();
            (roll.is_member, roll.member) = (false, None);
            drop(roll);
            // From here on it answers nobody.
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Weak::new();
            // Leaves the group, which also ends a commit that waits for servers that are away.
            let closing = consumer.close_queue().map_err(|error| error.to_string());
            let limit = Instant::now() + CLOSED_WITHIN;
            while closing.is_ok() && !consumer.closed() && Instant::now() < limit {
                drop(consumer.poll(TICK));
            }
            ended
        });
        drop(consumer);
        ended
    }

    fn consume(&self, consumer: &Consumer) -> Result<(), Reason> {
        let mut look_at = Instant::now();
        let mut unanswered: Option<Instant> = None;
        let mut paused = false;
        let mut crowded = BTreeSet::new();
        let mut full_since: Option<Instant> = None;
        let most = usize::try_from(self.link.config().consumer_config.max_poll_records);
        let most = most.unwrap_or(usize::MAX);
        loop {
            if self.is_stopping() || !self.is_wanted() {
                return Ok(());
            }
            if let Some(reason) = self.stands_aside() {
                return Err(reason);
            }
            if Instant::now() >= look_at {
                look_at = Instant::now() + self.look(consumer, &mut unanswered)?;
            }
            let (ended, behind, due) = {
                let mut books = self.books();
                let ended = books.ledger.end_leases() | books.ledger.wake();
                let behind = books.patient_until.is_some();
                (ended, behind, books.ledger.next_due())
            };
            if ended || behind {
                self.arrived.notify_waiters();
            }
            self.commit();
            self.refresh();
            if self.books().ledger.load() < most {
                full_since = None;
                if paused {
                    paused = !self.fetching(consumer, true);
                    crowded.clear();
                }
                self.make_room(consumer, &mut crowded);
            } else if !paused {
                let since = *full_since.get_or_insert_with(Instant::now);
                if since.elapsed() < STALLED {
                    self.wait(TICK);
                    continue;
                }
                paused = self.fetching(consumer, false);
            }
            let mut taken = false;
            let due = due.map(|due| due.saturating_duration_since(Instant::now()));
            let mut within = due.map_or(TICK, |due| due.min(TICK));
            while let Some(polled) = consumer.poll(within) {
                match polled {
                    Ok(message) => taken |= self.take_in(&message),
                    Err(error) => self.failed(&error)?,
                }
                if self.books().ledger.load() >= most {
                    break;
                }
                within = Duration::ZERO;
            }
            if taken {
                self.arrived.notify_waiters();
            }
        }
    }

    /// Whether somebody takes messages or holds one; if not, nobody may join any more.
    fn is_wanted(&self) -> bool {
        let mut books = self.books();
        let wanted = books.ledger.is_wanted();
        books.ended |= !wanted;
        wanted
    }

    /// Pauses or resumes all partitions; whether that was done.
    fn fetching(&self, consumer: &Consumer, on: bool) -> bool {
        let changed = consumer.assignment().and_then(|all| {
            if on {
                consumer.resume(&all)
            } else {
                consumer.pause(&all)
            }
        });
        if let Err(error) = &changed {
            tracing::debug!(target: "trunkline", broker = "kafka", %error, on, "fetching was not changed");
        }
        changed.is_ok()
    }

    /// Fetches no more of partitions of which too much waits for its time, so that memory is bounded and the others go on.
    fn make_room(&self, consumer: &Consumer, crowded: &mut BTreeSet<Place>) {
        let now = self
            .books()
            .ledger
            .crowded(crowded, MOST_WAITING, MOST_BYTES_WAITING);
        if now == *crowded {
            return;
        }
        let list = |places: &mut dyn Iterator<Item = &Place>| {
            let mut list = TopicPartitionList::new();
            for (topic, partition) in places {
                list.add_partition(topic, *partition);
            }
            list
        };
        let owned = self.books().ledger.places();
        let full = list(&mut now.difference(crowded));
        let free = list(
            &mut crowded
                .difference(&now)
                .filter(|place| owned.contains(place)),
        );
        let changed = consumer.pause(&full).and_then(|()| consumer.resume(&free));
        match changed {
            Ok(()) => *crowded = now,
            // Tried again.
            Err(error) => {
                tracing::debug!(target: "trunkline", broker = "kafka", %error, "fetching was not changed")
            }
        }
    }

    fn take_in(&self, message: &BorrowedMessage<'_>) -> bool {
        let Some(destination) = self.names.destination(message.topic()) else {
            return false;
        };
        let now = SystemClock.now().unix_millis();
        let (mut arrived, time) = wire::read(message, now);
        let delayed = arrived.delayed.take();
        let (destination, due) = match delayed.filter(|_| self.names.is_delays(message.topic())) {
            // Where it goes then.
            Some(delayed) => (delayed.to, Some(delayed.due)),
            None => (destination, None),
        };
        let (partition, offset) = (message.partition(), message.offset());
        let record = Record {
            place: (Arc::from(message.topic()), partition),
            offset,
            destination,
            message: Arc::new(arrived.message),
            expires: arrived.expires,
            due,
            time,
        };
        self.books().ledger.take_in(record, now)
    }

    /// Sees which topics and partitions there are, and asks for them. Says when to look again.
    fn look(
        &self,
        consumer: &Consumer,
        unanswered: &mut Option<Instant>,
    ) -> Result<Duration, Reason> {
        let usual = self.link.config().topic_refresh;
        match self.places(consumer) {
            Ok(places) => {
                *unanswered = None;
                self.want(consumer, places)?;
                Ok(usual)
            }
            Err(error) => {
                tracing::debug!(target: "trunkline", broker = "kafka", %error, "the topics are not known");
                if self.link.now() != State::Up || self.roll().is_member {
                    *unanswered = None;
                } else if unanswered.get_or_insert_with(Instant::now).elapsed() >= STUCK {
                    return Err(format!(
                        "no answer, though the servers answer others: {error}"
                    ));
                }
                self.link.doubt();
                Ok(PAUSE.min(usual))
            }
        }
    }

    /// Every partition that falls under what is wanted.
    fn places(&self, consumer: &Consumer) -> Result<Vec<Place>, KafkaError> {
        let one = self.topic().and_then(Result::ok);
        let metadata = consumer.fetch_metadata(one.as_deref(), ANSWER_WITHIN)?;
        let mut places = Vec::new();
        for topic in metadata.topics() {
            let wanted = match (&self.source, self.names.destination(topic.name())) {
                (Source::Topics(pattern), Some(Destination::Topic(name))) => pattern.matches(&name),
                (Source::Queue(queue), Some(Destination::Queue(name))) => *queue == name,
                _ => false,
            };
            if wanted && topic.error().is_none() {
                let name: Arc<str> = Arc::from(topic.name());
                let partitions = topic.partitions().iter();
                places.extend(partitions.map(|partition| (Arc::clone(&name), partition.id())));
            }
        }
        places.sort();
        Ok(places)
    }

    /// Asks the driver for what is wanted and not asked for yet.
    fn want(&self, consumer: &Consumer, places: Vec<Place>) -> Result<(), Reason> {
        let topics: BTreeSet<Arc<str>> =
            places.iter().map(|(topic, _)| Arc::clone(topic)).collect();
        {
            let mut roll = self.roll();
            if !roll.has_looked {
                roll.initial = topics.iter().cloned().collect();
                roll.since = super::millis(self.start);
            }
            roll.has_looked = true;
            roll.places.clone_from(&places);
        }
        if self.group.is_some() {
            let known = consumer.subscription().map_err(|error| error.to_string())?;
            let known: BTreeSet<Arc<str>> = known
                .elements()
                .iter()
                .map(|one| Arc::from(one.topic()))
                .collect();
            if known != topics && !topics.is_empty() {
                let topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
                consumer
                    .subscribe(&topics)
                    .map_err(|error| error.to_string())?;
            }
            return Ok(());
        }
        let own = self.books().ledger.places();
        let new: Vec<Place> = places
            .into_iter()
            .filter(|place| !own.contains(place))
            .collect();
        let list: Option<TopicPartitionList> = self.begin(consumer, &new);
        match list {
            Some(list) if list.count() > 0 => consumer
                .incremental_assign(&list)
                .map_err(|error| error.to_string()),
            _ => Ok(()),
        }
    }

    /// Says whether messages can come.
    pub(super) fn refresh(&self) {
        let reason = match self.link.now() {
            State::Up => {
                let roll = self.roll();
                let nothing_to_join = roll.has_looked && roll.places.is_empty();
                let member = roll.is_member || nothing_to_join || self.group.is_none();
                let begun = !self.books().ledger.has_new();
                if self.is_in_doubt() {
                    // Said by who looks it up.
                    return;
                }
                if roll.has_looked && member && begun {
                    drop(roll);
                    self.set_state(SubscriptionState::Attached);
                    return;
                }
                if roll.was_expelled {
                    // Said already, and why.
                    return;
                }
                "joining the group".to_owned()
            }
            State::Down(_, reason) => reason,
            State::Closed => return,
        };
        self.detached(reason);
    }

    /// The driver says that something is wrong. What it does not get over itself ends the consumer.
    fn failed(&self, error: &KafkaError) -> Result<(), Reason> {
        let code = error.rdkafka_error_code();
        match (error, code) {
            (KafkaError::MessageConsumptionFatal(code), _) => {
                return Err(format!("the driver cannot go on: {code}"));
            }
            (_, Some(Code::PollExceeded)) => {
                // This thread was held up; the driver joins again at the next poll.
                let text =
                    "the group went on without this member: max.poll.interval.ms was exceeded";
                tracing::error!(target: "trunkline", broker = "kafka", "{text}");
                let mut roll = self.roll();
                (roll.is_member, roll.was_expelled) = (false, true);
                drop(roll);
                self.detached(text);
            }
            (
                _,
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition),
            ) => {
                if self.topic().is_some() {
                    return Err(format!("the topic is gone: {error}"));
                }
            }
            (_, Some(code)) if is_login(code) || kind_of(code) == ErrorKind::Denied => {
                self.roll().was_expelled = true;
                self.detached(error.to_string());
            }
            _ => {
                tracing::debug!(target: "trunkline", broker = "kafka", %error, "a consumer reports an error")
            }
        }
        self.link.doubt();
        Ok(())
    }
}
