//! Giving messages to a consumer: what the feeder has read is claimed in one short transaction, in which nothing is
//! read but whether it is still free.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension};

use super::book::Book;
use super::consumer::{Consumer, Ready, Stage};
use super::schema::BLOCKED;
use super::settle;
use super::span::{Keyed, NOBODY, Span, Spans, Unblocked};
use crate::engine::{Job, Tx};
use crate::error::Failure;

/// Messages of one group that may wait for an earlier one with their key in the hands of another consumer. Beyond that
/// the group goes no further, instead of writing down a whole backlog of one key.
const MOST_BLOCKED: usize = 1000;

/// What the feeder found for one consumer.
#[derive(Debug, Default)]
pub(super) struct Claim {
    /// Spans whose time has come; those with a key in the order of their messages' times.
    pub(super) due: Vec<DueSpan>,
    /// Topics with new messages.
    pub(super) fresh: Vec<FreshTopic>,
    /// The messages: first those of the spans, then the new ones in the order in which they were published.
    pub(super) messages: Vec<Ready>,
}

/// A topic with new messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreshTopic {
    pub(super) topic: i64,
    /// Where the group was thought to be.
    pub(super) from: i64,
    /// The last position looked at; what is missing up to it is gone.
    pub(super) last: i64,
}

/// A span that is due.
#[derive(Debug)]
pub(super) struct DueSpan {
    pub(super) span: Span,
    /// The last position looked at; what is missing up to it is gone.
    pub(super) last: i64,
    /// How many messages were found.
    pub(super) found: usize,
}

/// What the feeder learns from a claim.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The cursors by topic, as they are now.
    pub(super) cursors: Vec<(i64, i64)>,
    /// Too many messages wait for earlier ones with their key.
    pub(super) stalled: bool,
    pub(super) failed: bool,
}

/// Where a claim leaves its report; one claim of a consumer is on its way at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(Arc<SlotState>);

#[derive(Debug, Default)]
struct SlotState {
    busy: AtomicBool,
    report: Mutex<Option<Report>>,
}

impl Slot {
    pub(super) fn is_busy(&self) -> bool {
        self.0.busy.load(Ordering::Acquire)
    }

    pub(super) fn take(&self) -> Option<Report> {
        self.0
            .report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn fill(&self, report: Report) {
        *self.0.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        self.0.busy.store(false, Ordering::Release);
    }
}

/// Queues a claim.
pub(super) fn submit(consumer: &Arc<Consumer>, slot: &Slot, claim: Claim) {
    let Some(attached) = consumer.attached() else {
        return;
    };
    slot.0.busy.store(true, Ordering::Release);
    attached.jobs.submit(Box::new(ClaimJob {
        consumer: Arc::clone(consumer),
        slot: slot.clone(),
        claim,
        taken: Taken::default(),
    }));
}

struct ClaimJob {
    consumer: Arc<Consumer>,
    slot: Slot,
    claim: Claim,
    taken: Taken,
}

/// What was taken; made anew when the job runs again.
#[derive(Debug, Default)]
struct Taken {
    report: Report,
    /// For each message, how it was given.
    grants: Vec<Option<Grant>>,
    until: i64,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    attempt: i64,
    /// It waits for an earlier message with its key, which the same consumer has.
    held: bool,
}

impl Job for ClaimJob {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        self.taken = Taken::default();
        let Some(attached) = self.consumer.attached() else {
            return Ok(());
        };
        if self.consumer.stage() != Stage::Open {
            return Ok(());
        }
        let now = self.consumer.clock.now().unix_micros();
        let (connection, book) = tx.cached::<Book>();
        let mut claimer = Claimer {
            connection,
            group: attached.member.group,
            spans: Spans::of(connection, attached.member.group),
            owner: attached.member.consumer,
            now,
            until: self.consumer.until(now),
            unblocked: false,
        };
        let report = Report::default();
        let grants = Vec::with_capacity(self.claim.messages.len());
        self.taken = Taken {
            report,
            grants,
            until: claimer.until,
        };
        let mut messages = self.claim.messages.as_slice();
        for due in &self.claim.due {
            let (own, rest) = messages.split_at(due.found.min(messages.len()));
            messages = rest;
            claimer.take_due(due, own, &mut self.taken)?;
        }
        claimer.take_fresh(&self.claim.fresh, messages, &mut self.taken)?;
        if claimer.unblocked {
            book.due(connection)?;
            book.save(connection)?;
            tx.ring();
        }
        Ok(())
    }

    fn done(self: Box<Self>, outcome: Result<(), &Failure>) {
        let Self {
            consumer,
            slot,
            claim,
            taken,
        } = *self;
        let report = if outcome.is_ok() {
            let mut ready = Vec::with_capacity(claim.messages.len());
            let mut held = Vec::new();
            for (mut message, grant) in claim.messages.into_iter().zip(taken.grants) {
                let Some(grant) = grant else { continue };
                message.attempt = grant.attempt;
                message.until = taken.until;
                if grant.held {
                    held.push(message);
                } else {
                    ready.push(message);
                }
            }
            let refused = consumer.deliver(ready, held);
            settle::give_back(&consumer, &refused);
            taken.report
        } else {
            // Whatever was found out was rolled back.
            Report {
                failed: true,
                ..Report::default()
            }
        };
        slot.fill(report);
        if let Some(attached) = consumer.attached() {
            attached.nudge.now();
        }
    }

    fn durable(&self) -> bool {
        // A lease that a power failure loses is no loss.
        false
    }

    fn grows(&self) -> bool {
        false
    }
}

struct Claimer<'a> {
    connection: &'a Connection,
    group: i64,
    spans: Spans<'a>,
    owner: i64,
    now: i64,
    until: i64,
    unblocked: bool,
}

/// How far a group is in a topic, while a claim goes on.
struct Progress {
    topic: i64,
    cursor: i64,
    next: i64,
    last: i64,
}

impl Claimer<'_> {
    fn take_due(
        &mut self,
        due: &DueSpan,
        messages: &[Ready],
        taken: &mut Taken,
    ) -> rusqlite::Result<()> {
        let grants = taken.grants.len();
        taken.grants.resize(grants + messages.len(), None);
        let seen = due.span;
        let Some(span) = self.spans.at(seen.topic, seen.lo)? else {
            return Ok(());
        };
        if span.until > self.now || span.attempt != seen.attempt {
            return Ok(());
        }
        if let Some(key) = span.key
            && self.spans.is_behind_another(key, self.owner)?
        {
            self.spans.remove(span.topic, span.lo)?;
            return self.spans.insert(&Span {
                owner: NOBODY,
                until: BLOCKED,
                ..span
            });
        }
        let last = due.last.min(span.hi);
        self.spans.take_from(span, span.lo, last)?;
        let given = Span {
            owner: self.owner,
            until: self.until,
            attempt: span.attempt + 1,
            ..span
        };
        let present = messages.iter().map(|message| message.position);
        for (lo, hi) in rows_of(present.take_while(|position| *position <= last)) {
            self.spans.insert(&Span { lo, hi, ..given })?;
        }
        let held = match span.key {
            Some(key) if messages.is_empty() => {
                // It expired, or was removed: the next one of its key need not wait.
                let next = self.spans.unblock(key.digest, NOBODY, self.now)?;
                self.unblocked |= next != Unblocked::Nothing;
                false
            }
            Some(key) => self.spans.is_behind_own(key, self.owner)?,
            None => false,
        };
        let grant = Grant {
            attempt: given.attempt,
            held,
        };
        for (place, message) in taken.grants.iter_mut().skip(grants).zip(messages) {
            *place = (message.position <= last).then_some(grant);
        }
        Ok(())
    }

    fn take_fresh(
        &self,
        topics: &[FreshTopic],
        messages: &[Ready],
        taken: &mut Taken,
    ) -> rusqlite::Result<()> {
        let mut progress = self.progress(topics)?;
        let mut plain: Vec<(i64, i64)> = Vec::new();
        for message in messages {
            let position = message.position;
            let topic = progress.iter_mut().find(|one| one.topic == message.topic);
            let wanted = |topic: &&mut Progress| (topic.cursor..=topic.last).contains(&position);
            let Some(topic) = topic.filter(wanted) else {
                taken.grants.push(None);
                continue;
            };
            let grant = match message.key {
                None => {
                    plain.push((message.topic, position));
                    Some(Grant {
                        attempt: 1,
                        held: false,
                    })
                }
                Some(key) => match self.take_keyed(message, key)? {
                    Given::To(grant) => Some(grant),
                    Given::Blocked => None,
                    Given::TooMany => {
                        taken.report.stalled = true;
                        break;
                    }
                },
            };
            taken.grants.push(grant);
            topic.next = position + 1;
        }
        self.insert_plain(plain)?;
        for topic in &mut progress {
            if !taken.report.stalled {
                topic.next = topic.next.max(topic.last + 1);
            }
            if topic.next != topic.cursor {
                self.connection
                    .prepare_cached("UPDATE cursor SET next = ?3 WHERE grp = ?1 AND topic = ?2")?
                    .execute([self.group, topic.topic, topic.next])?;
            }
            taken.report.cursors.push((topic.topic, topic.next));
        }
        Ok(())
    }

    fn progress(&self, topics: &[FreshTopic]) -> rusqlite::Result<Vec<Progress>> {
        let mut progress = Vec::with_capacity(topics.len());
        for fresh in topics {
            let cursor: Option<i64> = self
                .connection
                .prepare_cached("SELECT next FROM cursor WHERE grp = ?1 AND topic = ?2")?
                .query_row([self.group, fresh.topic], |row| row.get(0))
                .optional()?;
            progress.extend(cursor.map(|cursor| Progress {
                topic: fresh.topic,
                cursor,
                next: cursor,
                // A cursor that was set back meanwhile: nothing that was read is next.
                last: if cursor < fresh.from { 0 } else { fresh.last },
            }));
        }
        Ok(progress)
    }

    /// Messages without a key, in a row as one span.
    fn insert_plain(&self, mut plain: Vec<(i64, i64)>) -> rusqlite::Result<()> {
        plain.sort_unstable();
        let mut rest = plain.as_slice();
        while let Some((topic, _)) = rest.first().copied() {
            let end = rest.partition_point(|(other, _)| *other == topic);
            let (own, others) = rest.split_at(end);
            rest = others;
            for (lo, hi) in rows_of(own.iter().map(|(_, position)| *position)) {
                self.spans.insert(&Span {
                    topic,
                    lo,
                    hi,
                    owner: self.owner,
                    until: self.until,
                    attempt: 1,
                    key: None,
                })?;
            }
        }
        Ok(())
    }

    /// Gives out a new message with a key, or lets it wait for an earlier one.
    fn take_keyed(&self, message: &Ready, key: Keyed) -> rusqlite::Result<Given> {
        let span = Span {
            topic: message.topic,
            lo: message.position,
            hi: message.position,
            owner: self.owner,
            until: self.until,
            attempt: 1,
            key: Some(key),
        };
        if self.spans.is_behind_another(key, self.owner)? {
            if self.spans.blocked(MOST_BLOCKED)? >= MOST_BLOCKED {
                return Ok(Given::TooMany);
            }
            self.spans.insert(&Span {
                owner: NOBODY,
                until: BLOCKED,
                attempt: 0,
                ..span
            })?;
            return Ok(Given::Blocked);
        }
        let held = self.spans.is_behind_own(key, self.owner)?;
        self.spans.insert(&span)?;
        Ok(Given::To(Grant { attempt: 1, held }))
    }
}

enum Given {
    To(Grant),
    Blocked,
    TooMany,
}

/// Rows of positions without a gap.
fn rows_of(positions: impl Iterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut rows: Vec<(i64, i64)> = Vec::new();
    for position in positions {
        match rows.last_mut() {
            Some((_, hi)) if *hi + 1 == position => *hi = position,
            _ => rows.push((position, position)),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::rows_of;

    #[test]
    fn positions_in_a_row_are_one() {
        assert_eq!(
            rows_of([1, 2, 3, 5, 7, 8].into_iter()),
            [(1, 3), (5, 5), (7, 8)]
        );
        assert!(rows_of(std::iter::empty()).is_empty());
    }
}
