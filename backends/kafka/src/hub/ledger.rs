//! What is fetched and not done, by partition: who holds what, until when, and up to where all is done.
//!
//! A partition's position is the first message that is not done: only that is ever committed, with what is done behind it
//! noted beside. A message is handed out when the one before it with the same key is done; keys never meet across
//! partitions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_messaging::{Destination, Message};

use crate::note::{Note, Ranges};

/// Topic and partition.
pub(crate) type Place = (Arc<str>, i32);

/// A message that is not done.
#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    destination: Destination,
    /// Milliseconds since 1970.
    expires: Option<i64>,
    /// Milliseconds since 1970; 0 for what is due at once.
    due: i64,
    /// Milliseconds since 1970, as the log has it.
    time: i64,
    /// How often it was handed out.
    attempts: u32,
    /// How often a holder gave it back by a settlement.
    returned: u32,
    /// Its number in the hands of somebody.
    holder: Option<u64>,
    /// It is not handed out before, and its key waits with it or not.
    waits: Option<(Wait, bool)>,
}

/// When something is due, and a number of its own.
type Wait = (Instant, u64);

/// One partition.
#[derive(Debug)]
struct Part {
    pending: BTreeMap<i64, Entry>,
    /// Those of them that nobody holds, and that are due: by when they were, those that always were first.
    ready: BTreeSet<(i64, i64)>,
    /// How many of them are not due, and of how many bytes.
    waiting: (usize, usize),
    /// Keys in the hands of somebody.
    busy: HashSet<Bytes>,
    /// Behind the last that was fetched.
    next: i64,
    /// What the servers know.
    committed: i64,
    /// Done, and not fetched yet.
    ahead: Ranges,
    /// How often something of it became done.
    changes: u64,
    /// How many of these the servers know.
    told: u64,
    /// Behind the last that was handed out, here or before.
    handed: i64,
    /// What was there when it was assigned; fetched or not.
    backlog: i64,
    /// It is about to go: nothing more is handed out.
    leaving: bool,
}

impl Part {
    fn position(&self) -> i64 {
        self.pending
            .first_key_value()
            .map_or(self.next, |(offset, _)| *offset)
    }

    /// The first that may be handed out.
    fn candidate(&self) -> Option<i64> {
        let ready = self.ready.iter().map(|(_, offset)| *offset);
        let mut ready = ready.filter(|offset| {
            let key = self
                .pending
                .get(offset)
                .and_then(|entry| entry.message.key.as_ref());
            key.is_none_or(|key| !self.busy.contains(key))
        });
        ready.next()
    }

    fn remove(&mut self, offset: i64) {
        if let Some(entry) = self.pending.remove(&offset) {
            self.ready.remove(&(entry.due, offset));
        }
        self.changes += 1;
    }

    /// It is not handed out before it is due.
    fn wait(&mut self, offset: i64, wait: Wait, with_key: bool) {
        let Some(entry) = self.pending.get_mut(&offset) else {
            return;
        };
        entry.waits = Some((wait, with_key));
        self.waiting.0 += 1;
        self.waiting.1 += entry.message.size();
        if let (true, Some(key)) = (with_key, &entry.message.key) {
            self.busy.insert(key.clone());
        }
        self.ready.remove(&(entry.due, offset));
    }

    /// It waits no more; for what it has waited, if it has.
    fn wake(&mut self, offset: i64) -> Option<Wait> {
        let entry = self.pending.get_mut(&offset)?;
        let (wait, with_key) = entry.waits.take()?;
        self.waiting.0 -= 1;
        self.waiting.1 -= entry.message.size();
        if let (true, Some(key)) = (with_key, &entry.message.key) {
            self.busy.remove(key);
        }
        self.ready.insert((entry.due, offset));
        Some(wait)
    }

    /// What is done behind the position.
    fn done(&self) -> Ranges {
        let mut done = self.ahead.clone();
        let mut at = self.position();
        for offset in self.pending.keys() {
            done.insert(at, *offset);
            at = offset + 1;
        }
        done.insert(at, self.next);
        done
    }

    /// Where it stands when these are done as well.
    fn standing(&self, place: &Place, also: &[i64]) -> Standing {
        let mut done = self.done();
        for offset in also {
            done.insert(*offset, offset + 1);
        }
        Standing {
            place: place.clone(),
            position: done.behind(self.position()),
            done,
            handed: self.handed,
            changes: self.changes,
        }
    }
}

/// Where a partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) place: Place,
    /// The first that is not done.
    pub(crate) position: i64,
    /// What is done behind it.
    pub(crate) done: Ranges,
    /// Behind what was handed out.
    pub(crate) handed: i64,
    /// How often something became done.
    pub(crate) changes: u64,
}

/// What somebody holds.
#[derive(Clone, Debug)]
struct Held {
    place: Place,
    offset: i64,
    member: u64,
    until: Instant,
}

/// A member of the group in this process.
#[derive(Debug)]
struct Member {
    prefetch: u32,
    lease: Duration,
    held: u32,
}

/// What arrives.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) offset: i64,
    pub(crate) destination: Destination,
    pub(crate) message: Arc<Message>,
    pub(crate) expires: Option<i64>,
    /// When it may be handed out, milliseconds since 1970.
    pub(crate) due: Option<i64>,
    pub(crate) time: i64,
}

/// What is handed out.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) number: u64,
    pub(crate) message: Arc<Message>,
    pub(crate) destination: Destination,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) expires: Option<i64>,
    pub(crate) attempt: u32,
    /// How often a holder gave it back by a settlement.
    pub(crate) returned: u32,
}

/// Something is done: the servers know when they know of so many changes of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) place: Place,
    pub(crate) changes: u64,
}

/// What came of removing messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    /// So many were there.
    Some(u64, Done),
    /// There is no room to note it: nothing was removed.
    NoRoom,
}

/// The books of one group.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    parts: HashMap<Place, Part>,
    held: HashMap<u64, Held>,
    timers: BTreeSet<(Instant, u64)>,
    /// What is not due.
    later: BTreeMap<Wait, (Place, i64)>,
    members: HashMap<u64, Member>,
    numbers: u64,
    /// How many are not done.
    pending: usize,
}

impl Ledger {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn join(&mut self, prefetch: u32, lease: Duration) -> u64 {
        let number = self.number();
        let member = Member {
            prefetch,
            lease,
            held: 0,
        };
        self.members.insert(number, member);
        number
    }

    /// What the member holds stays with its owner.
    pub(crate) fn leave(&mut self, member: u64) {
        self.members.remove(&member);
    }

    /// Whether somebody takes messages, or holds one.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.members.is_empty() || !self.held.is_empty()
    }

    /// Messages that are not done.
    #[cfg(test)]
    fn pending(&self) -> usize {
        self.pending
    }

    /// Messages that are not done, and due: what waits for its time is bounded by itself.
    pub(crate) fn load(&self) -> usize {
        self.pending - self.later.len()
    }

    /// When the next message is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((due, _), _)| *due)
    }

    /// Partitions of which so many messages, or bytes, wait for their time that no more are wanted; one that was crowded
    /// stays so until half of that is left.
    pub(crate) fn crowded(
        &self,
        before: &BTreeSet<Place>,
        most: usize,
        bytes: usize,
    ) -> BTreeSet<Place> {
        if self.later.is_empty() {
            return BTreeSet::new();
        }
        let parts = self.parts.iter();
        let crowded = parts.filter(|(place, part)| {
            let half = 1 + usize::from(before.contains(*place));
            part.waiting.0 >= most / half || part.waiting.1 >= bytes / half
        });
        crowded.map(|(place, _)| place.clone()).collect()
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        self.parts.keys().cloned().collect()
    }

    /// A partition is ours from a position on, without what is done behind it. What was handed out before, below `handed`,
    /// is a repetition.
    pub(crate) fn assign(
        &mut self,
        place: Place,
        position: i64,
        mut ahead: Ranges,
        handed: i64,
        backlog: i64,
    ) {
        ahead.forget_below(position);
        let part = Part {
            pending: BTreeMap::new(),
            ready: BTreeSet::new(),
            waiting: (0, 0),
            busy: HashSet::new(),
            next: position,
            committed: position,
            ahead,
            changes: 0,
            told: 0,
            handed,
            backlog,
            leaving: false,
        };
        self.parts.insert(place, part);
    }

    /// A message was fetched. What is not of an own partition, or was fetched already, is left out.
    pub(crate) fn take_in(&mut self, record: Record, now: i64) -> bool {
        let number = self.number();
        let Some(part) = self.parts.get_mut(&record.place) else {
            return false;
        };
        if record.offset < part.next {
            return false;
        }
        part.next = record.offset + 1;
        let is_done = part.ahead.contains(record.offset);
        part.ahead.forget_below(part.next);
        if is_done || record.expires.is_some_and(|expires| now >= expires) {
            return true;
        }
        let entry = Entry {
            message: record.message,
            destination: record.destination,
            expires: record.expires,
            due: record.due.unwrap_or(0),
            time: record.due.unwrap_or(record.time),
            attempts: u32::from(record.offset < part.handed),
            returned: 0,
            holder: None,
            waits: None,
        };
        let due = entry.due;
        part.pending.insert(record.offset, entry);
        part.ready.insert((due, record.offset));
        self.pending += 1;
        let early = record.due.map_or(0, |due| due.saturating_sub(now));
        if let Ok(early @ 1..) = u64::try_from(early) {
            let wait = (far(Duration::from_millis(early)), number);
            part.wait(record.offset, wait, false);
            self.later.insert(wait, (record.place, record.offset));
        }
        true
    }

    /// Whether a partition has a backlog of which nothing has been fetched yet: another's message may be older.
    pub(crate) fn is_behind(&self) -> bool {
        self.parts
            .values()
            .any(|part| !part.leaving && part.pending.is_empty() && part.next < part.backlog)
    }

    /// Hands the oldest message that may go to a member.
    pub(crate) fn hand_out(&mut self, member: u64, now: i64) -> Option<Handed> {
        loop {
            let (prefetch, lease, held) = {
                let member = self.members.get(&member)?;
                (member.prefetch, member.lease, member.held)
            };
            if held >= prefetch {
                return None;
            }
            let (place, offset) = self.oldest()?;
            let number = self.number();
            let part = self.parts.get_mut(&place)?;
            let entry = part.pending.get_mut(&offset)?;
            if entry.expires.is_some_and(|expires| now >= expires) {
                part.remove(offset);
                self.pending -= 1;
                continue;
            }
            entry.attempts += 1;
            entry.holder = Some(number);
            let handed = Handed {
                number,
                message: Arc::clone(&entry.message),
                destination: entry.destination.clone(),
                partition: place.1,
                offset,
                expires: entry.expires,
                attempt: entry.attempts,
                returned: entry.returned,
            };
            if let Some(key) = &entry.message.key {
                part.busy.insert(key.clone());
            }
            part.ready.remove(&(entry.due, offset));
            part.handed = part.handed.max(offset + 1);
            let until = Instant::now() + lease;
            self.timers.insert((until, number));
            let held = Held {
                place,
                offset,
                member,
                until,
            };
            self.held.insert(number, held);
            if let Some(member) = self.members.get_mut(&member) {
                member.held += 1;
            }
            return Some(handed);
        }
    }

    fn oldest(&self) -> Option<(Place, i64)> {
        let heads = self.parts.iter().filter(|(_, part)| !part.leaving);
        let heads = heads.filter_map(|(place, part)| {
            let offset = part.candidate()?;
            let time = part.pending.get(&offset)?.time;
            Some((time, place, offset))
        });
        heads
            .min_by(|one, other| (one.0, one.2, one.1).cmp(&(other.0, other.2, other.1)))
            .map(|(_, place, offset)| (place.clone(), offset))
    }

    /// Takes what is held out of the hands of its holder.
    fn let_go(&mut self, number: u64) -> Option<Held> {
        let held = self.held.remove(&number)?;
        self.timers.remove(&(held.until, number));
        if let Some(member) = self.members.get_mut(&held.member) {
            member.held = member.held.saturating_sub(1);
        }
        let part = self.parts.get_mut(&held.place)?;
        let entry = part.pending.get_mut(&held.offset)?;
        entry.holder = None;
        if let Some(key) = &entry.message.key {
            part.busy.remove(key);
        }
        Some(held)
    }

    /// It is done. `None` when it is not its holder's any more.
    pub(crate) fn done(&mut self, number: u64) -> Option<Done> {
        let held = self.let_go(number)?;
        let part = self.parts.get_mut(&held.place)?;
        part.remove(held.offset);
        self.pending -= 1;
        Some(Done {
            place: held.place,
            changes: part.changes,
        })
    }

    /// Removes messages below an end, whoever holds them, if all that is done then fits a note of so many bytes. `None` when
    /// the partition is not ours, or about to go.
    pub(crate) fn remove(
        &mut self,
        place: &Place,
        offsets: &[i64],
        end: i64,
        longest: usize,
    ) -> Option<Removed> {
        let part = self.parts.get(place).filter(|part| !part.leaving)?;
        let is_there = |offset: &i64| {
            part.pending.contains_key(offset)
                || (part.next..end).contains(offset) && !part.ahead.contains(*offset)
        };
        let there: BTreeSet<i64> = offsets.iter().copied().filter(is_there).collect();
        let mut done = part.done();
        for offset in &there {
            done.insert(*offset, offset + 1);
        }
        let position = done.behind(part.position());
        let note = Note {
            done,
            ..Note::default()
        };
        if !there.is_empty() && !note.write(position, longest).1 {
            return Some(Removed::NoRoom);
        }
        for offset in &there {
            self.finish(place, *offset);
        }
        let done = Done {
            place: place.clone(),
            changes: self.parts.get(place)?.changes,
        };
        Some(Removed::Some(there.len() as u64, done))
    }

    /// It is done, whoever holds it; whether it was not before.
    pub(crate) fn finish(&mut self, place: &Place, offset: i64) -> bool {
        let entry = part_entry(&self.parts, place, offset);
        if let Some(holder) = entry.and_then(|entry| entry.holder) {
            self.let_go(holder);
        }
        let Some(part) = self.parts.get_mut(place) else {
            return false;
        };
        if part.pending.contains_key(&offset) {
            if let Some(wait) = part.wake(offset) {
                self.later.remove(&wait);
            }
            self.pending -= 1;
        } else if offset >= part.next && !part.ahead.contains(offset) {
            part.ahead.insert(offset, offset + 1);
        } else {
            return false;
        }
        part.remove(offset);
        true
    }

    /// It comes again. False when it is not its holder's any more.
    pub(crate) fn give_back(&mut self, number: u64) -> bool {
        let Some(held) = self.let_go(number) else {
            return false;
        };
        if let Some(part) = self.parts.get_mut(&held.place)
            && let Some(entry) = part.pending.get(&held.offset)
        {
            part.ready.insert((entry.due, held.offset));
        }
        true
    }

    /// It comes again because its holder says so, after a delay or at once; its key waits with it. False when it is not its
    /// holder's any more.
    pub(crate) fn put_off(&mut self, number: u64, delay: Duration, now: i64) -> bool {
        let Some(held) = self.let_go(number) else {
            return false;
        };
        let wait = self.number();
        let Some(part) = self.parts.get_mut(&held.place) else {
            return true;
        };
        let Some(entry) = part.pending.get_mut(&held.offset) else {
            return true;
        };
        part.ready.insert((entry.due, held.offset));
        entry.returned = entry.returned.saturating_add(1);
        // What expires meanwhile does not keep its key until then.
        let left = entry.expires.map(|expires| expires.saturating_sub(now));
        let left = left.map(|left| Duration::from_millis(u64::try_from(left).unwrap_or_default()));
        let delay = left.map_or(delay, |left| delay.min(left));
        if !delay.is_zero() {
            let wait = (far(delay), wait);
            part.wait(held.offset, wait, true);
            self.later.insert(wait, (held.place, held.offset));
        }
        true
    }

    /// What is due may be handed out; whether there was something.
    pub(crate) fn wake(&mut self) -> bool {
        let (now, mut any) = (Instant::now(), false);
        while let Some(next) = self.later.first_entry() {
            if next.key().0 > now {
                break;
            }
            let (place, offset) = next.remove();
            if let Some(part) = self.parts.get_mut(&place) {
                any |= part.wake(offset).is_some();
            }
        }
        any
    }

    /// Keeps it for longer. False when it is not its holder's any more.
    pub(crate) fn extend(&mut self, number: u64, lease: Duration) -> bool {
        let Some(held) = self.held.get_mut(&number) else {
            return false;
        };
        self.timers.remove(&(held.until, number));
        held.until = Instant::now() + lease;
        self.timers.insert((held.until, number));
        true
    }

    /// Gives back what was held for too long; whether there was something.
    pub(crate) fn end_leases(&mut self) -> bool {
        let (now, mut any) = (Instant::now(), false);
        while let Some((until, number)) = self.timers.first().copied() {
            if until > now {
                break;
            }
            self.timers.remove(&(until, number));
            any |= self.give_back(number);
        }
        any
    }

    /// What the servers do not know yet.
    pub(crate) fn uncommitted(&self) -> Vec<Standing> {
        let parts = self.parts.iter();
        parts
            .filter(|(_, part)| part.position() > part.committed || part.changes > part.told)
            .map(|(place, part)| part.standing(place, &[]))
            .collect()
    }

    /// Its lease does not end until it is done, given back or unsealed; where it is. `None` when it is not its holder's any
    /// more.
    pub(crate) fn seal(&mut self, number: u64) -> Option<(Place, i64)> {
        let held = self.held.get(&number)?;
        self.timers.remove(&(held.until, number));
        Some((held.place.clone(), held.offset))
    }

    /// Whether somebody holds it under this number.
    pub(crate) fn is_held(&self, number: u64) -> bool {
        self.held.contains_key(&number)
    }

    /// Its lease begins anew.
    pub(crate) fn unseal(&mut self, number: u64) {
        let member = self.held.get(&number).map(|held| held.member);
        let member = member.and_then(|member| self.members.get(&member));
        let lease = member.map_or(Duration::ZERO, |member| member.lease);
        self.extend(number, lease);
    }

    /// Where the partitions of these stand when they are done.
    pub(crate) fn standing_after(&self, numbers: impl Iterator<Item = u64>) -> Vec<Standing> {
        let mut also: BTreeMap<&Place, Vec<i64>> = BTreeMap::new();
        for held in numbers.filter_map(|number| self.held.get(&number)) {
            also.entry(&held.place).or_default().push(held.offset);
        }
        let parts = also.into_iter();
        parts
            .filter_map(|(place, own)| Some(self.parts.get(place)?.standing(place, &own)))
            .collect()
    }

    /// The servers know.
    pub(crate) fn committed(&mut self, standing: &Standing) {
        if let Some(part) = self.parts.get_mut(&standing.place) {
            part.committed = part.committed.max(standing.position);
            part.told = part.told.max(standing.changes);
        }
    }

    /// What the servers know of a partition that has just begun; less than 0: nothing, so that its beginning is committed.
    pub(crate) fn is_committed(&mut self, place: &Place, position: i64) {
        if let Some(part) = self.parts.get_mut(place) {
            part.committed = position;
        }
    }

    /// Whether there is a partition whose beginning the servers do not know.
    pub(crate) fn has_new(&self) -> bool {
        self.parts.values().any(|part| part.committed < 0)
    }

    /// Nothing more of these is handed out.
    pub(crate) fn leaving(&mut self, places: &[Place]) {
        for place in places {
            if let Some(part) = self.parts.get_mut(place) {
                part.leaving = true;
            }
        }
    }

    /// How many messages of these are in the hands of somebody.
    pub(crate) fn held_of(&self, places: &[Place]) -> usize {
        self.held
            .values()
            .filter(|held| places.contains(&held.place))
            .count()
    }

    /// Where these stand.
    pub(crate) fn standing(&self, places: &[Place]) -> Vec<Standing> {
        let known = places
            .iter()
            .filter_map(|place| Some((place, self.parts.get(place)?)));
        known
            .map(|(place, part)| part.standing(place, &[]))
            .collect()
    }

    /// They are ours no more; what is held of them cannot be settled any more.
    pub(crate) fn revoke(&mut self, places: &[Place]) {
        let gone: Vec<u64> = self
            .held
            .iter()
            .filter(|(_, held)| places.contains(&held.place))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.let_go(number);
        }
        for place in places {
            if let Some(part) = self.parts.remove(place) {
                self.pending -= part.pending.len();
                let waits = part.pending.values().filter_map(|entry| entry.waits);
                for (wait, _) in waits {
                    self.later.remove(&wait);
                }
            }
        }
    }
}

/// So far from now; what is further than clocks go is never.
fn far(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay).unwrap_or(now + FOR_EVER)
}

/// Longer than any process runs.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

fn part_entry<'a>(
    parts: &'a HashMap<Place, Part>,
    place: &Place,
    offset: i64,
) -> Option<&'a Entry> {
    parts.get(place)?.pending.get(&offset)
}

#[cfg(test)]
mod tests;
