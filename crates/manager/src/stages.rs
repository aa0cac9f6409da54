//! What runs on top of the components and stops before them: servers, routers, relays.

use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use trunkline_core::names::target;
use trunkline_core::{AnyLifecycle, Error, Lifecycle, Result};

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

    /// Drains the intake, all at once, then the egress, newest first.
    pub(crate) async fn drain(&self, deadline: Instant) {
        let intake = self.of(Stage::Intake);
        join_all(
            intake
                .iter()
                .map(|(name, work)| drain_one(name, work, deadline)),
        )
        .await;
        for (name, work) in self.of(Stage::Egress).iter().rev() {
            drain_one(name, work, deadline).await;
        }
    }

    /// Stops everything for good, newest first, and says what went wrong first.
    pub(crate) async fn shutdown(&self, deadline: Instant) -> Result<()> {
        let all: Vec<_> = std::mem::take(&mut *self.lock());
        let mut outcome = Ok(());
        for attached in all.into_iter().rev() {
            let stopped = timeout_at(deadline, attached.work.shutdown(deadline)).await;
            let stopped =
                stopped.unwrap_or_else(|_| Err(Error::timeout("it did not stop in time")));
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

async fn drain_one(name: &str, work: &AnyLifecycle, deadline: Instant) {
    let drained = match timeout_at(deadline, work.drain(deadline)).await {
        Ok(drained) => drained,
        Err(_) => Err(Error::timeout("what was running did not finish in time")),
    };
    if let Err(error) = drained {
        tracing::warn!(target: target::MANAGER, part = name, error = %error.report(), "not drained");
    }
}
