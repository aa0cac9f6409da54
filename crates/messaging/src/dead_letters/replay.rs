//! Trying dead letters again.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use trunkline_core::{Error, Result};

use super::letter::{DeadLetter, LetterFilter};
use super::names::{owner as owner_of, retry_queue};
use super::{DeadLetters, PAGE, queue_of};
use crate::broker::MessageBroker;
use crate::message::Publish;
use crate::topic::{Destination, TopicName};

/// How dead letters are tried again.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Replay {
    /// Which. Default: all that are there when it begins.
    pub filter: LetterFilter,
    /// At most so many. Default: all.
    pub limit: Option<u64>,
    /// At most so many a second. Default: as fast as the broker takes them.
    pub per_second: Option<f64>,
}

impl Replay {
    /// Tries again those that pass a filter.
    #[must_use]
    pub fn with_filter(mut self, filter: LetterFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Tries again so many at most.
    #[must_use]
    pub fn with_limit(mut self, letters: u64) -> Self {
        self.limit = Some(letters);
        self
    }

    /// Tries again so many a second at most.
    #[must_use]
    pub fn with_rate(mut self, per_second: f64) -> Self {
        self.per_second = Some(per_second);
        self
    }
}

/// What came of it.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Dead letters that are with their handler again.
    pub replayed: u64,
    /// Dead letters that stay, with their positions and why.
    pub failed: Vec<(u64, Error)>,
}

impl DeadLetters {
    /// Tries dead letters again, in their order: each goes to the handler that gave it up, then it is removed. A crash in
    /// between leaves it in both places under the same id.
    ///
    /// A dead letter that cannot be sent holds back the later ones of its key, so that order is kept.
    ///
    /// # Errors
    /// As [`DeadLetters::list`]; `Invalid` for a rate that is not positive. What concerns a single dead letter is in the
    /// report.
    ///
    /// # Cancel safety
    /// When dropped, some were tried again; one of them may be left in both places.
    pub async fn replay(&self, owner: &str, replay: &Replay) -> Result<ReplayReport> {
        let queue = queue_of(owner)?;
        let pause = pause(replay.per_second)?;
        let mut report = ReplayReport::default();
        let mut held_keys: Vec<bytes::Bytes> = Vec::new();
        let (mut after, mut due) = (0, Instant::now());
        let there = self.positions(owner, &replay.filter).await?;
        loop {
            let page = self.list(owner, &replay.filter, after, PAGE).await?;
            for letter in page.letters {
                let is_enough = replay.limit.is_some_and(|limit| report.replayed >= limit);
                let is_last = there.last().is_none_or(|last| letter.position > *last);
                if is_enough || is_last {
                    return Ok(report);
                }
                // What comes in meanwhile is not tried again: it may be what was sent a moment ago. Where a queue has several
                // partitions it has its place among the others.
                if !there.contains(&letter.position) {
                    continue;
                }
                let key = letter.message.key.clone();
                if key.as_ref().is_some_and(|key| held_keys.contains(key)) {
                    let why =
                        Error::rejected("an earlier dead letter of its key could not be sent");
                    report.failed.push((letter.position, why));
                    continue;
                }
                sleep_until(due).await;
                due = Instant::now() + pause;
                match self.send(&queue, &letter).await {
                    Ok(()) => report.replayed += 1,
                    Err(error) => {
                        held_keys.extend(key);
                        report.failed.push((letter.position, error));
                    }
                }
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(report),
            }
        }
    }

    /// The positions of the dead letters that there are now.
    async fn positions(&self, owner: &str, filter: &LetterFilter) -> Result<BTreeSet<u64>> {
        let (mut after, mut there) = (0, BTreeSet::new());
        loop {
            let page = self.list(owner, filter, after, PAGE).await?;
            there.extend(page.letters.iter().map(|letter| letter.position));
            match page.next {
                Some(next) => after = next,
                None => return Ok(there),
            }
        }
    }

    async fn send(&self, queue: &TopicName, letter: &DeadLetter) -> Result<()> {
        let target = target(queue, letter)?;
        let publish = Publish::new(Destination::Queue(target.clone()), letter.revived());
        self.broker.publish(publish).await.map_err(|error| {
            error
                .with_operation("replay")
                .with_context("queue", &target)
        })?;
        let removed = self
            .broker
            .remove(queue.clone(), vec![letter.position])
            .await?;
        if removed == 0 {
            tracing::debug!(
                target: "trunkline",
                position = letter.position,
                "a dead letter was removed by somebody else while it was sent again"
            );
        }
        Ok(())
    }
}

/// The queue of the handler that gave it up.
fn target(queue: &TopicName, letter: &DeadLetter) -> Result<TopicName> {
    let unknown = |what: &str| {
        Error::invalid(format!(
            "it does not say {what}, so that it cannot be tried again; publish it by hand"
        ))
    };
    let owner = owner_of(queue).ok_or_else(|| unknown("whose it is"))?;
    let source = letter.source.as_ref();
    let source = source.ok_or_else(|| unknown("which handler gave it up"))?;
    match source {
        // By the name of the queue of dead letters, which carries a prefix where there is one.
        crate::topic::Source::Queue(_) => TopicName::new(owner),
        topics @ crate::topic::Source::Topics(_) => retry_queue(owner, topics),
    }
}

fn pause(per_second: Option<f64>) -> Result<Duration> {
    match per_second {
        None => Ok(Duration::ZERO),
        Some(rate) if rate > 0.0 => Duration::try_from_secs_f64(1.0 / rate)
            .map_err(|_| Error::invalid("the rate is too small")),
        Some(rate) => Err(Error::invalid(format!(
            "the rate {rate} is no positive number"
        ))),
    }
}
