//! Runs of messages that a group was given and has not settled, or that wait to be given again.
//!
//! Spans of one group and topic never overlap. A message before the cursor that is in no span is finished.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::schema::BLOCKED;

/// Nobody has it.
pub(super) const NOBODY: i64 = 0;

/// A run of messages in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) topic: i64,
    pub(super) lo: i64,
    pub(super) hi: i64,
    pub(super) owner: i64,
    pub(super) until: i64,
    pub(super) attempt: i64,
    pub(super) key: Option<Keyed>,
}

/// What keeps a message in order: the digest of its key, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keyed {
    pub(super) digest: i64,
    pub(super) ord: i64,
}

/// Messages in a row that were given out at the same attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) topic: i64,
    pub(super) lo: i64,
    pub(super) hi: i64,
    pub(super) attempt: i64,
}

impl Run {
    /// Puts single messages together to runs, in order.
    pub(super) fn of(mut messages: Vec<Self>) -> Vec<Self> {
        messages.sort_unstable_by_key(|run| (run.topic, run.attempt, run.lo));
        let mut runs: Vec<Self> = Vec::new();
        for message in messages {
            match runs.last_mut() {
                Some(last) if last.is_before(&message) => last.hi = message.hi,
                _ => runs.push(message),
            }
        }
        runs
    }

    fn is_before(&self, next: &Self) -> bool {
        self.topic == next.topic && self.attempt == next.attempt && self.hi + 1 == next.lo
    }

    pub(super) fn one(topic: i64, position: i64, attempt: i64) -> Self {
        Self {
            topic,
            lo: position,
            hi: position,
            attempt,
        }
    }
}

impl Span {
    /// The span without a run in the middle: what is left of it on both sides, and the part taken out.
    fn cut(self, lo: i64, hi: i64) -> Cut {
        let part = |lo: i64, hi: i64| (lo <= hi).then_some(Self { lo, hi, ..self });
        Cut {
            before: part(self.lo, self.hi.min(lo - 1)),
            taken: part(self.lo.max(lo), self.hi.min(hi)),
            after: part(self.lo.max(hi + 1), self.hi),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Cut {
    before: Option<Span>,
    taken: Option<Span>,
    after: Option<Span>,
}

/// The spans of one group.
#[derive(Clone, Copy)]
pub(super) struct Spans<'a> {
    connection: &'a Connection,
    group: i64,
}

const COLUMNS: &str = "topic, lo, hi, owner, until, attempt, key, ord";

fn read(row: &Row<'_>) -> rusqlite::Result<Span> {
    let digest: Option<i64> = row.get(6)?;
    let ord: Option<i64> = row.get(7)?;
    Ok(Span {
        topic: row.get(0)?,
        lo: row.get(1)?,
        hi: row.get(2)?,
        owner: row.get(3)?,
        until: row.get(4)?,
        attempt: row.get(5)?,
        key: digest.zip(ord).map(|(digest, ord)| Keyed { digest, ord }),
    })
}

impl<'a> Spans<'a> {
    pub(super) fn of(connection: &'a Connection, group: i64) -> Self {
        Self { connection, group }
    }

    pub(super) fn insert(&self, span: &Span) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT INTO span VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
            .execute(params![
                self.group,
                span.topic,
                span.lo,
                span.hi,
                span.owner,
                span.until,
                span.attempt,
                span.key.map(|key| key.digest),
                span.key.map(|key| key.ord),
            ])?;
        Ok(())
    }

    /// The span that begins at a position, if there is one.
    pub(super) fn at(&self, topic: i64, lo: i64) -> rusqlite::Result<Option<Span>> {
        self.connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM span WHERE grp = ?1 AND topic = ?2 AND lo = ?3"
            ))?
            .query_row([self.group, topic, lo], read)
            .optional()
    }

    /// Takes a run of messages out of the spans of one delivery — an owner and the attempt it was given — and returns
    /// the pieces, in order. What the owner lost, even to itself, is not among them.
    pub(super) fn take(&self, run: Run, owner: i64) -> rusqlite::Result<Vec<Span>> {
        let mut pieces = Vec::new();
        for span in self.touching(run.topic, run.lo, run.hi)? {
            if span.owner == owner && span.attempt == run.attempt {
                pieces.extend(self.take_from(span, run.lo, run.hi)?);
            }
        }
        Ok(pieces)
    }

    /// Whether the owner still has the message of a delivery.
    pub(super) fn at_run(&self, run: Run, owner: i64) -> rusqlite::Result<bool> {
        let spans = self.touching(run.topic, run.lo, run.hi)?;
        Ok(spans
            .iter()
            .any(|span| span.owner == owner && span.attempt == run.attempt))
    }

    /// Takes a run of messages out of every span, whoever has it.
    pub(super) fn take_any(&self, topic: i64, lo: i64, hi: i64) -> rusqlite::Result<Vec<Span>> {
        let mut pieces = Vec::new();
        for span in self.touching(topic, lo, hi)? {
            pieces.extend(self.take_from(span, lo, hi)?);
        }
        Ok(pieces)
    }

    /// Takes a run of messages out of one span.
    pub(super) fn take_from(&self, span: Span, lo: i64, hi: i64) -> rusqlite::Result<Option<Span>> {
        let cut = span.cut(lo, hi);
        if cut.taken.is_some() {
            self.remove(span.topic, span.lo)?;
            for left in [cut.before, cut.after].into_iter().flatten() {
                self.insert(&left)?;
            }
        }
        Ok(cut.taken)
    }

    /// All spans that have a message of the run.
    fn touching(&self, topic: i64, lo: i64, hi: i64) -> rusqlite::Result<Vec<Span>> {
        // Spans do not overlap, so only the last one that begins before the run can reach into it.
        self.connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM span WHERE grp = ?1 AND topic = ?2 AND lo <= ?4 AND hi >= ?3 AND lo >= \
                 coalesce((SELECT max(lo) FROM span WHERE grp = ?1 AND topic = ?2 AND lo <= ?3), ?3) ORDER BY lo"
            ))?
            .query_map([self.group, topic, lo, hi], read)?
            .collect()
    }

    pub(super) fn remove(&self, topic: i64, lo: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM span WHERE grp = ?1 AND topic = ?2 AND lo = ?3")?
            .execute([self.group, topic, lo])?;
        Ok(())
    }

    /// Spans whose time has come, longest waiting first.
    pub(super) fn due(&self, now: i64, at_most: usize) -> rusqlite::Result<Vec<Span>> {
        self.connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM span WHERE grp = ?1 AND until <= ?2 ORDER BY until, topic, lo LIMIT ?3"
            ))?
            .query_map(params![self.group, now, at_most as i64], read)?
            .collect()
    }

    /// When the next span becomes due.
    pub(super) fn next_due(&self) -> rusqlite::Result<Option<i64>> {
        let until: Option<i64> = self
            .connection
            .prepare_cached("SELECT min(until) FROM span WHERE grp = ?1")?
            .query_row([self.group], |row| row.get(0))?;
        Ok(until.filter(|until| *until != BLOCKED))
    }

    /// Whether somebody other than `owner` has an earlier message with this key.
    pub(super) fn is_behind_another(&self, key: Keyed, owner: i64) -> rusqlite::Result<bool> {
        self.connection
            .prepare_cached(
                "SELECT 1 FROM span WHERE grp = ?1 AND key = ?2 AND ord < ?3 AND owner <> ?4 LIMIT 1",
            )?
            .exists([self.group, key.digest, key.ord, owner])
    }

    /// Whether the owner itself has an earlier message with this key.
    pub(super) fn is_behind_own(&self, key: Keyed, owner: i64) -> rusqlite::Result<bool> {
        self.connection
            .prepare_cached(
                "SELECT 1 FROM span WHERE grp = ?1 AND key = ?2 AND ord < ?3 AND owner = ?4 LIMIT 1",
            )?
            .exists([self.group, key.digest, key.ord, owner])
    }

    /// The first unsettled message with this key.
    pub(super) fn first_of_key(&self, digest: i64) -> rusqlite::Result<Option<Span>> {
        self.connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM span WHERE grp = ?1 AND key = ?2 ORDER BY ord LIMIT 1"
            ))?
            .query_row([self.group, digest], read)
            .optional()
    }

    /// How many messages wait for an earlier one with the same key, counted up to a limit.
    pub(super) fn blocked(&self, at_most: usize) -> rusqlite::Result<usize> {
        let count: i64 = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM span WHERE grp = ?1 AND until = ?2 LIMIT ?3)",
            )?
            .query_row(params![self.group, BLOCKED, at_most as i64], |row| {
                row.get(0)
            })?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Lets the first unsettled message with this key be given out, now that the one before it is settled. Returns it
    /// when the owner itself holds it already.
    pub(super) fn unblock(&self, digest: i64, owner: i64, now: i64) -> rusqlite::Result<Unblocked> {
        let Some(next) = self.first_of_key(digest)? else {
            return Ok(Unblocked::Nothing);
        };
        if owner != NOBODY && next.owner == owner {
            return Ok(Unblocked::Held(next));
        }
        // Whoever holds a later message while an earlier one is unsettled has not given it to a handler.
        if next.owner != NOBODY || next.until == BLOCKED {
            self.release(next, now)?;
            return Ok(Unblocked::Due);
        }
        Ok(Unblocked::Nothing)
    }

    /// Gives a held message back as if it had not been given out.
    fn release(&self, span: Span, until: i64) -> rusqlite::Result<()> {
        let counted = i64::from(span.owner != NOBODY);
        self.remove(span.topic, span.lo)?;
        self.insert(&Span {
            owner: NOBODY,
            until,
            attempt: span.attempt - counted,
            ..span
        })
    }

    /// Gives back what the owner holds of one key behind a message; it waits for that message.
    pub(super) fn block_behind(&self, key: Keyed, owner: i64) -> rusqlite::Result<()> {
        let held: Vec<Span> = self
            .connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM span WHERE grp = ?1 AND key = ?2 AND ord > ?3 AND owner = ?4"
            ))?
            .query_map([self.group, key.digest, key.ord, owner], read)?
            .collect::<rusqlite::Result<_>>()?;
        for span in held {
            self.release(span, BLOCKED)?;
        }
        Ok(())
    }
}

/// What became of the next message with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unblocked {
    /// There is none, or it waits for its time.
    Nothing,
    /// The owner holds it and may hand it out.
    Held(Span),
    /// Anybody may take it now.
    Due,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(lo: i64, hi: i64) -> Span {
        Span {
            topic: 1,
            lo,
            hi,
            owner: 7,
            until: 100,
            attempt: 1,
            key: None,
        }
    }

    #[test]
    fn a_cut_leaves_both_ends() {
        let cut = span(1, 10).cut(4, 6);
        assert_eq!(cut.before, Some(span(1, 3)));
        assert_eq!(cut.taken, Some(span(4, 6)));
        assert_eq!(cut.after, Some(span(7, 10)));
    }

    #[test]
    fn a_cut_beyond_the_ends_takes_everything() {
        let cut = span(4, 6).cut(1, 10);
        assert_eq!((cut.before, cut.after), (None, None));
        assert_eq!(cut.taken, Some(span(4, 6)));
    }

    #[test]
    fn messages_in_a_row_are_one_run() {
        let one = |lo| Run::one(1, lo, 1);
        let runs = Run::of(vec![one(3), one(1), one(2), one(5), Run::one(1, 4, 2)]);
        let expected = [
            Run {
                hi: 3,
                ..Run::one(1, 1, 1)
            },
            one(5),
            Run::one(1, 4, 2),
        ];
        assert_eq!(runs, expected);
    }

    #[test]
    fn a_cut_elsewhere_takes_nothing() {
        let cut = span(4, 6).cut(8, 9);
        assert_eq!(cut.before, Some(span(4, 6)));
        assert_eq!((cut.taken, cut.after), (None, None));
    }
}
