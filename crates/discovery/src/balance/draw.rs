//! Drawing by chance, by weight, in constant time.

/// Draws an index; each as likely as its weight says.
#[derive(Debug)]
pub(super) enum Draw {
    /// All weigh the same.
    Uniform(usize),
    /// Walker's alias table: one slot for each index, which keeps it with a probability and else gives another.
    Weighted(Box<[Slot]>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// The slot keeps its own index when a random `u32` is below or equal.
    keep: u32,
    other: u32,
}

impl Draw {
    /// Prepares drawing by these weights, none of which is 0.
    pub(super) fn new(weights: &[u32]) -> Self {
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        if equal {
            Self::Uniform(weights.len())
        } else {
            Self::Weighted(alias_table(weights))
        }
    }

    /// An index. There must be at least one.
    pub(super) fn one(&self) -> usize {
        match self {
            Self::Uniform(count) => fastrand::usize(..*count),
            Self::Weighted(slots) => {
                let at = fastrand::usize(..slots.len());
                let slot = slots[at];
                if fastrand::u32(..) <= slot.keep {
                    at
                } else {
                    slot.other as usize
                }
            }
        }
    }

    /// An index that is another than the one given, where that is possible.
    pub(super) fn another(&self, than: usize) -> usize {
        /// One of two very unequal weights may come again and again.
        const TRIES: usize = 4;
        match self {
            Self::Uniform(count) if *count < 2 => than,
            Self::Uniform(count) => {
                let at = fastrand::usize(..count - 1);
                if at >= than { at + 1 } else { at }
            }
            Self::Weighted(_) => (0..TRIES)
                .map(|_| self.one())
                .find(|at| *at != than)
                .unwrap_or(than),
        }
    }
}

/// Vose's method: fills each slot of average size with one index and the surplus of another.
fn alias_table(weights: &[u32]) -> Box<[Slot]> {
    let total: f64 = weights.iter().copied().map(f64::from).sum();
    let count = weights.len() as f64;
    let mut share: Vec<f64> = weights
        .iter()
        .map(|weight| f64::from(*weight) * count / total)
        .collect();
    let mut slots: Vec<Slot> = (0..weights.len())
        .map(|at| Slot {
            keep: u32::MAX,
            other: at as u32,
        })
        .collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..share.len()).partition(|at| share[*at] < 1.0);
    while let (Some(less), Some(more)) = (small.pop(), large.last().copied()) {
        slots[less] = Slot {
            keep: (share[less] * f64::from(u32::MAX)) as u32,
            other: more as u32,
        };
        share[more] -= 1.0 - share[less];
        if share[more] < 1.0 {
            large.pop();
            small.push(more);
        }
    }
    // What is left, on either side, is full but for rounding.
    slots.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(draw: &Draw, count: usize) -> Vec<f64> {
        let rounds = 200_000;
        let mut hits = vec![0_u32; count];
        for _ in 0..rounds {
            hits[draw.one()] += 1;
        }
        hits.iter()
            .map(|n| f64::from(*n) / f64::from(rounds))
            .collect()
    }

    #[test]
    fn each_comes_as_often_as_its_weight_says() {
        let weights = [1, 2, 3, 4, 90];
        let draw = Draw::new(&weights);
        for (share, weight) in shares(&draw, 5).iter().zip(weights) {
            assert!(
                (share - f64::from(weight) / 100.0).abs() < 0.01,
                "{weight}: {share}"
            );
        }
    }

    #[test]
    fn extreme_weights_do_not_break_the_table() {
        let draw = Draw::new(&[u32::MAX, 1]);
        assert!(shares(&draw, 2)[0] > 0.999);
        let draw = Draw::new(&[u32::MAX, u32::MAX - 1, u32::MAX]);
        assert!(
            shares(&draw, 3)
                .iter()
                .all(|share| (share - 1.0 / 3.0).abs() < 0.01)
        );
    }

    #[test]
    fn another_is_another() {
        let draw = Draw::new(&[1, 1, 1]);
        for than in 0..3 {
            assert!((0..100).all(|_| draw.another(than) != than));
        }
        assert_eq!(Draw::new(&[5]).another(0), 0);
    }
}
