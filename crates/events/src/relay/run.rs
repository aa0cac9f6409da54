//! The task of a relay.

use std::convert::identity;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use trunkline_core::task::catch_panic;
use trunkline_core::{Error, ErrorKind, Result};
use trunkline_messaging::{MessageBroker, Publish};
use trunkline_resilience::retry::{RetrySettings, Schedule};
use trunkline_telemetry::metrics::RelayMetrics;

use super::backlog::Backlog;
use super::{Inner, RelayProgress};
use crate::event::RecordedEvent;
use crate::store::{ChangeSignal, EventStore, ReadAll};

/// Time for one question to the store, and for one confirm of the broker.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Longest wait before something that failed is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How often it is reported that all is well.
const SAY_SO: Duration = Duration::from_secs(10);

/// Time to keep what is confirmed when the relay stops.
const LAST_WORD: Duration = Duration::from_secs(2);

pub(super) struct Running {
    relay: Arc<Inner>,
    changes: ChangeSignal,
    metrics: RelayMetrics,
    /// Everything up to here is published, and the checkpoint durable. `None` until it was read.
    position: Option<u64>,
    batch: Option<Batch>,
    failures: u32,
    /// When it last said that it works.
    said_so: Option<Instant>,
}

/// Events that were read and are not all published.
struct Batch {
    events: Vec<RecordedEvent>,
    backlog: Backlog,
    /// How many of them the checkpoint holds.
    saved: usize,
}

/// What a step has led to.
enum Step {
    /// There may be more to do.
    Forward,
    /// Everything is published.
    CaughtUp,
}

impl Running {
    pub(super) fn new(relay: Arc<Inner>) -> Self {
        Self {
            changes: relay.store.changes(),
            metrics: relay.metrics.relay(&relay.config.name),
            relay,
            position: None,
            batch: None,
            failures: 0,
            said_so: None,
        }
    }

    /// Runs until the relay is shut down.
    pub(super) async fn run(mut self) {
        let stop = self.relay.scope.token();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
        // What was confirmed before the stop need not be published again.
        let last_word = timeout(LAST_WORD, self.save()).await;
        if !matches!(last_word, Ok(Ok(()))) {
            tracing::info!(
                target: "trunkline::events",
                relay = self.relay.config.name,
                "the checkpoint could not be saved at the end; some events will be published again"
            );
        }
    }

    async fn work(&mut self) {
        let schedule = schedule();
        loop {
            self.changes.mark_unchanged();
            // A fault of store or broker ends one step, not the publishing.
            let step = catch_panic(self.step()).await.and_then(identity);
            match step {
                Ok(Step::Forward) => self.works(),
                Ok(Step::CaughtUp) => {
                    self.works();
                    self.wait_for_news().await;
                }
                Err(error) => {
                    self.failed(&error);
                    sleep(schedule.before(self.failures.saturating_add(1))).await;
                }
            }
        }
    }

    /// Does one thing: reads the checkpoint, reads a batch, publishes what may be published, saves the checkpoint.
    async fn step(&mut self) -> Result<Step> {
        let Some(batch) = &self.batch else {
            return self.read().await;
        };
        if !batch.backlog.is_done() {
            let published = self.publish().await;
            if published.is_err() {
                // Kept even when others go on failing, so that a crash repeats as little as possible.
                self.save().await?;
            }
            return published.map(|()| Step::Forward);
        }
        self.save().await?;
        self.batch = None;
        Ok(Step::Forward)
    }

    async fn read(&mut self) -> Result<Step> {
        // Another relay of this name may have gone on meanwhile.
        let stored = within(
            "checkpoint",
            self.relay.store.checkpoint(&self.relay.config.name),
        )
        .await?;
        let position = self.position.map_or(stored, |own| own.max(stored));
        self.position = Some(position);
        let limit = self.relay.config.batch_size as usize;
        let next = ReadAll::after(position).with_limit(limit);
        let events = within("read", self.relay.store.read_all(next)).await?;
        if events.is_empty() {
            return Ok(Step::CaughtUp);
        }
        let keys = events
            .iter()
            .map(|event| (event.position, event.event.aggregate_id.as_str()));
        let backlog = Backlog::new(keys);
        self.batch = Some(Batch {
            backlog,
            events,
            saved: 0,
        });
        Ok(Step::Forward)
    }

    /// Publishes the first event of every key, pipelined. The first error is told when all have been answered.
    async fn publish(&mut self) -> Result<()> {
        let Some(batch) = &mut self.batch else {
            return Ok(());
        };
        let mut failed = None;
        let (mut wave, mut messages): (Vec<usize>, Vec<Publish>) = (Vec::new(), Vec::new());
        for at in batch.backlog.wave() {
            let (outgoing, event) = (&self.relay.outgoing, &batch.events[at]);
            // The topic may be chosen by somebody else's function.
            let message = catch_panic(async { outgoing.publish(event) }).await;
            match message.and_then(identity) {
                Ok(message) => {
                    wave.push(at);
                    messages.push(message);
                }
                Err(error) => {
                    failed.get_or_insert((at, error));
                }
            }
        }
        let asked = messages.len();
        let answers = timeout(ANSWER_TIME, self.relay.broker.publish_batch(messages)).await;
        let answers = answers.map_err(|_| too_slow("publish"))?;
        if answers.len() != asked {
            return Err(Error::internal(format!(
                "the broker answered {} of {asked} messages",
                answers.len()
            )));
        }
        for (at, answer) in wave.into_iter().zip(answers) {
            match answer {
                Ok(_) => batch.backlog.finish(at),
                Err(error) => {
                    failed.get_or_insert((at, error));
                }
            }
        }
        match failed {
            None => Ok(()),
            Some((at, error)) => Err(about(&batch.events[at], error)),
        }
    }

    /// Keeps durably how far everything is published.
    async fn save(&mut self) -> Result<()> {
        let Some(batch) = &mut self.batch else {
            return Ok(());
        };
        let Some(position) = batch
            .backlog
            .position()
            .filter(|_| batch.backlog.reached() > batch.saved)
        else {
            return Ok(());
        };
        let saving = self
            .relay
            .store
            .save_checkpoint(&self.relay.config.name, position);
        within("save_checkpoint", saving).await?;
        let published = (batch.backlog.reached() - batch.saved) as u64;
        batch.saved = batch.backlog.reached();
        self.position = Some(position);
        self.metrics.published(published);
        self.relay
            .progress
            .send_modify(|progress| progress.published += published);
        Ok(())
    }

    async fn wait_for_news(&mut self) {
        tokio::select! {
            changed = self.changes.changed() => if changed.is_err() {
                // The store no longer tells: it is asked in the interval alone.
                sleep(self.relay.config.poll_interval).await;
            },
            () = self.relay.nudge.notified() => {}
            () = sleep(self.relay.config.poll_interval) => {}
        }
    }

    fn works(&mut self) {
        let recovered = std::mem::take(&mut self.failures) > 0;
        if recovered {
            tracing::info!(
                target: "trunkline::events",
                relay = self.relay.config.name, "the relay publishes again"
            );
        }
        let due = self.said_so.is_none_or(|at| at.elapsed() >= SAY_SO);
        if let Some(component) = &self.relay.component
            && (recovered || due)
        {
            self.said_so = Some(Instant::now());
            component.mark_healthy();
        }
        self.tell(None);
    }

    fn failed(&mut self, error: &Error) {
        self.failures = self.failures.saturating_add(1);
        let why = error.report().to_string();
        let by_itself = passes_by_itself(error.kind());
        tracing::warn!(
            target: "trunkline::events",
            relay = self.relay.config.name, failures = self.failures, by_itself, error = why,
            "the relay cannot go on; trying again"
        );
        if let Some(component) = &self.relay.component {
            if by_itself {
                component.mark_degraded(&why);
            } else {
                component.mark_unhealthy(error);
            }
        }
        self.tell(Some(why));
    }

    fn tell(&self, error: Option<String>) {
        let position = self.position.unwrap_or(0);
        let oldest = self
            .batch
            .as_ref()
            .and_then(|batch| batch.events.get(batch.backlog.reached()));
        let now = self.relay.clock.now();
        let age = oldest.map_or(Duration::ZERO, |event| now.since(event.recorded_at));
        let lag = self.changes.borrow().saturating_sub(position);
        self.metrics.lag(lag);
        self.metrics.age(age);
        let published = self.relay.progress.borrow().published;
        let progress = RelayProgress {
            position,
            published,
            lag,
            age,
            error,
        };
        self.relay.progress.send_if_modified(|known| {
            let changed = *known != progress;
            *known = progress;
            changed
        });
    }
}

fn schedule() -> Schedule {
    let mut schedule = RetrySettings::default().schedule();
    schedule.delay = Duration::from_millis(100);
    schedule.backoff = 2.0;
    schedule.max_delay = LONGEST_WAIT;
    schedule.jitter = true;
    schedule
}

async fn within<T>(
    operation: &'static str,
    question: impl Future<Output = Result<T>>,
) -> Result<T> {
    let answer = timeout(ANSWER_TIME, question).await;
    answer.unwrap_or_else(|_| Err(too_slow(operation)))
}

fn too_slow(operation: &'static str) -> Error {
    let span = trunkline_core::duration::format(ANSWER_TIME);
    Error::timeout(format!("no answer within {span}")).with_operation(operation)
}

fn about(event: &RecordedEvent, error: Error) -> Error {
    Error::new(
        error.kind(),
        format!(
            "event {} cannot be published: {error}",
            event.event.event_id
        ),
    )
    .with_operation("publish")
    .with_context("event_type", &event.event.event_type)
    .with_context("position", event.position)
    .with_retry(error.retry())
    .with_source(error)
}

/// Whether waiting may be enough; else somebody has to help.
fn passes_by_itself(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Cancelled
            | ErrorKind::Rejected
            | ErrorKind::RateLimited
            | ErrorKind::Exhausted
    )
}
