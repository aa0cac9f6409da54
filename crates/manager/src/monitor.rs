//! Looks after the components while the manager runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use trunkline_core::Health;
use trunkline_core::names::target;
use trunkline_core::task::Scope;

use crate::callbacks::Callbacks;
use crate::component::Component;

/// First pause after a failed check; it doubles up to the interval, so that a part that returns is noticed soon.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Checks a component at an interval, sooner while it is away.
pub(crate) fn watch_component(tasks: &Scope, component: Arc<Component>, interval: Duration) {
    let stop = tasks.token();
    tasks.spawn("health check", async move {
        let mut pause = if component.is_connected() {
            interval
        } else {
            FIRST_PAUSE.min(interval)
        };
        while !cancelled_within(&stop, pause).await {
            let works = tokio::select! {
                works = component.check() => works,
                () = stop.cancelled() => return,
            };
            pause = if works {
                interval
            } else {
                next_pause(pause, interval)
            };
        }
    });
}

fn next_pause(pause: Duration, interval: Duration) -> Duration {
    let first = FIRST_PAUSE.min(interval);
    if pause >= interval {
        first
    } else {
        (pause * 2).min(interval)
    }
}

async fn cancelled_within(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::time::timeout(pause, stop.cancelled()).await.is_ok()
}

/// Tells the health callbacks, one report after the other, on a task of its own: a callback may call the manager.
pub(crate) fn tell_callbacks(tasks: &Scope, health: &Health, callbacks: Arc<Callbacks>) {
    let stop = tasks.token();
    let mut reports = health.subscribe();
    tasks.spawn("health callbacks", async move {
        loop {
            let report = tokio::select! {
                report = reports.recv() => report,
                () = stop.cancelled() => return,
            };
            match report {
                Ok(report) => tokio::select! {
                    () = callbacks.health_reported(&report) => {}
                    () = stop.cancelled() => return,
                },
                Err(RecvError::Lagged(missed)) => tracing::warn!(
                    target: target::MANAGER, missed,
                    "health callbacks are too slow; some reports were passed over"
                ),
                Err(RecvError::Closed) => return,
            }
        }
    });
}
