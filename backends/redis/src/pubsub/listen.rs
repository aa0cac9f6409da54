//! The task of one subscription: it listens on every connection that there is, one after the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::{Error, ErrorKind, Result};
use trunkline_messaging::SubscriptionState;
use trunkline_messaging::supervisor::LinkState;

use super::Core;
use super::ear::Ear;
use crate::link::{Channel, Link, Listener, NOTICE};

/// Wait before the next attempt on one connection, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a farewell may take; nothing depends on it.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) struct Task {
    pub(super) core: Arc<Core>,
    pub(super) ear: Arc<Ear>,
    pub(super) channel: Channel,
    pub(super) state: watch::Sender<SubscriptionState>,
    /// The subscription was dropped.
    pub(super) dropped: CancellationToken,
}

impl Task {
    pub(super) async fn run(self) {
        let closed = self.core.closed.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let served = tokio::select! {
                biased;
                () = self.dropped.cancelled() => break,
                () = closed.cancelled() => break,
                served = self.serve() => served,
            };
            let reason = match served {
                Ok(reason) => {
                    pause = FIRST_PAUSE;
                    reason
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => break,
                Err(error) => error.report().to_string(),
            };
            tracing::warn!(
                target: "trunkline", pattern = %self.ear.pattern, reason,
                "a subscription is detached, and misses what is published until it is attached again"
            );
            self.state
                .send_replace(SubscriptionState::Detached { reason });
            tokio::select! {
                () = self.dropped.cancelled() => break,
                () = closed.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.leave().await;
        self.ear.close();
        self.state.send_replace(SubscriptionState::Closed);
    }

    /// Listens on one connection until it is gone, and says why.
    async fn serve(&self) -> Result<String> {
        let link = self.link().await?;
        let deadline = Instant::now() + self.core.config.request_timeout;
        {
            // Together with those who leave: the last one of a channel must not silence one that has come.
            let _turn = self.core.turn.lock().await;
            let listener: Arc<dyn Listener> = self.ear.clone();
            self.core.listeners.add(self.channel.clone(), &listener);
            link.subscribe(&self.channel, deadline).await?;
        }
        self.state.send_replace(SubscriptionState::Attached);
        link.gone().await;
        Ok("the connection was lost".to_owned())
    }

    /// The connection; waits as long as it takes.
    async fn link(&self) -> Result<Link> {
        let mut state = self.core.line.state();
        loop {
            match self.core.line.current() {
                Ok((link, _)) if !link.is_gone() => return Ok(link),
                Ok(_) => {
                    // Lost a moment ago, and the supervisor has not noticed yet.
                    tokio::time::sleep(NOTICE).await;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    let reason = error.report().to_string();
                    self.state.send_if_modified(|state| {
                        let next = SubscriptionState::Detached { reason };
                        let other = *state != next;
                        *state = next;
                        other
                    });
                }
            }
            let up = state.wait_for(|state| matches!(state, LinkState::Up | LinkState::Closed));
            if up.await.is_err() {
                return Err(Error::cancelled("the broker was disconnected"));
            }
        }
    }

    async fn leave(&self) {
        let _turn = self.core.turn.lock().await;
        let listener: Arc<dyn Listener> = self.ear.clone();
        let last = self.core.listeners.remove(&self.channel, &listener);
        if !last || self.core.closed.is_cancelled() {
            return;
        }
        if let Ok((link, _)) = self.core.line.current() {
            let left = link.unsubscribe(&self.channel, Instant::now() + FAREWELL);
            if let Err(error) = left.await {
                tracing::debug!(target: "trunkline", error = %error.report(), "a channel was not left");
            }
        }
    }
}
