//! What runs on top of the components and stops before them: servers, routers, relays.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use trunkline_core::names::target;
use trunkline_core::task::catch_panic;
use trunkline_core::{AnyLifecycle, Error, Lifecycle, Result};

/// Most of the drain time that is kept for what sends out.
const MOST_FOR_EGRESS: Duration = Duration::from_secs(5);

/// When something stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Brings work in: a server, a router of messages. Stops first.
    Intake,
    /// Sends out what the work left behind: a relay. Stops when the intake has finished.
    Egress,
}

struct Attached {
    name: String,
    stage: Stage,
    work: AnyLifecycle,
}

/// Everything attached, in the order of attachment.
#[derive(Default)]
pub(crate) struct Stages(Mutex<Vec<Attached>>);

impl Stages {
    pub(crate) fn attach(&self, name: String, stage: Stage, work: AnyLifecycle) {
        self.lock().push(Attached { name, stage, work });
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
            .map(|(name, work)| drain_one(name, work, deadline - reserved));
        let mut outcome: Result<()> = join_all(draining).await.into_iter().collect();
        for (name, work) in egress.iter().rev() {
            let drained = drain_one(name, work, deadline).await;
            outcome = outcome.and(drained);
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

    fn of(&self, stage: Stage) -> Vec<(String, AnyLifecycle)> {
        let attached = self.lock();
        let of_stage = attached.iter().filter(|attached| attached.stage == stage);
        of_stage
            .map(|attached| (attached.name.clone(), attached.work.clone()))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Attached>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn drain_one(name: &str, work: &AnyLifecycle, deadline: Instant) -> Result<()> {
    let draining = catch_panic(async { work.drain(deadline).await });
    let drained = match timeout_at(deadline, draining).await {
        Ok(drained) => drained.and_then(|drained| drained),
        Err(_) => Err(Error::timeout("what was running did not finish in time")),
    };
    drained.map_err(|error| {
        tracing::warn!(target: target::MANAGER, part = name, error = %error.report(), "not drained");
        error.with_component(name.to_owned())
    })
}

/// Until when the first of several may take, so that the others have time as well.
pub(crate) fn share(deadline: Instant, among: usize) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    Instant::now() + left / u32::try_from(among.max(1)).unwrap_or(u32::MAX)
}
