//! Which deliveries of a channel are done, and how to say so with few words.
//!
//! The server numbers the deliveries of a channel 1, 2, 3 …, and `multiple` acknowledges everything up to a number that is
//! not settled yet. So it is said only of a stretch without a gap from the first delivery on; what is done behind a gap is
//! acknowledged by itself, lest it wait for a slow handler.

use std::collections::{BTreeMap, BTreeSet};

/// What is to be told to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tell {
    pub(super) tag: u64,
    /// Everything before it as well.
    pub(super) multiple: bool,
}

/// The deliveries of one channel.
#[derive(Debug, Default)]
pub(super) struct Acks {
    /// Done, and the server does not know yet.
    pending: BTreeSet<u64>,
    /// Everything that is settled, told or not, in stretches: first and last.
    settled: BTreeMap<u64, u64>,
}

impl Acks {
    /// Is done; to be told. Says how many there are to be told.
    pub(super) fn done(&mut self, tag: u64) -> usize {
        self.pending.insert(tag);
        self.settle(tag);
        self.pending.len()
    }

    /// How many there are to be told.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Was settled in another way, and the server has been told before this is called.
    pub(super) fn told(&mut self, tag: u64) {
        self.settle(tag);
    }

    /// What to tell the server now, in this order.
    pub(super) fn take(&mut self) -> Vec<Tell> {
        let whole = self.settled.get(&1).copied().unwrap_or(0);
        let behind = self.pending.split_off(&whole.saturating_add(1));
        let front = std::mem::take(&mut self.pending);
        // The last one has to be one that the server still waits for.
        let front = front.last().map(|tag| Tell {
            tag: *tag,
            multiple: front.len() > 1,
        });
        let single = behind.into_iter().map(|tag| Tell {
            tag,
            multiple: false,
        });
        front.into_iter().chain(single).collect()
    }

    fn settle(&mut self, tag: u64) {
        let before = self.settled.range(..=tag).next_back();
        let (first, last) = match before {
            Some((_, last)) if *last >= tag => return,
            Some((first, last)) if *last + 1 == tag => (*first, tag),
            _ => (tag, tag),
        };
        let last = self.settled.remove(&(tag + 1)).unwrap_or(last);
        self.settled.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(tag: u64) -> Tell {
        let multiple = false;
        Tell { tag, multiple }
    }

    fn up_to(tag: u64) -> Tell {
        let multiple = true;
        Tell { tag, multiple }
    }

    #[test]
    fn a_stretch_without_a_gap_is_told_at_once() {
        let mut acks = Acks::default();
        for tag in [2, 1, 3] {
            acks.done(tag);
        }
        assert_eq!(acks.take(), [up_to(3)]);
        assert_eq!(acks.take(), []);
        acks.done(4);
        assert_eq!(acks.take(), [one(4)]);
    }

    #[test]
    fn what_is_behind_a_gap_is_told_by_itself() {
        let mut acks = Acks::default();
        for tag in [1, 2, 4, 5] {
            acks.done(tag);
        }
        assert_eq!(acks.take(), [up_to(2), one(4), one(5)]);
        // The server knows 4 and 5: the word for all of them may not name one of those.
        acks.done(3);
        assert_eq!(acks.take(), [one(3)]);
        acks.done(6);
        acks.done(7);
        assert_eq!(acks.take(), [up_to(7)]);
    }

    #[test]
    fn what_was_given_back_is_no_gap() {
        let mut acks = Acks::default();
        acks.done(1);
        acks.told(2);
        acks.done(3);
        acks.told(4);
        assert_eq!(acks.take(), [up_to(3)]);
        assert_eq!(acks.settled.len(), 1);
    }

    /// Against a server that refuses what it does not wait for, as the real one does.
    #[test]
    fn nothing_is_told_that_is_not_done() {
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut acks = Acks::default();
            let (mut server, mut held, mut done) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
            let mut next = 1;
            for _ in 0..200 {
                match random(4) {
                    0 => {
                        server.insert(next);
                        held.push(next);
                        next += 1;
                    }
                    1 if !held.is_empty() => {
                        let at = usize::try_from(random(held.len() as u64)).unwrap();
                        let tag = held.swap_remove(at);
                        done.insert(tag);
                        acks.done(tag);
                    }
                    2 if !held.is_empty() => {
                        let at = usize::try_from(random(held.len() as u64)).unwrap();
                        let tag = held.swap_remove(at);
                        assert!(server.remove(&tag));
                        acks.told(tag);
                    }
                    _ => {
                        for tell in acks.take() {
                            assert!(server.contains(&tell.tag), "unknown delivery tag");
                            let first = if tell.multiple { 0 } else { tell.tag };
                            let told: Vec<u64> = server.range(first..=tell.tag).copied().collect();
                            for tag in told {
                                assert!(done.contains(&tag), "{tag} is not done");
                                server.remove(&tag);
                            }
                        }
                        assert_eq!(server.len(), held.len());
                    }
                }
                assert!(acks.settled.len() <= held.len() + 1);
            }
        }
    }
}
