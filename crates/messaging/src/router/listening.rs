//! A handler that was begun.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_core::{Error, Result};
use trunkline_telemetry::metrics::ConsumeMetrics;

use super::subscribing::Plan;
use crate::subscription::SubscriptionState;
use crate::surroundings::Surroundings;
use crate::topic::Source;

/// A handler at work. Dropping it stops nothing; clones are the same.
#[derive(Clone, Debug)]
pub struct Listening(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    source: Source,
    group: Option<String>,
    scope: Scope,
    state: watch::Sender<SubscriptionState>,
    lag: watch::Sender<Option<u64>>,
}

impl Listening {
    pub(super) fn new(plan: &Plan, group: Option<String>, scope: Scope) -> Self {
        let reason = "not attached yet".to_owned();
        Self(Arc::new(Inner {
            name: Arc::clone(&plan.name),
            source: plan.source.clone(),
            group,
            scope,
            state: watch::Sender::new(SubscriptionState::Detached { reason }),
            lag: watch::Sender::new(None),
        }))
    }

    /// The name of the handler.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it subscribes to.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.0.source
    }

    /// Its group.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.0.group.as_deref()
    }

    /// Whether messages can come, as a value to watch.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<SubscriptionState> {
        self.0.state.subscribe()
    }

    /// How many messages wait for it and its group, as the broker said when it was last asked, as a value to watch; `None`
    /// while nobody knows. See [`MessageBroker::lag`](crate::MessageBroker::lag) for what is counted.
    #[must_use]
    pub fn lag(&self) -> watch::Receiver<Option<u64>> {
        self.0.lag.subscribe()
    }

    /// Waits until messages can come, as long as that takes.
    ///
    /// # Errors
    /// `Cancelled` when it was stopped.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn attached(&self) -> Result<()> {
        let mut state = self.state();
        let there = state.wait_for(|state| !matches!(state, SubscriptionState::Detached { .. }));
        let attached = there
            .await
            .is_ok_and(|state| *state == SubscriptionState::Attached);
        if attached {
            return Ok(());
        }
        Err(Error::cancelled(format!(
            "the handler {} was stopped",
            self.0.name
        )))
    }

    /// Takes no new messages, lets running handlers finish until the deadline, and gives everything else back. Says how
    /// many tasks had to be ended by force.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn stop(&self, deadline: Instant) -> usize {
        let forced = self.0.scope.shutdown(deadline).await;
        self.0.state.send_replace(SubscriptionState::Closed);
        forced
    }

    /// Ends it before it took anything.
    pub(super) fn abandon(&self) {
        self.0.scope.stop();
        self.0.state.send_replace(SubscriptionState::Closed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.0.scope.is_stopping() && self.0.scope.is_empty()
    }

    /// Whether each would get what the other misses. Subscribers without a group do not: each gets everything.
    pub(super) fn competes_with(&self, other: &Self) -> bool {
        let shares = self.0.group.is_some() || matches!(self.0.source, Source::Queue(_));
        shares && self.0.group == other.0.group && self.0.source == other.0.source
    }

    pub(super) fn scope(&self) -> Scope {
        self.0.scope.clone()
    }

    pub(super) fn lag_sender(&self) -> watch::Sender<Option<u64>> {
        self.0.lag.clone()
    }

    /// What it subscribes to, and for whom.
    pub(super) fn title(&self) -> String {
        match self.group() {
            Some(group) => format!("{} ({group})", self.source().name()),
            None => self.source().name().to_owned(),
        }
    }

    /// Tells everybody whether messages can come: readiness, metrics, log, and who asks this handler.
    pub(super) fn watch(
        &self,
        mut state: watch::Receiver<SubscriptionState>,
        around: &Surroundings,
        metrics: ConsumeMetrics,
    ) -> impl Future<Output = ()> + Send + use<> {
        let title = format!("subscription {}", self.title());
        let gate = around
            .health
            .as_ref()
            .map(|health| health.gate(&title, "not attached yet"));
        let (stop, own) = (self.0.scope.token(), self.0.state.clone());
        async move {
            loop {
                let now = state.borrow_and_update().clone();
                let attached = now == SubscriptionState::Attached;
                metrics.set_attached(attached);
                match (&now, &gate) {
                    (SubscriptionState::Attached, Some(gate)) => gate.open(),
                    (SubscriptionState::Detached { reason }, Some(gate)) => gate.close(reason),
                    (SubscriptionState::Closed, Some(gate)) => {
                        gate.close("the broker was disconnected");
                    }
                    (_, None) => {}
                }
                match &now {
                    SubscriptionState::Attached => {
                        tracing::info!(target: "trunkline", subscription = title, "attached");
                    }
                    SubscriptionState::Detached { reason } => {
                        tracing::warn!(target: "trunkline", subscription = title, reason, "detached");
                    }
                    SubscriptionState::Closed => {
                        tracing::debug!(target: "trunkline", subscription = title, "closed");
                    }
                }
                own.send_replace(now);
                tokio::select! {
                    () = stop.cancelled() => break,
                    changed = state.changed() => if changed.is_err() { break },
                }
            }
            metrics.set_attached(false);
        }
    }
}
