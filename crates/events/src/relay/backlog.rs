//! Which events may be published now, and how far everything is.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// The events of one batch: of each key one may be under way, so that no failure can change their order; a position is
/// reached when everything up to it is done. Pure.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Each event's position, in order.
    positions: Vec<u64>,
    done: Vec<bool>,
    /// How many at the beginning are done without a gap.
    prefix: usize,
    keys: Vec<usize>,
    /// Of each key the events that are not done, the first one next.
    queues: Vec<VecDeque<usize>>,
    /// The first event of each key that has any left, in order.
    next: BTreeSet<usize>,
}

impl Backlog {
    /// Of positions in order, each with the key that its order belongs to.
    pub(super) fn new<K: std::hash::Hash + Eq>(events: impl IntoIterator<Item = (u64, K)>) -> Self {
        let mut known: HashMap<K, usize> = HashMap::new();
        let (mut positions, mut keys) = (Vec::new(), Vec::new());
        let mut queues: Vec<VecDeque<usize>> = Vec::new();
        for (at, (position, key)) in events.into_iter().enumerate() {
            let key = *known.entry(key).or_insert_with(|| {
                queues.push(VecDeque::new());
                queues.len() - 1
            });
            positions.push(position);
            keys.push(key);
            queues[key].push_back(at);
        }
        Self {
            done: vec![false; positions.len()],
            prefix: 0,
            next: queues
                .iter()
                .filter_map(|queue| queue.front().copied())
                .collect(),
            positions,
            keys,
            queues,
        }
    }

    /// The events that may be published now, in order; none when all are done.
    pub(super) fn wave(&self) -> Vec<usize> {
        self.next.iter().copied().collect()
    }

    /// An event of the present wave is done: the next of its key may follow.
    pub(super) fn finish(&mut self, at: usize) {
        if !self.next.remove(&at) {
            return;
        }
        let queue = &mut self.queues[self.keys[at]];
        queue.pop_front();
        self.next.extend(queue.front());
        self.done[at] = true;
        while self.done.get(self.prefix) == Some(&true) {
            self.prefix += 1;
        }
    }

    /// How many at the beginning are done without a gap.
    pub(super) fn reached(&self) -> usize {
        self.prefix
    }

    /// The position up to which everything is done, if anything is.
    pub(super) fn position(&self) -> Option<u64> {
        self.positions.get(self.prefix.checked_sub(1)?).copied()
    }

    pub(super) fn is_done(&self) -> bool {
        self.next.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_do_not_wait_for_each_other_and_events_of_one_key_do() {
        let mut backlog = Backlog::new([(10, 'a'), (11, 'a'), (12, 'b'), (15, 'a')]);
        assert_eq!(backlog.wave(), [0, 2]);
        assert_eq!(backlog.position(), None);
        backlog.finish(2);
        assert_eq!((backlog.wave(), backlog.position()), (vec![0], None));
        backlog.finish(0);
        assert_eq!((backlog.wave(), backlog.position()), (vec![1], Some(10)));
        backlog.finish(1);
        assert_eq!((backlog.wave(), backlog.position()), (vec![3], Some(12)));
        backlog.finish(3);
        assert!(backlog.is_done());
        assert_eq!(backlog.position(), Some(15));
    }

    #[test]
    fn what_is_not_in_the_wave_cannot_be_finished() {
        let mut backlog = Backlog::new([(1, 'a'), (2, 'a')]);
        backlog.finish(1);
        backlog.finish(7);
        assert_eq!((backlog.wave(), backlog.reached()), (vec![0], 0));
    }

    proptest! {
        #[test]
        fn every_event_is_done_once_in_the_order_of_its_key(
            keys in prop::collection::vec(0_u8..5, 0..60),
            luck in prop::collection::vec(any::<bool>(), 600),
        ) {
            let events = keys.iter().enumerate().map(|(at, key)| (at as u64 * 3 + 1, *key));
            let mut backlog = Backlog::new(events);
            let mut luck = luck.into_iter().chain(std::iter::repeat(true));
            let mut order = Vec::new();
            while !backlog.is_done() {
                for at in backlog.wave() {
                    if luck.next().unwrap_or(true) {
                        backlog.finish(at);
                        order.push(at);
                    }
                }
                let gapless = (0..keys.len()).take_while(|at| order.contains(at)).count();
                prop_assert_eq!(backlog.reached(), gapless);
            }
            prop_assert_eq!(order.len(), keys.len());
            for key in 0..5 {
                let of_key: Vec<_> = order.iter().filter(|at| keys[**at] == key).collect();
                prop_assert!(of_key.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }
}
