//! Watches what the broker says of itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::runtime::Handle;
use tokio::sync::watch;
use trunkline::core::task;
use trunkline::messaging::{AnyBroker, MessageBroker as _};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(50);
/// A check that takes longer has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What the last look said; `None` before the first.
#[derive(Clone)]
pub(super) struct Health(Arc<watch::Sender<Option<bool>>>);

impl Health {
    /// Looks again and again, until the last handle is dropped.
    pub(super) fn watch(broker: AnyBroker, on: &Handle) -> Self {
        let health = Self(Arc::new(watch::Sender::new(None)));
        let seen = Arc::downgrade(&health.0);
        let _entered = on.enter();
        drop(task::spawn("health", async move {
            loop {
                let check = tokio::time::timeout(ANSWER_WITHIN, broker.health_check());
                let green = matches!(check.await, Ok(Ok(())));
                let Some(seen) = seen.upgrade() else { return };
                seen.send_replace(Some(green));
                drop(seen);
                tokio::time::sleep(EVERY).await;
            }
        }));
        health
    }

    /// Waits until it is green, or red; says how long that took.
    pub(super) fn until(&self, green: bool, limit: Duration) -> Result<Duration> {
        let since = Instant::now();
        while *self.0.borrow() != Some(green) {
            if since.elapsed() > limit {
                let wanted = if green { "green" } else { "red" };
                bail!("health was not {wanted} within {limit:?}");
            }
            std::thread::sleep(EVERY);
        }
        Ok(since.elapsed())
    }
}
