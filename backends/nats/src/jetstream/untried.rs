//! Deliveries that were fetched and given back without anybody having had them.
//!
//! The server counts what it sends. What is handed out is an attempt, and nothing else: so what came here and went back is
//! taken off again, as long as this process gets the message the next time. What other processes gave back, or was on a
//! connection that was cut, nobody knows of.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ledger::Token;

/// The most messages that are remembered. Of those before them the server's count holds.
const MOST: usize = 10_000;

/// Stream, consumer, position.
type Key = (Arc<str>, Arc<str>, u64);

#[derive(Debug, Default)]
struct Counts {
    counts: HashMap<Key, u32>,
    order: VecDeque<Key>,
}

/// How often messages were given back without having been handed out.
#[derive(Debug, Default)]
pub(crate) struct Untried(Mutex<Counts>);

impl Untried {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A delivery goes without having been handed out.
    pub(crate) fn note(&self, token: &Token) {
        let mut inside = self.counts();
        let key = key(token);
        if let Some(count) = inside.counts.get_mut(&key) {
            *count = count.saturating_add(1);
            return;
        }
        if inside.order.len() >= MOST
            && let Some(oldest) = inside.order.pop_front()
        {
            inside.counts.remove(&oldest);
        }
        inside.counts.insert(key.clone(), 1);
        inside.order.push_back(key);
    }

    /// Which attempt a delivery is that the server counts as this one.
    pub(crate) fn attempt(&self, token: &Token, delivery: u32) -> u32 {
        let mut inside = self.counts();
        let key = key(token);
        let untried = inside.counts.get(&key).copied().unwrap_or(0);
        if untried > 0 && delivery <= untried {
            // The server counts anew: the consumer was made again, or was forgotten and restored.
            inside.counts.remove(&key);
            inside.order.retain(|one| *one != key);
            return delivery;
        }
        delivery - untried
    }
}

fn key(token: &Token) -> Key {
    let Token {
        stream, consumer, ..
    } = token;
    (Arc::clone(stream), Arc::clone(consumer), token.position)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn token(position: u64) -> Token {
        Token {
            reply: "$JS.ACK".into(),
            stream: "S".into(),
            consumer: "c".into(),
            position,
            patience: Duration::from_secs(1),
            server_until: Instant::now(),
        }
    }

    #[test]
    fn what_nobody_had_is_no_attempt() {
        let untried = Untried::default();
        assert_eq!(untried.attempt(&token(1), 1), 1);
        untried.note(&token(1));
        untried.note(&token(1));
        assert_eq!(untried.attempt(&token(1), 3), 1);
        // It failed, and comes again.
        assert_eq!(untried.attempt(&token(1), 4), 2);
        assert_eq!(untried.attempt(&token(2), 4), 4);
        let mut elsewhere = token(1);
        elsewhere.consumer = "other".into();
        assert_eq!(untried.attempt(&elsewhere, 4), 4);
    }

    #[test]
    fn a_server_that_counts_anew_is_believed() {
        let untried = Untried::default();
        untried.note(&token(1));
        untried.note(&token(1));
        assert_eq!(untried.attempt(&token(1), 2), 2);
        assert_eq!(untried.attempt(&token(1), 3), 3);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let untried = Untried::default();
        let last = MOST as u64;
        for position in 0..=last {
            untried.note(&token(position));
        }
        assert_eq!(untried.attempt(&token(0), 2), 2);
        assert_eq!(untried.attempt(&token(1), 2), 1);
        assert_eq!(untried.attempt(&token(last), 2), 1);
        let inside = untried.counts();
        assert_eq!((inside.counts.len(), inside.order.len()), (MOST, MOST));
    }
}
