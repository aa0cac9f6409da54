//! Asking again when the time of an answer is over.

use std::sync::Arc;

use futures_core::Stream;
use futures_util::stream;
use tokio::time::{Instant, sleep_until};
use trunkline_core::Result;
use trunkline_discovery::{InstanceList, ServiceInstance, ServiceName};

use crate::answer::ask;
use crate::registry::Shared;

/// How much later than it may an answer is asked for again, at most, so that not all ask at one moment.
const JITTER: f64 = 0.1;

struct Watching {
    shared: Arc<Shared>,
    service: ServiceName,
    again: Option<Instant>,
    last: Option<Vec<ServiceInstance>>,
}

/// The list now, then one after every change that an answer shows.
pub(crate) fn lists(
    shared: Arc<Shared>,
    service: ServiceName,
) -> impl Stream<Item = Result<InstanceList>> + Send + 'static {
    let watching = Watching {
        shared,
        service,
        again: None,
        last: None,
    };
    stream::unfold(watching, async |mut watching| {
        let next = watching.next().await?;
        Some((next, watching))
    })
}

impl Watching {
    async fn next(&mut self) -> Option<Result<InstanceList>> {
        let shared = Arc::clone(&self.shared);
        let closed = shared.client.closed();
        loop {
            if let Some(again) = self.again {
                tokio::select! {
                    biased;
                    () = closed.cancelled() => return None,
                    () = sleep_until(again) => {}
                }
            }
            let asking = ask(
                &shared.client,
                &shared.config,
                &shared.targets,
                &self.service,
            );
            let answer = asking.await;
            if closed.is_cancelled() {
                return None;
            }
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    self.again = Some(Instant::now() + shared.config.refresh_min);
                    // After an error the list is told again, changed or not.
                    self.last = None;
                    return Some(Err(error));
                }
            };
            let later = 1.0 + fastrand::f64() * JITTER;
            self.again = Instant::now().checked_add(answer.again.mul_f64(later));
            if self.last.as_ref() != Some(&answer.list.instances) {
                self.last = Some(answer.list.instances.clone());
                return Some(Ok(answer.list));
            }
        }
    }
}
