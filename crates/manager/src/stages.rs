//! What runs on top of the components and stops before them: servers, routers, relays.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use trunkline_core::names::target;
use trunkline_core::task::catch_panic;
use trunkline_core::{AnyLifecycle, Error, Lifecycle, Result};

use crate::named::Missing;

/// Most of the drain time that is kept for what sends out.
const MOST_FOR_EGRESS: Duration = Duration::from_secs(5);
/// At most so much earlier than it is given up is a part asked to be done: what it has to cut off takes a moment, and
/// it must be able to say so.
const MOMENT: Duration = Duration::from_millis(250);

/// When something stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Brings work in: a server, a router of messages. Stops first.
    Intake,
    /// Sends out what the work left behind: a relay. Stops when the intake has finished.
    Egress,
}

#[derive(Clone)]
struct Attached {
    name: String,
    stage: Stage,
    work: AnyLifecycle,
    drained: watch::Sender<Option<Drained>>,
}

/// How the drain of a part ended.
type Drained = std::result::Result<(), Missing>;

/// Waits for the drain of one part, whoever began it.
pub(crate) struct Draining(watch::Receiver<Option<Drained>>);

impl Draining {
    /// How it ended. A part that was stopped without a drain lost nothing by it.
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "only what serves waits for its own drain")
    )]
    pub(crate) async fn ended(mut self) -> Result<()> {
        match self.0.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Err(missing))) => Err(missing.error()),
            _ => Ok(()),
        }
    }
}

/// Everything attached, in the order of attachment.
#[derive(Default)]
pub(crate) struct Stages(Mutex<Vec<Attached>>);

impl Stages {
    pub(crate) fn attach(&self, name: String, stage: Stage, work: AnyLifecycle) -> Draining {
        let (drained, draining) = watch::channel(None);
        self.lock().push(Attached {
            name,
            stage,
            work,
            drained,
        });
        Draining(draining)
    }

    /// Drains the intake, all at once, then the egress, newest first. Says what went wrong first.
    pub(crate) async fn drain(&self, deadline: Instant) -> Result<()> {
        let egress = self.of(Stage::Egress);
        // Work that does not end in time must not take the time to send out what the rest of it left behind.
        let reserved = if egress.is_empty() {
            Duration::ZERO
        } else {
            (deadline.saturating_duration_since(Instant::now()) / 5).min(MOST_FOR_EGRESS)
        };
        let intake = self.of(Stage::Intake);
        let draining = intake
            .iter()
            .map(|part| drain_one(part, deadline - reserved));
        let mut outcome: Result<()> = join_all(draining).await.into_iter().collect();
        for part in egress.iter().rev() {
            outcome = outcome.and(drain_one(part, deadline).await);
        }
        outcome
    }

    /// Stops everything for good, newest first, and says what went wrong first. One that hangs takes only its share of
    /// the time.
    pub(crate) async fn shutdown(&self, deadline: Instant) -> Result<()> {
        let mut all: Vec<_> = std::mem::take(&mut *self.lock());
        let mut outcome = Ok(());
        while let Some(attached) = all.pop() {
            let until = share(deadline, all.len() + 1);
            let stopping = catch_panic(async { attached.work.shutdown(until).await });
            let stopped = match timeout_at(until, stopping).await {
                Ok(stopped) => stopped.and_then(|stopped| stopped),
                Err(_) => Err(Error::timeout("it did not stop in time")),
            };
            if let Err(error) = stopped {
                let error = error.with_component(attached.name);
                tracing::error!(target: target::MANAGER, error = %error.report(), "a part did not stop cleanly");
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    fn of(&self, stage: Stage) -> Vec<Attached> {
        let attached = self.lock();
        let of_stage = attached.iter().filter(|attached| attached.stage == stage);
        of_stage.cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Attached>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn drain_one(part: &Attached, deadline: Instant) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let asked = deadline - (left / 20).min(MOMENT);
    let draining = catch_panic(async { part.work.drain(asked).await });
    let drained = match timeout_at(deadline, draining).await {
        Ok(drained) => drained.and_then(|drained| drained),
        Err(_) => Err(Error::timeout("what was running did not finish in time")),
    };
    let drained = drained.map_err(|error| {
        tracing::warn!(target: target::MANAGER, part = part.name, error = %error.report(), "not drained");
        error.with_component(part.name.clone())
    });
    let told = drained.as_ref().copied().map_err(Missing::new);
    part.drained.send_replace(Some(told));
    drained
}

/// Until when the first of several may take, so that the others have time as well.
pub(crate) fn share(deadline: Instant, among: usize) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    Instant::now() + left / u32::try_from(among.max(1)).unwrap_or(u32::MAX)
}
