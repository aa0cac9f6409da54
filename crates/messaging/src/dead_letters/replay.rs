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
        let mut run = Run {
            letters: self,
            queue: queue_of(owner)?,
            limit: replay.limit,
            pause: pause(replay.per_second)?,
            due: Instant::now(),
            held_keys: Vec::new(),
            report: ReplayReport::default(),
        };
        if self.broker.capabilities().browse {
            let there = self.positions(owner, &replay.filter).await?;
            run.those_at(&there, owner, &replay.filter).await?;
        } else {
            run.first_ones(owner, &replay.filter).await?;
        }
        Ok(run.report)
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

/// A replay that goes on.
struct Run<'a> {
    letters: &'a DeadLetters,
    queue: TopicName,
    limit: Option<u64>,
    pause: Duration,
    due: Instant,
    held_keys: Vec<bytes::Bytes>,
    report: ReplayReport,
}

impl Run<'_> {
    /// Tries those again that were there when it began, by their positions. What comes in meanwhile may be what was sent a
    /// moment ago; where a queue has several partitions it has its place among the others.
    async fn those_at(
        &mut self,
        there: &BTreeSet<u64>,
        owner: &str,
        filter: &LetterFilter,
    ) -> Result<()> {
        let mut after = 0;
        loop {
            let page = self.letters.list(owner, filter, after, PAGE).await?;
            for letter in page.letters {
                let is_last = there.last().is_none_or(|last| letter.position > *last);
                if is_last || self.is_enough() {
                    return Ok(());
                }
                if there.contains(&letter.position) {
                    self.again(letter).await;
                }
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    /// Tries so many from the front of the queue on as it had when this began: of a queue that can only be peeked into, each
    /// look begins at the front, and to see all of it first would cost more than the replay, or not be possible at all. What
    /// comes in meanwhile is behind them.
    async fn first_ones(&mut self, owner: &str, filter: &LetterFilter) -> Result<()> {
        let (mut after, mut left) = (0, None);
        loop {
            let page = self.letters.page(&self.queue, owner, after).await?;
            let left = left.get_or_insert(page.total.unwrap_or(u64::MAX));
            for stored in page.messages {
                if *left == 0 || self.is_enough() {
                    return Ok(());
                }
                *left -= 1;
                let letter = DeadLetter::read(stored);
                if filter.passes(&letter) {
                    self.again(letter).await;
                }
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    fn is_enough(&self) -> bool {
        let limit = self.limit;
        limit.is_some_and(|limit| self.report.replayed >= limit)
    }

    async fn again(&mut self, letter: DeadLetter) {
        let key = letter.message.key.clone();
        if key.as_ref().is_some_and(|key| self.held_keys.contains(key)) {
            let why = Error::rejected("an earlier dead letter of its key could not be sent");
            self.report.failed.push((letter.position, why));
            return;
        }
        sleep_until(self.due).await;
        self.due = Instant::now() + self.pause;
        match self.letters.send(&self.queue, &letter).await {
            Ok(()) => self.report.replayed += 1,
            Err(error) => {
                self.held_keys.extend(key);
                self.report.failed.push((letter.position, error));
            }
        }
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
