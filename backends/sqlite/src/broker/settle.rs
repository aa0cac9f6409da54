//! Settling deliveries: what consumers of one subscription settle at the same time is written by one job, and messages
//! in a row as one.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::oneshot;
use trunkline_core::{BoxFuture, Error, Result};
use trunkline_messaging::{Destination, Publish, Settle, Settlement, Source};

use super::book::Book;
use super::consumer::{Attached, Consumer, Ready, Stage, runs};
use super::group;
use super::outgoing::{Outgoing, micros};
use super::schema::row;
use super::span::{Keyed, NOBODY, Run, Span, Spans, Unblocked};
use crate::engine::{Job, Stop, Tx};
use crate::error::Failure;

const OPERATION: &str = "settle";
/// Settlements of one job.
const JOB_ITEMS: usize = 8192;
/// When a forward is refused the message comes again, but not at once: the reason will hardly be gone by then.
const AFTER_REFUSAL: i64 = 1_000_000;

/// One settlement on its way.
#[derive(Debug)]
pub(super) struct Item {
    run: Run,
    key: Option<Keyed>,
    size: usize,
    action: Action,
    reply: Option<oneshot::Sender<Result<()>>>,
}

#[derive(Debug)]
enum Action {
    /// It is done, or given up.
    Finish,
    /// It comes again, no earlier than so many microseconds from now.
    Requeue(i64),
    /// It is done, and this is published.
    Forward(Box<Outgoing>),
    /// It stays for so many microseconds from now.
    Extend(i64),
}

/// What became of one settlement, or of one that waits behind it.
#[derive(Debug, Default)]
struct Verdict {
    /// The delivery was lost before.
    lost: bool,
    refused: Option<Error>,
    /// The next message with the key, which this consumer holds.
    unblocked: Option<Span>,
    /// What waits for this message in this consumer goes back.
    drop_chain: bool,
}

/// The guard of one delivery.
pub(super) struct Handle {
    consumer: Arc<Consumer>,
    run: Run,
    key: Option<Keyed>,
    size: usize,
}

impl Handle {
    pub(super) fn new(consumer: Arc<Consumer>, ready: &Ready) -> Self {
        Self {
            consumer,
            run: Run::one(ready.topic, ready.position, ready.attempt),
            key: ready.key,
            size: ready.size,
        }
    }

    /// Gives the message its whole lease, counted from now, without waiting for it.
    pub(super) fn renew(&self, lease: i64) {
        self.send(Action::Extend(lease), None);
    }

    fn send(&self, action: Action, reply: Option<oneshot::Sender<Result<()>>>) {
        let item = Item {
            run: self.run,
            key: self.key,
            size: self.size,
            action,
            reply,
        };
        if self.consumer.push(item) {
            queue_job(&self.consumer);
        }
    }

    fn action(&self, settlement: Settlement, attached: &Attached) -> Result<Action> {
        Ok(match settlement {
            Settlement::Ack | Settlement::Reject => Action::Finish,
            Settlement::Requeue { delay } => Action::Requeue(delay.map_or(0, micros)),
            Settlement::Forward(publish) => {
                let now = self.consumer.clock.now().unix_micros();
                let publish: Publish = *publish;
                let outgoing = Outgoing::new(publish, now, attached.max_message_size)?;
                Action::Forward(Box::new(outgoing))
            }
            _ => return Err(Error::unsupported("this settlement is not known here")),
        })
    }

    fn ask(&self, action: Action) -> BoxFuture<'static, Result<()>> {
        if self.consumer.stage() == Stage::Closed {
            return Box::pin(async { Err(disconnected()) });
        }
        let (reply, answer) = oneshot::channel();
        self.send(action, Some(reply));
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(disconnected())) })
    }
}

impl Settle for Handle {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        let Some(attached) = self.consumer.attached() else {
            return Box::pin(async { Err(disconnected()) });
        };
        match self.action(settlement, attached) {
            Ok(action) => self.ask(action),
            Err(error) => {
                self.abandon();
                Box::pin(async { Err(error) })
            }
        }
    }

    fn abandon(self: Box<Self>) {
        if self.consumer.stage() != Stage::Closed {
            self.send(Action::Requeue(0), None);
        }
    }

    fn extend(&self, lease: std::time::Duration) -> BoxFuture<'_, Result<()>> {
        self.ask(Action::Extend(micros(lease)))
    }
}

/// The subscription was dropped: what it had not handed out goes back at once.
pub(super) fn leave(consumer: &Arc<Consumer>) {
    let (waiting, last) = consumer.end(Stage::Left);
    give_back(consumer, &waiting);
    if last {
        remove(consumer);
    }
}

/// Gives back messages that were not handed out.
pub(super) fn give_back(consumer: &Arc<Consumer>, messages: &[Ready]) {
    let Some(attached) = consumer.attached() else {
        return;
    };
    if messages.is_empty() {
        return;
    }
    let runs = runs(messages);
    let member = attached.member;
    let clock = Arc::clone(&consumer.clock);
    attached.jobs.errand(
        false,
        move |tx| {
            let now = clock.now().unix_micros();
            let (connection, book) = tx.cached::<Book>();
            let spans = Spans::of(connection, member.group);
            for run in &runs {
                for span in spans.take(*run, member.consumer)? {
                    spans.insert(&Span {
                        owner: NOBODY,
                        until: now,
                        attempt: span.attempt - 1,
                        ..span
                    })?;
                }
            }
            book.due(connection)?;
            book.save(connection)?;
            tx.ring();
            Ok(())
        },
        log("giving messages back"),
    );
}

/// Takes a consumer out; what it still has out becomes due.
pub(super) fn remove(consumer: &Arc<Consumer>) {
    let Some(attached) = consumer.attached() else {
        return;
    };
    let member = attached.member;
    let left = consumer.left();
    let clock = Arc::clone(&consumer.clock);
    attached.jobs.errand(
        false,
        move |tx| {
            let (connection, book) = tx.cached::<Book>();
            let given_back = group::leave(connection, member, left, clock.now().unix_micros())?;
            if given_back {
                book.due(connection)?;
                book.save(connection)?;
                tx.ring();
            }
            // Whether somebody gets a topic's messages may have changed.
            tx.forget_cached();
            Ok(())
        },
        log("removing a consumer"),
    );
}

fn log(what: &'static str) -> impl FnOnce(std::result::Result<(), &Failure>) + Send + 'static {
    move |outcome| {
        if let Err(failure) = outcome {
            let error = failure.to_error(OPERATION);
            tracing::debug!(target: "trunkline", error = %error.report(), "{what} failed; leases run out instead");
        }
    }
}

fn disconnected() -> Error {
    Error::cancelled("the broker was disconnected; the message comes again")
        .with_operation(OPERATION)
}

fn queue_job(consumer: &Arc<Consumer>) {
    if let Some(attached) = consumer.attached() {
        attached.jobs.submit(Box::new(SettleJob {
            consumer: Arc::clone(consumer),
            items: None,
            verdicts: Vec::new(),
        }));
    }
}

struct SettleJob {
    consumer: Arc<Consumer>,
    /// Taken when it runs first, so that as much as possible goes together.
    items: Option<Vec<Item>>,
    verdicts: Vec<Verdict>,
}

impl SettleJob {
    fn take(&self) -> Vec<Item> {
        let (items, more) = self.consumer.take_items(JOB_ITEMS);
        if more {
            queue_job(&self.consumer);
        }
        items
    }

    fn is_alone(&self) -> bool {
        self.consumer.wish.group.is_none() && matches!(self.consumer.wish.source, Source::Topics(_))
    }
}

impl Job for SettleJob {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        let items = match self.items.take() {
            Some(items) => items,
            None => self.take(),
        };
        let Some(attached) = self.consumer.attached() else {
            return Ok(());
        };
        let queue = match &self.consumer.wish.source {
            Source::Queue(name) => Some(Destination::Queue(name.clone())),
            Source::Topics(_) => None,
        };
        let (connection, book) = tx.cached::<Book>();
        let mut desk = Desk {
            connection,
            book,
            spans: Spans::of(connection, attached.member.group),
            consumer: attached.member.consumer,
            attached,
            queue,
            now: self.consumer.clock.now().unix_micros(),
            due: false,
        };
        let outcome = desk.settle_all(&items);
        let due = desk.due;
        self.items = Some(items);
        self.verdicts = outcome?;
        if due {
            tx.ring();
        }
        Ok(())
    }

    fn done(self: Box<Self>, outcome: std::result::Result<(), &Failure>) {
        let items = match self.items {
            Some(items) => items,
            None => self.consumer.take_items(usize::MAX).0,
        };
        let forgiving = self.consumer.wish.group.is_none() && self.consumer.stage() == Stage::Left;
        let (mut count, mut bytes) = (0, 0);
        let mut verdicts = self.verdicts.into_iter();
        let mut back = Vec::new();
        for item in items {
            if !matches!(item.action, Action::Extend(_)) {
                count += 1;
                bytes += item.size;
            }
            let verdict = verdicts.next().unwrap_or_default();
            if outcome.is_ok()
                && let Some(key) = item.key
            {
                if let Some(next) = verdict.unblocked {
                    self.consumer.unblock(key.digest, next.topic, next.lo);
                }
                if verdict.drop_chain {
                    // In the database it is blocked already.
                    self.consumer.drop_chain(key.digest);
                } else if verdict.lost && !matches!(item.action, Action::Extend(_)) {
                    back.extend(self.consumer.drop_chain(key.digest));
                }
            }
            if let Some(reply) = item.reply {
                let answer = match outcome {
                    Err(failure) => Err(failure.to_error(OPERATION)),
                    Ok(()) => verdict.answer(forgiving),
                };
                // Nobody waits any more: the caller was dropped.
                drop(reply.send(answer));
            }
        }
        give_back(&self.consumer, &back);
        if outcome.is_err() && count > 0 {
            self.consumer.unsettled();
        }
        if let Some(attached) = self.consumer.attached() {
            attached.outbox.made_room();
        }
        if self.consumer.settled(count, bytes) {
            remove(&self.consumer);
        }
    }

    fn durable(&self) -> bool {
        // What a subscriber without a group has seen matters to nobody after a power failure.
        !self.is_alone()
    }

    fn grows(&self) -> bool {
        false
    }
}

impl Verdict {
    fn answer(self, forgiving: bool) -> Result<()> {
        if let Some(error) = self.refused {
            return Err(error.with_operation(OPERATION));
        }
        if self.lost && !forgiving {
            return Err(Error::conflict(
                "the lease of the delivery ran out, or the message was removed",
            )
            .with_operation(OPERATION));
        }
        Ok(())
    }
}

/// Settles within one transaction.
struct Desk<'a, 'b> {
    connection: &'a Connection,
    book: &'b mut Book,
    spans: Spans<'a>,
    consumer: i64,
    attached: &'b Attached,
    queue: Option<Destination>,
    now: i64,
    /// Something can be given to others now.
    due: bool,
}

impl Desk<'_, '_> {
    fn settle_all(&mut self, items: &[Item]) -> rusqlite::Result<Vec<Verdict>> {
        let mut verdicts: Vec<Verdict> = items.iter().map(|_| Verdict::default()).collect();
        let simple = |item: &Item| item.key.is_none() && matches!(item.action, Action::Finish);
        let mut finished = Vec::new();
        for run in Run::of(
            items
                .iter()
                .filter(|item| simple(item))
                .map(|item| item.run)
                .collect(),
        ) {
            finished.extend(self.finish(run)?);
        }
        for (item, verdict) in items.iter().zip(&mut verdicts) {
            if simple(item) {
                verdict.lost = !is_among(&finished, &item.run);
            } else {
                *verdict = self.settle(item)?;
            }
        }
        if self.due {
            self.book.due(self.connection)?;
        }
        self.book.save(self.connection)?;
        Ok(verdicts)
    }

    fn settle(&mut self, item: &Item) -> rusqlite::Result<Verdict> {
        match &item.action {
            Action::Finish => self.finish_one(item),
            Action::Requeue(delay) => self.requeue(item, *delay),
            Action::Forward(outgoing) => self.forward(item, outgoing),
            Action::Extend(lease) => self.extend(item, *lease),
        }
    }

    /// Takes messages out for good; a queue forgets them.
    fn finish(&mut self, run: Run) -> rusqlite::Result<Vec<Span>> {
        let pieces = self.spans.take(run, self.consumer)?;
        for piece in &pieces {
            self.forget(piece.topic, piece.lo, piece.hi)?;
        }
        Ok(pieces)
    }

    fn forget(&mut self, topic: i64, lo: i64, hi: i64) -> rusqlite::Result<()> {
        let Some(queue) = &self.queue else {
            return Ok(());
        };
        let (count, bytes) = remove_messages(self.connection, topic, lo, hi)?;
        if let Some(topic) = self.book.find(self.connection, queue)? {
            topic.removed(count, bytes);
        }
        Ok(())
    }

    fn finish_one(&mut self, item: &Item) -> rusqlite::Result<Verdict> {
        let lost = self.finish(item.run)?.is_empty();
        let mut verdict = Verdict {
            lost,
            ..Verdict::default()
        };
        if let Some(key) = item.key.filter(|_| !lost) {
            verdict.unblocked = self.unblock(key)?;
        }
        Ok(verdict)
    }

    fn unblock(&mut self, key: Keyed) -> rusqlite::Result<Option<Span>> {
        match self.spans.unblock(key.digest, self.consumer, self.now)? {
            Unblocked::Nothing => Ok(None),
            Unblocked::Held(next) => Ok(Some(next)),
            Unblocked::Due => {
                self.due = true;
                Ok(None)
            }
        }
    }

    fn requeue(&mut self, item: &Item, delay: i64) -> rusqlite::Result<Verdict> {
        let pieces = self.spans.take(item.run, self.consumer)?;
        for piece in &pieces {
            self.spans.insert(&Span {
                owner: NOBODY,
                until: self.now.saturating_add(delay),
                ..*piece
            })?;
            self.due = true;
        }
        let lost = pieces.is_empty();
        if let Some(key) = item.key.filter(|_| !lost) {
            self.spans.block_behind(key, self.consumer)?;
        }
        Ok(Verdict {
            lost,
            drop_chain: !lost && item.key.is_some(),
            ..Verdict::default()
        })
    }

    fn forward(&mut self, item: &Item, outgoing: &Outgoing) -> rusqlite::Result<Verdict> {
        let held = self.spans.at_run(item.run, self.consumer)?;
        if !held {
            return Ok(Verdict {
                lost: true,
                ..Verdict::default()
            });
        }
        // One message goes, one comes: limits do not hold it up.
        let limits = self.attached.outbox.limits().lifted();
        match self
            .book
            .publish(self.connection, &limits, self.now, outgoing)
        {
            Ok(_) => {
                self.due = true;
                self.finish_one(item)
            }
            Err(Stop::Refused(error)) => Ok(Verdict {
                refused: Some(error),
                ..self.requeue(item, AFTER_REFUSAL)?
            }),
            Err(Stop::Sql(error)) => Err(error),
        }
    }

    fn extend(&mut self, item: &Item, lease: i64) -> rusqlite::Result<Verdict> {
        let pieces = self.spans.take(item.run, self.consumer)?;
        for piece in &pieces {
            self.spans.insert(&Span {
                until: self.now.saturating_add(lease),
                ..*piece
            })?;
        }
        // A shorter lease than before must be noticed.
        self.due |= !pieces.is_empty();
        Ok(Verdict {
            lost: pieces.is_empty(),
            ..Verdict::default()
        })
    }
}

/// Whether one of the pieces, which are in the order of runs, has the whole run.
fn is_among(pieces: &[Span], run: &Run) -> bool {
    let begins = |piece: &Span| (piece.topic, piece.attempt, piece.lo);
    let behind = pieces.partition_point(|piece| begins(piece) <= (run.topic, run.attempt, run.lo));
    let before = behind.checked_sub(1).and_then(|at| pieces.get(at));
    before.is_some_and(|piece| {
        piece.topic == run.topic && piece.attempt == run.attempt && run.hi <= piece.hi
    })
}

/// Removes stored messages; returns their number and size.
pub(super) fn remove_messages(
    connection: &Connection,
    topic: i64,
    lo: i64,
    hi: i64,
) -> rusqlite::Result<(i64, i64)> {
    let range = [row(topic, lo), row(topic, hi)];
    let (count, bytes) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(length(payload) + length(head) + coalesce(length(key), 0)), 0) \
             FROM message WHERE id BETWEEN ?1 AND ?2",
        )?
        .query_row(range, |row| Ok((row.get(0)?, row.get(1)?)))?;
    connection
        .prepare_cached("DELETE FROM message WHERE id BETWEEN ?1 AND ?2")?
        .execute(range)?;
    Ok((count, bytes))
}
