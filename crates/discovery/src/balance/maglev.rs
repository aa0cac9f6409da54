//! A table that leads each key to an instance, and nearly every key to the same one after a change.
//!
//! Maglev hashing (Eisenbud and others, NSDI 2016): every instance has an order of its own in which it would take the
//! places of the table, and they take places in turns. Looking a key up is one load from memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Sizes of tables, all prime, and each at least a hundred times the instances that it is for.
const SIZES: [usize; 7] = [251, 1_021, 4_093, 16_381, 65_537, 262_147, 1_048_583];

/// How many places of the table there are for each instance at the least.
const PLACES_EACH: usize = 100;

/// The table.
#[derive(Debug)]
pub(super) struct Maglev(Box<[u32]>);

/// One instance that takes places.
struct Taker {
    at: u64,
    skip: u64,
    weight: u64,
    taken: u64,
}

/// Places that are taken, in turns, until there is none left.
struct Filling {
    table: Vec<u32>,
    takers: Vec<Taker>,
    left: usize,
    /// Places that were looked at and turns that were taken: what it costs.
    steps: usize,
}

impl Filling {
    const FREE: u32 = u32::MAX;

    fn of(takers: Vec<Taker>, size: usize) -> Self {
        let left = if takers.is_empty() { 0 } else { size };
        Self {
            table: vec![Self::FREE; left],
            takers,
            left,
            steps: 0,
        }
    }

    /// In each round those take a place whose weight is due to one by then.
    fn fill(&mut self) {
        let heaviest = self.takers.iter().map(|taker| taker.weight).max();
        let heaviest = heaviest.unwrap_or(1);
        if self.takers.iter().all(|taker| taker.weight == heaviest) {
            let count = self.takers.len();
            for n in (0..count).cycle().take(self.left) {
                self.take(n);
            }
            return;
        }
        // The rounds in which nobody is due are passed over: a heavy one makes very many of them.
        let first = (0..self.takers.len()).map(|n| Reverse((1_u64, n)));
        let mut due: BinaryHeap<Reverse<(u64, usize)>> = first.collect();
        while self.left > 0
            && let Some(mut next) = due.peek_mut()
        {
            let Reverse((round, n)) = *next;
            self.take(n);
            let Taker { taken, weight, .. } = self.takers[n];
            let by_weight = taken.saturating_mul(heaviest).div_ceil(weight);
            *next = Reverse((by_weight.max(round + 1), n));
        }
    }

    /// The next place in the order of its own that is free.
    fn take(&mut self, n: usize) {
        let places = self.table.len() as u64;
        let taker = &mut self.takers[n];
        self.steps += 1;
        // A prime number of places: stepping so goes through all of them.
        while self.table[taker.at as usize] != Self::FREE {
            taker.at = (taker.at + taker.skip) % places;
            self.steps += 1;
        }
        self.table[taker.at as usize] = n as u32;
        taker.taken += 1;
        self.left -= 1;
    }
}

impl Maglev {
    /// For instances of these ids and weights, none of which is 0.
    pub(super) fn new<'a>(members: impl ExactSizeIterator<Item = (&'a str, u32)>) -> Self {
        let mut filling = Self::begin(members);
        filling.fill();
        Self(filling.table.into_boxed_slice())
    }

    fn begin<'a>(members: impl ExactSizeIterator<Item = (&'a str, u32)>) -> Filling {
        let wanted = members.len().saturating_mul(PLACES_EACH);
        let size = SIZES.into_iter().find(|size| *size >= wanted);
        let size = size.unwrap_or(SIZES[SIZES.len() - 1]);
        let places = size as u64;
        let takers = members.map(|(id, weight)| Taker {
            at: hash(id.as_bytes(), 1) % places,
            skip: hash(id.as_bytes(), 2) % (places - 1) + 1,
            weight: u64::from(weight),
            taken: 0,
        });
        Filling::of(takers.collect(), size)
    }

    /// Where a key leads: the instance, and those to turn to instead, each perhaps more than once. Endless, unless there
    /// is no instance.
    pub(super) fn of(&self, key: &str) -> impl Iterator<Item = usize> + '_ {
        let size = self.0.len();
        let start = (hash(key.as_bytes(), 0) % size.max(1) as u64) as usize;
        let places = (start..size).chain(0..start).cycle();
        places.map(|place| self.0[place] as usize)
    }
}

/// The same everywhere and always: FNV-1a, and what is left stirred so that all bits count.
pub(crate) fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.0.0.{n}:8080")).collect()
    }

    fn table(ids: &[String]) -> Maglev {
        Maglev::new(ids.iter().map(|id| (id.as_str(), 1)))
    }

    fn first(table: &Maglev, key: usize) -> usize {
        table.of(&format!("user-{key}")).next().unwrap()
    }

    #[test]
    fn the_sizes_are_prime() {
        for size in SIZES {
            assert!(
                (2..).take_while(|n| n * n <= size).all(|n| size % n > 0),
                "{size}"
            );
        }
    }

    #[test]
    fn places_go_by_weight() {
        for weights in [vec![1, 1, 1], vec![1, 2, 7], vec![u32::MAX, u32::MAX / 2]] {
            let ids = ids(weights.len());
            let members: Vec<_> = ids
                .iter()
                .map(String::as_str)
                .zip(weights.clone())
                .collect();
            let table = Maglev::new(members.into_iter());
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            for (n, weight) in weights.iter().enumerate() {
                let places = table.0.iter().filter(|at| **at as usize == n).count();
                let share = places as f64 / table.0.len() as f64;
                let due = f64::from(*weight) / total;
                assert!((share - due).abs() < 0.02, "{weights:?}: {share}");
            }
        }
    }

    /// The order of the paper, round by round: what each instance would take if all were gone through in each.
    fn by_rounds(weights: &[u32]) -> Vec<u32> {
        let ids = ids(weights.len());
        let members = ids.iter().map(String::as_str).zip(weights.iter().copied());
        let mut filling = Maglev::begin(members.collect::<Vec<_>>().into_iter());
        let heaviest = u64::from(*weights.iter().max().unwrap());
        for round in 1.. {
            for (n, weight) in weights.iter().enumerate() {
                let due = filling.takers[n].taken * heaviest;
                if filling.left > 0 && round * u64::from(*weight) >= due {
                    filling.take(n);
                }
            }
            if filling.left == 0 {
                break;
            }
        }
        filling.table
    }

    proptest! {
        #[test]
        fn rounds_that_are_passed_over_change_nothing(weights in prop::collection::vec(1_u32..300, 1..12)) {
            let ids = ids(weights.len());
            let members: Vec<_> = ids.iter().map(String::as_str).zip(weights.clone()).collect();
            let table = Maglev::new(members.into_iter());
            prop_assert_eq!(table.0.into_vec(), by_rounds(&weights));
        }
    }

    /// One that outweighs all others together, of as many as there may be.
    #[test]
    fn filling_it_costs_no_more_with_unequal_weights() {
        for heavy in [1, 100, 65_535, u32::MAX] {
            let ids = ids(10_000);
            let weights = std::iter::once(heavy).chain(std::iter::repeat(1));
            let members: Vec<_> = ids.iter().map(String::as_str).zip(weights).collect();
            let mut filling = Maglev::begin(members.into_iter());
            filling.fill();
            let size = filling.table.len();
            assert_eq!(filling.left, 0);
            assert!(
                filling.steps < 40 * size,
                "{heavy}: {} steps",
                filling.steps
            );
        }
    }

    #[test]
    fn one_that_leaves_takes_few_other_keys_with_it() {
        let all = ids(20);
        let (before, after) = (table(&all), table(&all[..19]));
        let keys = 20_000;
        let moved = (0..keys)
            .filter(|key| {
                let was = first(&before, *key);
                was != 19 && first(&after, *key) != was
            })
            .count();
        assert!(moved * 100 < keys * 5, "{moved} of {keys}");
    }

    #[test]
    fn nobody_is_nowhere() {
        let none = Maglev::new(std::iter::empty::<(&str, u32)>());
        assert_eq!(none.of("a").next(), None);
    }
}
