//! A table that leads each key to an instance, and nearly every key to the same one after a change.
//!
//! Maglev hashing (Eisenbud and others, NSDI 2016): every instance has an order of its own in which it would take the
//! places of the table, and they take places in turns. Looking a key up is one load from memory.

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
    /// Its turn comes when the turns so far, by its weight, have reached this.
    due: u64,
}

impl Maglev {
    /// For instances of these ids and weights, none of which is 0.
    pub(super) fn new<'a>(members: impl ExactSizeIterator<Item = (&'a str, u32)>) -> Self {
        let count = members.len();
        let wanted = count.saturating_mul(PLACES_EACH);
        let size = SIZES.into_iter().find(|size| *size >= wanted);
        let size = size.unwrap_or(SIZES[SIZES.len() - 1]);
        let places = size as u64;
        let mut takers: Vec<Taker> = members
            .map(|(id, weight)| Taker {
                at: hash(id.as_bytes(), 1) % places,
                skip: hash(id.as_bytes(), 2) % (places - 1) + 1,
                weight: u64::from(weight),
                due: 0,
            })
            .collect();
        const FREE: u32 = u32::MAX;
        let mut table = vec![FREE; if count == 0 { 0 } else { size }];
        let heaviest = takers.iter().map(|taker| taker.weight).max().unwrap_or(1);
        let mut left = table.len();
        let mut round: u64 = 0;
        while left > 0 {
            round += 1;
            for (n, taker) in takers.iter_mut().enumerate() {
                if round.saturating_mul(taker.weight) < taker.due {
                    continue;
                }
                taker.due = taker.due.saturating_add(heaviest);
                // A prime number of places: stepping so goes through all of them.
                while table[taker.at as usize] != FREE {
                    taker.at = (taker.at + taker.skip) % places;
                }
                table[taker.at as usize] = n as u32;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        Self(table.into_boxed_slice())
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
