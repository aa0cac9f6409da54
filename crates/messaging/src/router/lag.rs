//! How much waits for a handler, asked of the broker now and then.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trunkline_core::health::ComponentHealth;
use trunkline_core::{Context, ErrorKind, Result};
use trunkline_telemetry::metrics::ConsumeMetrics;

use super::listening::Listening;
use crate::broker::MessageBroker;
use crate::erased::AnyBroker;
use crate::subscription::{Subscribe, SubscriptionState};
use crate::surroundings::Surroundings;
use crate::topic::Source;

/// The broker may take so long to answer, however often it is asked.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Asks for one handler, as long as that is attached.
pub(super) struct LagWatch {
    broker: AnyBroker,
    subscribe: Subscribe,
    every: Duration,
    state: watch::Receiver<SubscriptionState>,
    metrics: ConsumeMetrics,
    part: Option<ComponentHealth>,
    title: String,
    own: watch::Sender<Option<u64>>,
    stop: CancellationToken,
}

impl LagWatch {
    /// None where nobody asked for it or the broker cannot say.
    pub(super) fn of(
        listening: &Listening,
        subscribe: Subscribe,
        around: &Surroundings,
        state: watch::Receiver<SubscriptionState>,
        metrics: ConsumeMetrics,
    ) -> Option<Self> {
        let has_place = subscribe.group.is_some() || matches!(subscribe.source, Source::Queue(_));
        let asked = around.capabilities.lag && !around.lag_interval.is_zero();
        (has_place && asked).then(|| Self {
            broker: around.broker.clone(),
            subscribe,
            every: around.lag_interval,
            state,
            metrics,
            part: around.part.clone(),
            title: format!("lag {}", listening.title()),
            own: listening.lag_sender(),
            stop: listening.scope().token(),
        })
    }

    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.keep_asking()).await;
        self.show(None);
    }

    async fn keep_asking(&mut self) {
        let mut failing = false;
        loop {
            let attached = *self.state.borrow_and_update() == SubscriptionState::Attached;
            let asked = match attached {
                true => self.ask().await,
                false => Ok(None),
            };
            // An old number would be a lie.
            self.show(*asked.as_ref().unwrap_or(&None));
            match &asked {
                Err(error) if error.kind() == ErrorKind::Cancelled => return,
                Err(error) if !failing => {
                    tracing::warn!(
                        target: "trunkline",
                        subscription = %self.subscribe.source,
                        group = self.subscribe.group.as_deref(),
                        error = %error.report(),
                        "the broker does not say how many messages wait; it is asked again"
                    );
                }
                Err(_) | Ok(_) => {}
            }
            failing = asked.is_err();
            let changed = tokio::time::timeout(self.every, self.state.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
        }
    }

    async fn ask(&self) -> Result<Option<u64>> {
        let limit = self.every.clamp(SHORTEST, LONGEST);
        // The deadline of whoever began the handler is not this question's.
        let context = Context::new().with_timeout(limit);
        let asked = context.scope(self.broker.lag(&self.subscribe));
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(trunkline_core::Error::timeout(format!(
                "no answer within {limit:?}"
            ))),
        }
    }

    fn show(&self, lag: Option<u64>) {
        self.metrics.set_lag(lag);
        self.own.send_replace(lag);
        match (&self.part, lag) {
            (Some(part), Some(lag)) => part.set_metadata(&self.title, lag),
            (Some(part), None) => part.remove_metadata(&self.title),
            (None, _) => {}
        }
    }
}
