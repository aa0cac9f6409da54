//! Looks after the components while the manager runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use trunkline_core::health::HealthChange;
use trunkline_core::names::target;
use trunkline_core::task::Scope;
use trunkline_core::{Health, HealthDocument, Status};

use crate::callbacks::Callbacks;
use crate::component::Component;

/// First pause after a failed check; it doubles up to the interval, so that a part that returns is noticed soon.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Checks a component at an interval, sooner while it is away. With `until_connected`, only until it has come.
pub(crate) fn watch_component(
    tasks: &Scope,
    component: Arc<Component>,
    interval: Duration,
    until_connected: bool,
) {
    let stop = tasks.token();
    tasks.spawn("health check", async move {
        let first = FIRST_PAUSE.min(interval);
        // While it is away.
        let mut shorter = (!component.is_connected()).then_some(first);
        while !(until_connected && component.is_connected()) {
            if cancelled_within(&stop, shorter.unwrap_or(interval)).await {
                return;
            }
            let works = tokio::select! {
                works = component.check() => works,
                () = stop.cancelled() => return,
            };
            shorter = (!works).then(|| match shorter {
                None => first,
                Some(pause) => (pause * 2).min(interval),
            });
        }
    });
}

async fn cancelled_within(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::time::timeout(pause, stop.cancelled()).await.is_ok()
}

/// Tells the health callbacks, one report after the other, on a task of its own: a callback may call the manager.
pub(crate) fn tell_callbacks(tasks: &Scope, health: &Health, callbacks: Arc<Callbacks>) {
    let stop = tasks.token();
    let (reports, at_the_start) = (health.subscribe(), health.document());
    let teller = Teller {
        health: health.clone(),
        callbacks,
        told: HashMap::new(),
    };
    tasks.spawn("health callbacks", async move {
        tokio::select! {
            () = teller.run(at_the_start, reports) => {}
            () = stop.cancelled() => {}
        }
    });
}

/// Knows what the callbacks were told last. They take everything for healthy that they were told nothing about.
struct Teller {
    health: Health,
    callbacks: Arc<Callbacks>,
    told: HashMap<Arc<str>, Status>,
}

impl Teller {
    async fn run(mut self, at_the_start: HealthDocument, mut reports: Receiver<HealthChange>) {
        // What did not work then is news as well.
        self.catch_up(at_the_start).await;
        loop {
            match reports.recv().await {
                Ok(report) => self.tell(report).await,
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(
                        target: target::MANAGER, missed,
                        "health callbacks are too slow; they are told only what is true now"
                    );
                    self.catch_up(self.health.document()).await;
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn tell(&mut self, mut report: HealthChange) {
        let now = report.status.status;
        let told = self.told.insert(Arc::clone(&report.key), now);
        report.previous = told.unwrap_or(Status::Healthy);
        self.callbacks.health_reported(&report).await;
    }

    async fn catch_up(&mut self, now: HealthDocument) {
        for (key, status) in now.components {
            if status.last_health_check.is_none() {
                continue;
            }
            let report = HealthChange {
                key: key.into(),
                previous: status.status,
                status,
                failed: false,
            };
            self.tell(report).await;
        }
    }
}
