//! The order in which a weighted round robin goes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Turns of a round in which each index stands as often as its weight says, spread as evenly as possible.
///
/// A round has at most [`turns`](longest) entries: weights that would make it longer are scaled down, each to 1 at least.
pub(super) fn schedule(weights: &[u32]) -> Box<[u32]> {
    let weights = scaled(weights);
    // Earliest turn first: the k-th turn of an index with weight w is due at (k + 1/2) / w of the round. Compared as
    // integers, in units of 1 / (2 * w * SCALE).
    const SCALE: u64 = 1 << 32;
    let due = |turn: u64, weight: u64| (2 * turn + 1) * SCALE / (2 * weight);
    let mut next: BinaryHeap<Reverse<(u64, usize, u64)>> = weights
        .iter()
        .enumerate()
        .map(|(at, weight)| Reverse((due(0, *weight), at, 0)))
        .collect();
    let total: u64 = weights.iter().sum();
    let mut round = Vec::with_capacity(total as usize);
    while let Some(Reverse((_, at, turn))) = next.pop() {
        round.push(at as u32);
        let turn = turn + 1;
        if turn < weights[at] {
            next.push(Reverse((due(turn, weights[at]), at, turn)));
        }
    }
    round.into_boxed_slice()
}

/// The longest round for so many instances.
fn longest(count: usize) -> u64 {
    (count as u64 * 4).max(4096)
}

fn scaled(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let reduced: Vec<u64> = weights.iter().map(|w| u64::from(w / divisor)).collect();
    let total: u64 = reduced.iter().sum();
    let most = longest(weights.len());
    if total <= most {
        return reduced;
    }
    let scale = |w: u64| (u128::from(w) * u128::from(most / 2) / u128::from(total)) as u64;
    reduced.into_iter().map(|w| scale(w).max(1)).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn turns_are_spread_evenly() {
        assert_eq!(&*schedule(&[2, 1, 1]), &[0, 1, 2, 0]);
        assert_eq!(&*schedule(&[300, 100]), &[0, 0, 1, 0]);
    }

    proptest! {
        #[test]
        fn a_round_has_the_turns_of_every_weight(weights in prop::collection::vec(1_u32..50, 1..40)) {
            let round = schedule(&weights);
            let divisor = weights.iter().copied().fold(0, gcd);
            for (at, weight) in weights.iter().enumerate() {
                let turns = round.iter().filter(|turn| **turn as usize == at).count();
                prop_assert_eq!(turns as u32, weight / divisor);
            }
        }

        #[test]
        fn a_round_is_bounded_and_forgets_nobody(weights in prop::collection::vec(1_u32.., 1..200)) {
            let round = schedule(&weights);
            prop_assert!(round.len() as u64 <= longest(weights.len()));
            for at in 0..weights.len() {
                prop_assert!(round.contains(&(at as u32)));
            }
        }
    }
}
