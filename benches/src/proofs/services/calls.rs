//! Calls that keep coming, however the ones before go.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use trunkline::Error;
use trunkline::core::task;
use trunkline::http::EnhancedHttpClient;
use trunkline::resilience::retry::RetryExhausted;

/// One call, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
}

/// Calls at a steady rate, until they are ended.
#[derive(Debug)]
pub(crate) struct Calls {
    ended: Arc<Mutex<Vec<Call>>>,
    stop: CancellationToken,
    calling: JoinHandle<()>,
}

impl Calls {
    /// Begins to make so many calls a second, each of which takes so long at the least.
    pub(crate) fn begin(
        client: EnhancedHttpClient,
        a_second: u32,
        takes: Duration,
        on: &Handle,
    ) -> Self {
        let (ended, stop) = (Arc::<Mutex<Vec<Call>>>::default(), CancellationToken::new());
        let (seen, stopped) = (Arc::clone(&ended), stop.clone());
        let path = format!("/work?ms={}", takes.as_millis());
        let _entered = on.enter();
        let calling = task::spawn("calls", async move {
            let mut ticks = interval(Duration::from_secs(1) / a_second);
            // What was due comes, late or not: who waits for answers would call less while things go wrong.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut under_way = JoinSet::new();
            while !stopped.is_cancelled() {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    _ = ticks.tick() => {
                        let (client, path, seen) = (client.clone(), path.clone(), Arc::clone(&seen));
                        under_way.spawn(async move {
                            let call = call(&client, &path).await;
                            seen.lock().unwrap_or_else(PoisonError::into_inner).push(call);
                        });
                    }
                    Some(_) = under_way.join_next() => {}
                }
            }
            while under_way.join_next().await.is_some() {}
        });
        Self {
            ended,
            stop,
            calling,
        }
    }

    /// Ends it once all calls that were begun have ended.
    pub(crate) fn end(self, on: &Handle) -> Result<Vec<Call>> {
        self.stop.cancel();
        let seen = Arc::clone(&self.ended);
        on.block_on(self.calling)?;
        let mut calls = seen.lock().unwrap_or_else(PoisonError::into_inner);
        calls.sort_by_key(|call| call.began);
        Ok(std::mem::take(&mut *calls))
    }
}

async fn call(client: &EnhancedHttpClient, path: &str) -> Call {
    let began = Instant::now();
    let answer = async {
        let answer = client.get(path).send().await?;
        answer.error_for_status().await?.text().await
    };
    let error = answer.await.err().map(|error| told(&error.into()));
    Call {
        began,
        ended: Instant::now(),
        error,
    }
}

/// What went wrong, with every attempt.
fn told(error: &Error) -> String {
    let Some(all) = error.find::<RetryExhausted>() else {
        return error.report().to_string();
    };
    let earlier = all.earlier.iter().map(|it| format!("{:?}", it.failure));
    let earlier: Vec<String> = earlier.collect();
    format!("{all}: {}; last {}", earlier.join("; "), all.last.report())
}
