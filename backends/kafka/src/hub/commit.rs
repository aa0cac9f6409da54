//! Telling the servers what is done, on a thread of its own: the driver's commit that does not block tells nobody its outcome.
//!
//! One commit is on its way at a time, and takes everything that was done meanwhile with the next.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer as _};

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::Instant;

use super::forward::Transactor;
use super::ledger::Place;
use super::{Consumer, Hub, list};
use crate::note::Note;

/// The pause after a commit that failed: after a rebalance, or when the servers are back, it succeeds.
const PAUSE: Duration = Duration::from_millis(100);

impl Hub {
    /// Commits until it is over.
    pub(super) fn commit_what_is_done(&self, consumer: &Consumer, over: &AtomicBool) {
        let mut transactor = Transactor::default();
        if self.link.config().transactions {
            self.begin_transactions(&mut transactor);
        }
        let mut again_at = Instant::now();
        while !over.load(Ordering::SeqCst) {
            self.begin_again(&mut transactor, &mut again_at);
            self.forward_what_waits(consumer, &mut transactor, over);
            let committed = self.commit_once(consumer);
            let books = self.books();
            let waited = match committed {
                Some(true) => continue,
                None if !books.forwards.is_empty() => continue,
                // Notified when there is something; looked at again all the same.
                None if books.ledger.uncommitted().is_empty() => {
                    self.done.wait_timeout(books, PAUSE * 10)
                }
                None => continue,
                Some(false) if over.load(Ordering::SeqCst) => return,
                Some(false) => self.done.wait_timeout(books, PAUSE),
            };
            drop(waited);
        }
    }

    /// Commits what is done; whether that succeeded. `None` when there is nothing.
    fn commit_once(&self, consumer: &Consumer) -> Option<bool> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_in_doubt() {
            return Some(false);
        }
        let (standing, since) = {
            let books = self.books();
            (books.ledger.uncommitted(), books.since)
        };
        if standing.is_empty() {
            return None;
        }
        let longest = self.longest_note();
        let list = list(standing.iter().map(|one| {
            let note = Note {
                since,
                handed: None,
                done: one.done.clone(),
            };
            (
                &one.place,
                one.position,
                note.write(one.position, longest).0,
            )
        }));
        let outcome = consumer.commit(&list, CommitMode::Sync);
        drop(turn);
        match outcome {
            Ok(()) => {
                let mut books = self.books();
                for one in &standing {
                    books.ledger.committed(one);
                    books.tell(&one.place, one.changes);
                }
                drop(books);
                self.refresh();
                Some(true)
            }
            Err(error) => {
                tracing::debug!(target: "trunkline", broker = "kafka", %error, "a commit failed");
                if error.rdkafka_error_code() == Some(Code::OffsetMetadataTooLarge) {
                    // These servers take less than is usual: positions matter more than what is done behind them.
                    self.no_notes();
                }
                self.link.doubt();
                Some(false)
            }
        }
    }

    /// Tells the servers where partitions stand, and what of them was handed out.
    pub(super) fn hand_over(&self, consumer: &Consumer, given: &[Place]) {
        if self.group.is_none() {
            return;
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have taken long to come to this turn.
        if self.is_in_doubt() || consumer.assignment_lost() {
            return;
        }
        let (standing, since) = {
            let books = self.books();
            (books.ledger.standing(given), books.since)
        };
        if standing.is_empty() {
            return;
        }
        let longest = self.longest_note();
        let positions = standing.iter().map(|one| {
            let note = Note {
                since,
                handed: Some(one.handed),
                done: one.done.clone(),
            };
            (
                &one.place,
                one.position,
                note.write(one.position, longest).0,
            )
        });
        let outcome = consumer.commit(&list(positions), CommitMode::Sync);
        drop(turn);
        match outcome {
            Ok(()) => {
                let mut books = self.books();
                for one in &standing {
                    books.ledger.committed(one);
                    books.tell(&one.place, one.changes);
                }
            }
            // What was done since the last commit comes again.
            Err(error) => {
                tracing::info!(target: "trunkline", broker = "kafka", %error, "the last commit of partitions that go failed");
            }
        }
    }
}
