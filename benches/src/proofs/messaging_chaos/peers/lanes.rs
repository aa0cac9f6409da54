//! What a publisher is asked to publish: batches with one message of each key, the next when all of the last are confirmed.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::super::publishing::{KEYS, PUBLISHERS};
use super::ledger::Numbered;

/// Time before what failed is published again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Batches that are under way beside each other, each with keys of its own.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Publishes that failed, or that ended with their publisher.
    pub(super) failed: u64,
}

#[derive(Debug)]
struct Lane {
    /// Number of the next batch.
    seq: u32,
    /// Told and not answered.
    open: HashSet<Numbered>,
    /// Failed, to be told again at that time.
    again: Vec<Numbered>,
    due: Instant,
}

impl Lanes {
    pub(super) fn new(now: Instant) -> Self {
        let lane = |_| Lane {
            seq: 0,
            open: HashSet::new(),
            again: Vec::new(),
            due: now,
        };
        Self {
            lanes: (0..PUBLISHERS).map(lane).collect(),
            failed: 0,
        }
    }

    /// The messages to tell now, a line each, as far as batch `until`.
    pub(super) fn next(&mut self, until: u32, now: Instant) -> String {
        let mut lines = String::new();
        for (lane, number) in self.lanes.iter_mut().zip(0..) {
            if !lane.open.is_empty() {
                continue;
            }
            if !lane.again.is_empty() {
                if now < lane.due {
                    continue;
                }
                lane.open.extend(lane.again.drain(..));
            } else if lane.seq < until {
                let keys = (0..KEYS).map(|key| (number * KEYS + key, lane.seq));
                lane.open.extend(keys);
                lane.seq += 1;
            }
            for (key, seq) in &lane.open {
                // Writing to a string does not fail.
                writeln!(lines, "{key} {seq}").ok();
            }
        }
        lines
    }

    /// Notes an answer; whether it was asked for.
    pub(super) fn answer(&mut self, numbered: Numbered, confirmed: bool, now: Instant) -> bool {
        let asked = |lane: &mut Lane| lane.open.remove(&numbered);
        let Some(at) = self.lanes.iter_mut().position(asked) else {
            return false;
        };
        let lane = &mut self.lanes[at];
        if !confirmed {
            self.failed += 1;
            lane.again.push(numbered);
            lane.due = now + AGAIN_AFTER;
        }
        true
    }

    /// The publisher is gone: nobody knows what came of what is open.
    pub(super) fn abandon(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            self.failed += lane.open.len() as u64;
            lane.again.extend(lane.open.drain());
            lane.due = now + AGAIN_AFTER;
        }
    }

    /// Whether nothing is left of the batches before `until`.
    pub(super) fn are_done(&self, until: u32) -> bool {
        self.are_idle() && self.lanes.iter().all(|lane| lane.seq >= until)
    }

    /// Whether nothing waits for an answer.
    pub(super) fn are_idle(&self) -> bool {
        let idle = |lane: &Lane| lane.open.is_empty() && lane.again.is_empty();
        self.lanes.iter().all(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_follows_when_the_last_is_confirmed() {
        let now = Instant::now();
        let mut lanes = Lanes::new(now);
        let first = lanes.next(2, now);
        let all = (PUBLISHERS * KEYS) as usize;
        assert_eq!(first.lines().count(), all);
        assert_eq!(lanes.next(2, now), "");
        for key in 1..KEYS {
            assert!(lanes.answer((key, 0), true, now));
        }
        assert!(lanes.answer((0, 0), false, now));
        assert!(!lanes.answer((0, 0), true, now));
        // Not at once, and nothing of the next batch before.
        assert_eq!(lanes.next(2, now), "");
        let later = now + AGAIN_AFTER;
        assert_eq!(lanes.next(2, later), "0 0\n");
        assert!(lanes.answer((0, 0), true, later));
        assert_eq!(lanes.next(2, later).lines().count(), KEYS as usize);
        assert_eq!(lanes.failed, 1);
        lanes.abandon(later);
        assert_eq!(lanes.failed, 1 + all as u64);
        assert!(!lanes.are_idle());
    }
}
