//! Acknowledging and publishing in one step: transactions of Kafka, on the thread that commits.
//!
//! A transaction takes everything that waits to be forwarded, and the positions of its partitions as they stand when that is
//! done: it is a commit like the others, with messages. What is done out of order stands in the note beside the position, which
//! is part of it. It is made as the member of the generation that partitions were given to, so that the servers refuse it when
//! the group has gone on; and a member that begins where a transaction is open waits until that has ended.
//!
//! While it is not known what became of a transaction nothing else is committed: an older position, committed afterwards, would
//! bring back messages whose forwards can be seen.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use tokio::sync::oneshot;
use tokio::time::Instant;
use trunkline_core::{Error, ErrorKind, Id, Origin, Result, Retry};
use trunkline_messaging::Publish;

use super::ledger::Place;
use super::positions::committed;
use super::{Consumer, Hub, list};
use crate::config::KafkaConfig;
use crate::error::{kind_of, lease_lost, of_publish, of_question};
use crate::link::{self, Link, Reports, State, of_client};
use crate::note::Note;
use crate::publish::Admitted;

/// One step of a transaction may take so long.
const STEP: Duration = Duration::from_secs(5);
/// So often a commit that the driver can repeat is repeated before its outcome counts as unknown.
const COMMITS: usize = 6;
/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(200);
/// So many are forwarded in one transaction at most.
const AT_A_TIME: usize = 500;

/// Who is fenced so often within so long has a rival: a transaction of his own that the servers end because it took too long looks
/// the same, but not so often.
const FENCES: usize = 3;
const RIVALRY: Duration = Duration::from_secs(60);
/// Then it stands aside for so long.
pub(super) const ASIDE: Duration = Duration::from_secs(30);

/// Under which name a group's transactions are made.
pub(super) fn name(config: &KafkaConfig, group: Option<&str>) -> String {
    let group = group.unwrap_or_default();
    match &config.transactional_id {
        Some(id) => format!("{id}.{group}"),
        None => format!("trunkline.{group}.{}", Id::new()),
    }
}

/// A delivery that is to be done together with messages that are published.
pub(super) struct Forward {
    number: u64,
    messages: Vec<Admitted>,
    deadline: Instant,
    tell: oneshot::Sender<std::result::Result<(), Unforwarded>>,
}

/// Why a delivery was not forwarded, and what is to become of it.
pub(crate) struct Unforwarded {
    pub(crate) error: Error,
    pub(crate) then: Then,
}

/// What is to become of a delivery that was not forwarded.
pub(crate) enum Then {
    /// It comes again.
    Again,
    /// Nothing: it may have been forwarded. The thread that commits gives it back when it was not.
    Undecided,
}

impl From<Error> for Unforwarded {
    fn from(error: Error) -> Self {
        let then = Then::Again;
        Self { error, then }
    }
}

/// How often another has taken our name.
#[derive(Debug, Default)]
pub(super) struct Fences {
    seen: VecDeque<Instant>,
    /// Why nothing is consumed for now.
    aside: Option<String>,
}

/// What became of a transaction.
enum Outcome {
    Committed,
    /// Nothing of it happened.
    Aborted(Failed),
    /// Nobody knows.
    Doubt(Failed),
}

/// Why a transaction came to nothing. Unless it will never come to more it is tried again, while the partitions are ours: to give
/// its messages back would have them handled again.
struct Failed {
    error: Error,
    /// The group has gone on, or is about to.
    by_group: bool,
    /// Another has taken the name.
    by_fence: bool,
    /// The servers take less beside a position than was noted.
    by_note: bool,
}

impl Failed {
    fn is_permanent(&self) -> bool {
        self.error.retry() == Retry::Never && !self.by_group && !self.by_fence
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            by_group: false,
            by_fence: false,
            by_note: false,
        }
    }
}

impl From<&KafkaError> for Failed {
    fn from(error: &KafkaError) -> Self {
        let code = error.rdkafka_error_code();
        let code = match error {
            KafkaError::Transaction(error) => Some(error.code()),
            _ => code,
        };
        let kind = code.map_or(ErrorKind::Internal, kind_of);
        let retry = match kind {
            ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::NotFound => Retry::Never,
            _ => Retry::Safe,
        };
        Self {
            error: Error::new(kind, format!("the transaction failed: {error}"))
                .with_retry(retry)
                .with_origin(Origin::Remote)
                .with_source(error.clone()),
            by_group: matches!(
                code,
                Some(
                    Code::IllegalGeneration
                        | Code::UnknownMemberId
                        | Code::RebalanceInProgress
                        | Code::FencedInstanceId
                )
            ),
            by_fence: matches!(
                code,
                Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
            ),
            by_note: code == Some(Code::OffsetMetadataTooLarge),
        }
    }
}

/// What the driver's producer reports to.
struct Events {
    reports: Reports,
    /// Why a message of the transaction was not stored.
    refused: Mutex<Option<KafkaError>>,
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, part: &str, text: &str) {
        link::log(level, part, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(error, reason);
    }
}

impl Events {
    fn refused(&self) -> std::sync::MutexGuard<'_, Option<KafkaError>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProducerContext for Events {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result
            && !matches!(
                error.rdkafka_error_code(),
                Some(Code::PurgeQueue | Code::PurgeInflight)
            )
        {
            self.refused().get_or_insert_with(|| error.clone());
        }
    }
}

type Producer = ThreadedProducer<Events>;

/// The producer of one group's transactions in this process.
#[derive(Default)]
pub(super) struct Transactor(Option<Producer>);

impl Transactor {
    /// A producer whose earlier transactions have all ended, those of others under its name too.
    fn producer(&mut self, link: &Link, id: &str) -> std::result::Result<&Producer, Failed> {
        let known = match self.0.take() {
            Some(known) if known.client().fatal_error().is_none() => known,
            old => {
                drop(old);
                let events = Events {
                    reports: link.reports(),
                    refused: Mutex::default(),
                };
                let config = link.config().transactions(id);
                let new: Producer = ThreadedProducer::from_config_and_context(&config, events)
                    .map_err(|error| Failed::from(of_client(&error)))?;
                new.init_transactions(STEP * 2)
                    .map_err(|error| Failed::from(&error))?;
                new
            }
        };
        Ok(self.0.insert(known))
    }

    fn run(
        &mut self,
        link: &Link,
        id: &str,
        forwards: &[Forward],
        positions: &TopicPartitionList,
        member: &ConsumerGroupMetadata,
    ) -> Outcome {
        let producer = match self.producer(link, id) {
            Ok(producer) => producer,
            Err(failed) => return Outcome::Aborted(failed),
        };
        *producer.context().refused() = None;
        let filled = || {
            producer.begin_transaction()?;
            for message in forwards.iter().flat_map(|one| &one.messages) {
                let sent = producer.send(message.record(()));
                sent.map_err(|(error, _)| error)?;
            }
            producer.flush(STEP)?;
            if let Some(error) = producer.context().refused().clone() {
                return Err(error);
            }
            producer.send_offsets_to_transaction(positions, member, STEP)
        };
        if let Err(error) = filled() {
            // Nothing was committed, whether or not the servers hear of it now: the next producer of that name ends it, or they do.
            let (failed, _) = self.abort(&error);
            return Outcome::Aborted(failed);
        }
        let mut last = Failed::from(lease_lost());
        for _ in 0..COMMITS {
            match producer.commit_transaction(STEP) {
                Ok(()) => return Outcome::Committed,
                Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                    return match self.abort(&KafkaError::Transaction(error)) {
                        (failed, true) => Outcome::Aborted(failed),
                        (failed, false) => Outcome::Doubt(failed),
                    };
                }
                Err(error) => {
                    let again =
                        matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
                    last = Failed::from(&error);
                    if !again || link.is_closed() {
                        break;
                    }
                }
            }
        }
        self.0 = None;
        Outcome::Doubt(last)
    }

    /// Ends a transaction that failed; whether the servers say that it is aborted.
    fn abort(&mut self, error: &KafkaError) -> (Failed, bool) {
        let mut failed = Failed::from(error);
        let mut aborted = false;
        if let Some(producer) = &self.0 {
            if let Some(refused) = producer.context().refused().take() {
                failed.error = of_publish(&refused);
            }
            match producer.abort_transaction(STEP) {
                Ok(()) => aborted = true,
                Err(error) => {
                    tracing::debug!(target: "trunkline", broker = "kafka", %error, "a transaction was not aborted");
                    self.0 = None;
                }
            }
        }
        (failed, aborted)
    }
}

impl Hub {
    /// It is done, and these are published, all or nothing. When that fails it is still its holder's, unless it was lost.
    pub(crate) async fn transact(
        &self,
        number: u64,
        publishes: Vec<Publish>,
        deadline: Instant,
    ) -> std::result::Result<(), Unforwarded> {
        let Some(publisher) = self.publisher.get() else {
            return Err(self.gone().into());
        };
        if self.group.is_none() {
            // Who has no group keeps nothing, so that there is nothing to keep in step with.
            if !self.books().ledger.is_held(number) {
                return Err(self.gone().into());
            }
            for publish in publishes {
                let sent = publisher.send(publish, deadline).await?;
                publisher.confirmed(sent, deadline).await?;
            }
            return Ok(self.done(number).await?);
        }
        let mut messages = Vec::with_capacity(publishes.len());
        for publish in publishes {
            messages.push(publisher.admit(publish, deadline).await?);
        }
        let topics: Vec<String> = messages.iter().map(|one| one.topic.clone()).collect();
        let (tell, mut told) = oneshot::channel();
        {
            let mut books = self.books();
            if self.is_stopping() || !books.ledger.is_held(number) {
                drop(books);
                return Err(self.gone().into());
            }
            books.forwards.push(Forward {
                number,
                messages,
                deadline,
                tell,
            });
        }
        self.commit();
        // A step that has begun is waited for: it says what came of it.
        let outcome = match tokio::time::timeout_at(deadline + STEP * 2, &mut told).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(self.gone().into()),
            Err(_) => {
                // From here on the thread that commits sees that nobody waits. What it said until now counts.
                told.close();
                told.try_recv().unwrap_or_else(|_| {
                    let text = "whether the message was forwarded is not known in time; it comes again if it was not";
                    Err(Unforwarded {
                        error: Error::unavailable(text).with_retry(Retry::IfIdempotent),
                        then: Then::Undecided,
                    })
                })
            }
        };
        if matches!(&outcome, Err(failed) if failed.error.kind() == ErrorKind::NotFound) {
            for topic in &topics {
                publisher.forget(topic);
            }
        }
        outcome
    }

    /// Ends what one of our name has left open, for which the group waits, and is ready when there is something to forward.
    pub(super) fn begin_transactions(&self, transactor: &mut Transactor) {
        // Said where it is remembered.
        drop(self.ready(transactor));
    }

    /// Tries again where that failed, so that it is known when it is over, though nothing is to be forwarded.
    pub(super) fn begin_again(&self, transactor: &mut Transactor, at: &mut Instant) {
        if Instant::now() < *at || self.link.now() != State::Up || self.not_ready().is_none() {
            return;
        }
        *at = Instant::now() + STEP;
        self.begin_transactions(transactor);
    }

    /// Whether a transaction may begin; why not is remembered, and said once.
    fn ready(&self, transactor: &mut Transactor) -> std::result::Result<(), Failed> {
        let ready = transactor.producer(&self.link, &self.transactional_id);
        match &ready {
            Ok(_) => *self.trouble() = None,
            Err(failed) => self.troubled(&failed.error),
        }
        ready.map(drop)
    }

    fn troubled(&self, error: &Error) {
        let before = self.trouble().replace(again(error));
        if before.is_none() {
            let (id, error) = (&self.transactional_id, error.report());
            tracing::warn!(target: "trunkline", broker = "kafka", transactional_id = id, %error, "transactions are not ready");
        }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Error>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why transactions cannot be made, if they cannot.
    pub(crate) fn not_ready(&self) -> Option<Error> {
        self.trouble().as_ref().map(again)
    }

    /// Whether it is not known what became of a transaction: then nothing else is committed.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::SeqCst)
    }

    /// Makes a transaction of all that is to be forwarded. Where that fails for a reason that may be one message's, each has
    /// one of its own.
    pub(super) fn forward_what_waits(
        &self,
        consumer: &Consumer,
        transactor: &mut Transactor,
        over: &AtomicBool,
    ) {
        if self.is_in_doubt() {
            return;
        }
        let mut waiting = {
            let mut books = self.books();
            let count = books.forwards.len().min(AT_A_TIME);
            books.forwards.drain(..count).collect::<Vec<_>>()
        };
        if waiting.is_empty() {
            return;
        }
        let many = waiting.len() > 1;
        if let Some(left) = self.forward_together(consumer, transactor, over, &mut waiting, many) {
            debug_assert!(many && left.retry() == Retry::Never);
            for one in waiting {
                if self.is_in_doubt() {
                    self.books().forwards.push(one);
                    continue;
                }
                self.forward_together(consumer, transactor, over, &mut vec![one], false);
            }
        }
    }

    /// Makes a transaction of these, and tells who waits. With `apart`, an error that may be one message's is told to nobody
    /// and comes back.
    fn forward_together(
        &self,
        consumer: &Consumer,
        transactor: &mut Transactor,
        over: &AtomicBool,
        waiting: &mut Vec<Forward>,
        apart: bool,
    ) -> Option<Error> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut forwards, mut places) = (Vec::new(), Vec::new());
        let (standing, since) = {
            let mut books = self.books();
            for forward in waiting.drain(..) {
                match books.ledger.seal(forward.number) {
                    // Nobody waits for it any more: it comes again.
                    Some(_) if forward.tell.is_closed() => {
                        books.ledger.give_back(forward.number);
                    }
                    Some(place) => {
                        places.push(place);
                        forwards.push(forward);
                    }
                    None => drop(forward.tell.send(Err(self.gone().into()))),
                }
            }
            let numbers = forwards.iter().map(|one| one.number);
            (books.ledger.standing_after(numbers), books.since)
        };
        if forwards.is_empty() {
            drop(turn);
            self.settled.notify_all();
            self.arrived.notify_waiters();
            return None;
        }
        let longest = self.longest_note();
        let mut fits = true;
        let positions = standing.iter().map(|one| {
            let note = Note {
                since,
                handed: None,
                done: one.done.clone(),
            };
            let (text, all) = note.write(one.position, longest);
            fits &= all;
            (&one.place, one.position, text)
        });
        let positions = list(positions);
        let member = self.roll().member.clone();
        let outcome = match member {
            _ if !fits => Outcome::Aborted(Failed::from(no_room())),
            None => Outcome::Aborted(Failed {
                by_group: true,
                ..Failed::from(lease_lost())
            }),
            Some(member) => match self.ready(transactor) {
                Err(failed) => Outcome::Aborted(failed),
                Ok(()) => {
                    let id = &self.transactional_id;
                    transactor.run(&self.link, id, &forwards, &positions, &member)
                }
            },
        };
        if let Outcome::Aborted(failed) | Outcome::Doubt(failed) = &outcome {
            if failed.by_fence {
                self.fenced();
            }
            if failed.by_note {
                // As with a commit: positions matter more than what is done behind them.
                self.no_notes();
            }
        }
        let outcome = match outcome {
            Outcome::Doubt(failed) => {
                self.what_became_of(consumer, transactor, &places, failed, over)
            }
            known => known,
        };
        let failed = {
            let mut books = self.books();
            match outcome {
                Outcome::Committed => {
                    for one in &standing {
                        books.ledger.committed(one);
                        books.tell(&one.place, one.changes);
                    }
                    for (forward, (place, offset)) in forwards.into_iter().zip(&places) {
                        // Whoever has it by now: its messages are there.
                        books.ledger.finish(place, *offset);
                        // Who waited may have gone.
                        drop(forward.tell.send(Ok(())));
                    }
                    None
                }
                Outcome::Doubt(failed) => {
                    // They stay sealed until this consumer has ended, which is about to: it may be done what they are for.
                    for forward in forwards {
                        let error = again(&failed.error);
                        let then = Then::Undecided;
                        drop(forward.tell.send(Err(Unforwarded { error, then })));
                    }
                    Some(failed)
                }
                Outcome::Aborted(failed) => {
                    let permanent = failed.is_permanent();
                    let now = Instant::now();
                    let mut kept = Vec::new();
                    for forward in forwards {
                        if permanent && apart {
                            waiting.push(forward);
                        } else if !permanent
                            && now < forward.deadline
                            && !over.load(Ordering::SeqCst)
                        {
                            kept.push(forward);
                        } else {
                            let number = forward.number;
                            books.ledger.unseal(number);
                            let told = forward.tell.send(Err(again(&failed.error).into()));
                            if told.is_err() {
                                books.ledger.give_back(number);
                            }
                        }
                    }
                    books.forwards.splice(0..0, kept);
                    Some(failed)
                }
            }
        };
        drop(turn);
        self.settled.notify_all();
        self.arrived.notify_waiters();
        let failed = failed?;
        tracing::debug!(target: "trunkline", broker = "kafka", error = %failed.error, "a transaction came to nothing");
        if !waiting.is_empty() {
            return Some(failed.error);
        }
        self.link.doubt();
        if !over.load(Ordering::SeqCst) {
            self.wait(PAUSE);
        }
        None
    }

    /// Asks until it is known what became of a transaction. The next producer of its name ends it, one way or the other, before
    /// it begins; and positions are told when no transaction on them is open.
    fn what_became_of(
        &self,
        consumer: &Consumer,
        transactor: &mut Transactor,
        places: &[(Place, i64)],
        failed: Failed,
        over: &AtomicBool,
    ) -> Outcome {
        self.in_doubt.store(true, Ordering::SeqCst);
        let mut until = None;
        while !over.load(Ordering::SeqCst) {
            if self.is_stopping() {
                // Not for longer than somebody waits for the end.
                let until = *until.get_or_insert_with(|| Instant::now() + STEP);
                if Instant::now() >= until || self.link.now() != State::Up {
                    break;
                }
            }
            match self.are_done(consumer, transactor, places) {
                Ok(done) => {
                    self.in_doubt.store(false, Ordering::SeqCst);
                    return match done {
                        true => Outcome::Committed,
                        false => Outcome::Aborted(failed),
                    };
                }
                Err(error) => {
                    let error = error.report();
                    self.detached(format!(
                        "what became of a transaction is not known, and nothing is committed until it is: {error}"
                    ));
                }
            }
            self.link.doubt();
            self.wait(PAUSE);
        }
        let error = Error::unavailable("whether the message was forwarded is not known")
            .with_retry(Retry::IfIdempotent)
            .with_source(failed.error);
        Outcome::Doubt(Failed::from(error))
    }

    /// Whether the servers know these to be done, once no transaction is open.
    fn are_done(
        &self,
        consumer: &Consumer,
        transactor: &mut Transactor,
        places: &[(Place, i64)],
    ) -> Result<bool> {
        let partitions: Vec<Place> = places.iter().map(|(place, _)| place.clone()).collect();
        let known = match transactor.producer(&self.link, &self.transactional_id) {
            Ok(_) => committed(consumer, &partitions)
                .map_err(|error| of_question("the positions", &error)),
            Err(failed) => Err(failed.error),
        };
        let known = known.inspect_err(|error| self.troubled(error))?;
        *self.trouble() = None;
        let is_done = |(place, offset): &(Place, i64)| {
            let known = known.get(place);
            known.is_some_and(|(position, note)| offset < position || note.done.contains(*offset))
        };
        Ok(places.iter().all(is_done))
    }

    /// Another has taken our name, or the servers have ended a transaction that took too long, which looks the same. It is taken
    /// back; who has a rival that does so too stands aside.
    fn fenced(&self) {
        let mut fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while fences
            .seen
            .front()
            .is_some_and(|at| now.duration_since(*at) > RIVALRY)
        {
            fences.seen.pop_front();
        }
        fences.seen.push_back(now);
        let id = &self.transactional_id;
        if fences.seen.len() < FENCES {
            tracing::warn!(target: "trunkline", broker = "kafka", transactional_id = id, "a transaction was fenced; its messages are forwarded again");
            return;
        }
        let reason = format!(
            "fenced: another process makes transactions under the id `{id}` as well; this one has left the group and tries again \
             in {} s",
            ASIDE.as_secs()
        );
        tracing::error!(target: "trunkline", broker = "kafka", "{reason}");
        fences.aside = Some(reason.clone());
        drop(fences);
        self.detached(reason);
    }

    /// Why nothing is consumed for now, if a rival is the reason.
    pub(crate) fn stands_aside(&self) -> Option<String> {
        let fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        fences.aside.clone()
    }

    pub(super) fn comes_back(&self) {
        *self.fences.lock().unwrap_or_else(PoisonError::into_inner) = Fences::default();
    }

    /// Nobody will do what is still to be forwarded.
    pub(super) fn forget_forwards(&self) {
        let forwards = std::mem::take(&mut self.books().forwards);
        for forward in forwards {
            drop(forward.tell.send(Err(self.gone().into())));
        }
    }
}

/// What is done out of order is more than can be noted.
fn no_room() -> Error {
    let text = "too many messages behind the oldest one are done already for Kafka to note them beside its position";
    Error::exhausted(text).with_retry(Retry::Never)
}

/// The same error for one of several who wait.
fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.message().to_owned())
        .with_retry(error.retry())
        .with_origin(error.origin())
        .with_operation("forward")
}
