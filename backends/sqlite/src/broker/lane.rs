//! The way of messages to one consumer: what is due and what is new, read here and then claimed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use super::claim::{self, Claim, DueSpan, FreshTopic, Slot};
use super::consumer::{Consumer, Ready};
use super::feeder::{Topic, Topics};
use super::group;
use super::row;
use super::schema::{position, row as row_of};
use super::settle;
use super::span::{Keyed, Run, Span, Spans};
use crate::error::Failure;

/// Messages and bytes that are read at a time.
const READ_MESSAGES: usize = 2000;
const READ_BYTES: usize = 4 << 20;
/// After a claim that failed, or could not go on.
const RETRY: i64 = 100_000;
/// A consumer that is not asked for messages keeps them for itself no longer than twice this.
const IDLE: i64 = 100_000;
/// Leases are looked after no more often than this.
const LEAST_CARE: i64 = 10_000;

pub(super) struct Lane {
    consumer: Arc<Consumer>,
    slot: Slot,
    /// The group's cursors as this process knows them; they may be further on.
    cursors: Vec<(i64, i64)>,
    /// The cursors were not read yet.
    is_new: bool,
    /// No span of the group is due before this.
    due_at: i64,
    /// Nothing is tried before this.
    not_before: i64,
    care_at: i64,
    idle_at: i64,
    renewing: Arc<AtomicBool>,
}

impl Lane {
    pub(super) fn new(consumer: Arc<Consumer>) -> Self {
        Self {
            consumer,
            slot: Slot::default(),
            cursors: Vec::new(),
            is_new: true,
            due_at: 0,
            not_before: 0,
            care_at: 0,
            idle_at: 0,
            renewing: Arc::default(),
        }
    }

    /// Spans may be due earlier than was known.
    pub(super) fn may_be_due(&mut self) {
        self.due_at = 0;
        self.not_before = 0;
    }

    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    pub(super) fn read_cursors(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(attached) = self.consumer.attached() else {
            return Ok(());
        };
        self.cursors = connection
            .prepare_cached("SELECT topic, next FROM cursor WHERE grp = ?1")?
            .query_map([attached.member.group], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        self.is_new = false;
        Ok(())
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = i64> {
        self.cursors.iter().map(|(topic, _)| *topic)
    }

    /// When to look again although nothing changes.
    pub(super) fn next_look(&self) -> i64 {
        let mut next = self.due_at.max(self.not_before);
        if self.consumer.holds() {
            next = next.min(self.care_at).min(self.idle_at);
        }
        next
    }

    /// Looks for messages and claims what the consumer can take.
    pub(super) fn feed(
        &mut self,
        connection: &Connection,
        topics: &Topics,
        now: i64,
    ) -> rusqlite::Result<()> {
        self.care(now);
        self.let_go(connection, now)?;
        if self.slot.is_busy() {
            return Ok(());
        }
        self.learn(now);
        if now < self.not_before {
            return Ok(());
        }
        let is_fresh = self.is_fresh(topics);
        if self.due_at > now && !is_fresh {
            return Ok(());
        }
        let capacity = self.room();
        if capacity == 0 {
            // It calls when it has room; until then there is nothing to look for.
            self.not_before = i64::MAX;
            return Ok(());
        }
        let mut reading = Reading {
            connection,
            topics,
            now,
            left: capacity.min(READ_MESSAGES),
            bytes: READ_BYTES,
        };
        let mut claim = Claim::default();
        if self.due_at <= now {
            self.read_due(&mut reading, &mut claim)?;
        }
        if is_fresh {
            self.read_fresh(&mut reading, &mut claim)?;
        }
        if !claim.due.is_empty() || !claim.fresh.is_empty() {
            self.due_at = self.due_at.min(self.consumer.until(now));
            claim::submit(&self.consumer, &self.slot, claim);
        } else if self.due_at <= now {
            // Due, and in a topic that was not seen yet.
            self.not_before = now + RETRY;
        }
        Ok(())
    }

    fn room(&self) -> usize {
        match self.consumer.capacity() {
            0 => {
                self.consumer.is_hungry();
                // What was settled just before did not know yet.
                self.consumer.capacity()
            }
            room => room,
        }
    }

    fn learn(&mut self, now: i64) {
        if self.not_before == i64::MAX {
            self.not_before = 0;
        }
        let Some(report) = self.slot.take() else {
            return;
        };
        for (topic, next) in report.cursors {
            if let Some(known) = self.cursors.iter_mut().find(|(known, _)| *known == topic) {
                known.1 = next;
            }
        }
        if report.stalled || report.failed {
            self.not_before = now + RETRY;
        }
    }

    fn is_fresh(&self, topics: &Topics) -> bool {
        self.cursors
            .iter()
            .any(|(topic, next)| topics.get(*topic).is_some_and(|topic| topic.head >= *next))
    }

    fn read_due(&mut self, reading: &mut Reading<'_>, claim: &mut Claim) -> rusqlite::Result<()> {
        let Some(attached) = self.consumer.attached() else {
            return Ok(());
        };
        let spans = Spans::of(reading.connection, attached.member.group);
        let mut due = spans.due(reading.now, reading.left)?;
        if due.is_empty() {
            self.due_at = spans.next_due()?.unwrap_or(i64::MAX);
            return Ok(());
        }
        due.sort_by_key(|span| span.key.map_or(0, |key| key.ord));
        for span in due {
            if reading.left == 0 {
                break;
            }
            claim.due.extend(reading.due(span, &mut claim.messages)?);
        }
        Ok(())
    }

    fn read_fresh(&self, reading: &mut Reading<'_>, claim: &mut Claim) -> rusqlite::Result<()> {
        let room = reading.left;
        let mut found: Vec<(i64, Ready)> = Vec::new();
        let mut fresh = Vec::new();
        // What was published behind this cannot be given out before what was not read yet.
        let mut horizon = i64::MAX;
        for (number, next) in &self.cursors {
            let Some(topic) = reading.topics.get(*number) else {
                continue;
            };
            if topic.head < *next || room == 0 {
                continue;
            }
            reading.left = room;
            let looked = reading.range(*number, topic, *next, topic.head, |at, ready| {
                found.push((at, ready));
            })?;
            if looked.last < topic.head {
                horizon = horizon.min(looked.at);
            }
            fresh.push(FreshTopic {
                topic: *number,
                from: *next,
                last: looked.last,
            });
        }
        if fresh.len() > 1 {
            merge(&mut found, &mut fresh, room, horizon);
        }
        claim
            .messages
            .extend(found.into_iter().map(|(_, ready)| ready));
        claim.fresh = fresh;
        Ok(())
    }

    /// Nobody asks the consumer for the messages it holds: if there are other consumers in the group, they get them.
    fn let_go(&mut self, connection: &Connection, now: i64) -> rusqlite::Result<()> {
        if now < self.idle_at {
            return Ok(());
        }
        self.idle_at = now + IDLE;
        let Some(attached) = self.consumer.attached() else {
            return Ok(());
        };
        if !self.consumer.is_idle() || group::consumers(connection, attached.member.group)? < 2 {
            return Ok(());
        }
        settle::give_back(&self.consumer, &self.consumer.rest());
        Ok(())
    }

    /// Renews what waits in the consumer, so that whoever gets it has the whole lease.
    fn care(&mut self, now: i64) {
        if now < self.care_at {
            return;
        }
        self.care_at = now + (self.consumer.slack() / 2).max(LEAST_CARE);
        let runs = self.consumer.aging(now);
        let Some(attached) = self.consumer.attached() else {
            return;
        };
        if runs.is_empty() || self.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let member = attached.member;
        let asked = runs.clone();
        let (consumer, again) = (Arc::clone(&self.consumer), Arc::clone(&self.consumer));
        let renewing = Arc::clone(&self.renewing);
        attached.jobs.errand(
            false,
            move |tx| {
                let until = consumer.until(consumer.clock.now().unix_micros());
                let spans = Spans::of(tx.connection(), member.group);
                let mut kept = Vec::new();
                for run in &runs {
                    for span in spans.take(*run, member.consumer)? {
                        spans.insert(&Span { until, ..span })?;
                        kept.push(Run {
                            lo: span.lo,
                            hi: span.hi,
                            ..*run
                        });
                    }
                }
                Ok((kept, until))
            },
            move |outcome: Result<(Vec<Run>, i64), &Failure>| {
                if let Ok((kept, until)) = outcome {
                    again.renewed(&asked, &kept, until);
                }
                renewing.store(false, Ordering::Release);
            },
        );
    }
}

/// Puts the messages of several topics in the order in which they were published and keeps as many as there is room
/// for, none of them behind the horizon.
fn merge(found: &mut Vec<(i64, Ready)>, fresh: &mut Vec<FreshTopic>, room: usize, horizon: i64) {
    found.sort_by_key(|(at, _)| *at);
    let kept = found.partition_point(|(at, _)| *at <= horizon).min(room);
    let mut left = found.split_off(kept);
    left.reverse();
    for (_, ready) in left {
        // The first one left of each topic comes last.
        if let Some(topic) = fresh.iter_mut().find(|topic| topic.topic == ready.topic) {
            topic.last = ready.position - 1;
        }
    }
    fresh.retain(|topic| topic.last >= topic.from);
}

/// How far a range was looked at.
struct Looked {
    last: i64,
    /// The time of the last message looked at.
    at: i64,
}

struct Reading<'a> {
    connection: &'a Connection,
    topics: &'a Topics,
    now: i64,
    left: usize,
    bytes: usize,
}

impl Reading<'_> {
    fn due(&mut self, span: Span, messages: &mut Vec<Ready>) -> rusqlite::Result<Option<DueSpan>> {
        let topics = self.topics;
        let Some(topic) = topics.get(span.topic) else {
            return Ok(None);
        };
        let before = messages.len();
        let looked = self.range(span.topic, topic, span.lo, span.hi, |_, mut ready| {
            if span.key.is_none() {
                ready.key = None;
            }
            messages.push(ready);
        })?;
        let found = messages.len() - before;
        // Without room for a single one nothing was looked at.
        let last = looked.last;
        Ok((last >= span.lo).then_some(DueSpan { span, last, found }))
    }

    /// Reads the messages of a range, as many as there is room for, and says how far it looked.
    fn range(
        &mut self,
        number: i64,
        topic: &Topic,
        lo: i64,
        hi: i64,
        mut each: impl FnMut(i64, Ready),
    ) -> rusqlite::Result<Looked> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, at, expires, key, head, payload FROM message WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
        )?;
        let mut rows = statement.query([row_of(number, lo), row_of(number, hi)])?;
        let mut looked = Looked {
            last: lo - 1,
            at: 0,
        };
        while self.left > 0 {
            let Some(row) = rows.next()? else {
                return Ok(Looked { last: hi, ..looked });
            };
            let at: i64 = row.get(1)?;
            let last = position(row.get(0)?);
            looked = Looked { last, at };
            let expires: Option<i64> = row.get(2)?;
            if expires.is_some_and(|expires| expires <= self.now) {
                continue;
            }
            let Some(ready) = read(row, number, topic, last, at)? else {
                tracing::error!(target: "trunkline", destination = %topic.destination, position = last, "a stored message is damaged and skipped");
                continue;
            };
            self.left -= 1;
            let size = ready.size;
            each(at, ready);
            if size >= self.bytes {
                self.left = 0;
            }
            self.bytes = self.bytes.saturating_sub(size);
        }
        Ok(looked)
    }
}

fn read(
    row: &rusqlite::Row<'_>,
    number: i64,
    topic: &Topic,
    position: i64,
    at: i64,
) -> rusqlite::Result<Option<Ready>> {
    let key = row.get_ref(3)?.as_blob_or_null()?;
    let (head, payload) = (row.get_ref(4)?.as_blob()?, row.get_ref(5)?.as_blob()?);
    let size = head.len() + payload.len() + key.map_or(0, <[u8]>::len);
    let keyed = key.map(|key| Keyed {
        digest: row::digest(key),
        ord: at,
    });
    let message = row::decode(head, key, payload);
    Ok(message.map(|message| Ready {
        message,
        destination: topic.destination.clone(),
        topic: number,
        position,
        attempt: 0,
        key: keyed,
        size,
        until: 0,
    }))
}
