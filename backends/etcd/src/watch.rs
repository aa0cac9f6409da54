//! Lists as they change: the whole list, then the changes from its revision on, and the whole list again whenever something
//! may have been missed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};
use trunkline_core::{Error, Result};
use trunkline_discovery::{InstanceList, InstanceWatch, ServiceName};

use crate::client::Opened;
use crate::error::from_fault;
use crate::keys::{encoded, end_of};
use crate::message::WatchResult;
use crate::registry::Shared;
use crate::resolver::Known;

/// First and longest wait after failures.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Changes that follow each other sooner than this are one list: each list is all of the service.
const GATHERED: Duration = Duration::from_millis(20);
/// So that not all watches of a member that failed open anew at the same moment.
const SPREAD: Duration = Duration::from_millis(300);

struct Watch {
    shared: Arc<Shared>,
    service: ServiceName,
    /// Nothing: the list must be asked for.
    known: Option<Known>,
    opened: Option<Opened>,
    /// Held from one watch to the next.
    leave: Option<OwnedSemaphorePermit>,
    /// Something may have changed since the last list was told.
    changed: bool,
    /// The next list is not told earlier.
    not_before: Instant,
    /// What was told last; nothing after an error, so that the next list is told whatever it is.
    last: Option<InstanceList>,
    failures: u32,
}

pub(crate) fn watch(shared: &Arc<Shared>, service: &ServiceName) -> InstanceWatch {
    let watch = Watch {
        shared: Arc::clone(shared),
        service: service.clone(),
        known: None,
        opened: None,
        leave: None,
        changed: false,
        not_before: Instant::now(),
        last: None,
        failures: 0,
    };
    InstanceWatch::new(stream::unfold(watch, async |mut watch| {
        let closed = watch.shared.client.closed().clone();
        let next = tokio::select! {
            biased;
            () = closed.cancelled() => return None,
            next = watch.next() => next,
        };
        Some((next, watch))
    }))
}

impl Watch {
    /// The next list that differs, or why there is none for the moment.
    async fn next(&mut self) -> Result<InstanceList> {
        if self.failures > 0 {
            let longest =
                (FIRST_PAUSE * 2_u32.saturating_pow(self.failures - 1)).min(LONGEST_PAUSE);
            sleep(longest.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(error) => {
                    self.failures = (self.failures + 1).min(16);
                    // Another member, or another history, may answer next.
                    (self.known, self.opened, self.last) = (None, None, None);
                    self.leave = None;
                    return Err(error.with_operation("watch"));
                }
            }
            if self.changed && self.not_before <= Instant::now() {
                self.changed = false;
                if let Some(list) = self.news() {
                    self.not_before = Instant::now() + GATHERED;
                    return Ok(list);
                }
            }
        }
    }

    /// What is known now, if it differs from what was told.
    fn news(&mut self) -> Option<InstanceList> {
        let list = self.known.as_ref()?.list();
        let same = self.last.as_ref().is_some_and(|last| {
            // Who compares revisions must hear of those that begin anew.
            last.instances == list.instances && last.revision <= list.revision
        });
        if same {
            return None;
        }
        self.last = Some(list.clone());
        Some(list)
    }

    /// Does the next thing that is to be done: list, open, or read.
    async fn step(&mut self) -> Result<()> {
        let Some(known) = &mut self.known else {
            self.known = Some(self.shared.list(&self.service).await?);
            self.changed = true;
            return Ok(());
        };
        let Some(opened) = &mut self.opened else {
            if self.leave.is_none() {
                self.leave = Some(self.shared.client.leave_to_watch()?);
            }
            self.opened = Some(open(&self.shared, &self.service, known.revision + 1).await?);
            return Ok(());
        };
        let message = tokio::select! {
            message = opened.lines.next() => message?,
            () = sleep_until(self.not_before), if self.changed => return Ok(()),
            // Silent for long: nothing happened, or nobody is there any more. Asking again where it was tells.
            () = sleep(self.shared.wait) => {
                self.opened = None;
                return Ok(());
            }
            // Its member has failed others: what it does not say may have happened all the same.
            () = self.shared.client.moved_from(opened.member) => {
                self.opened = None;
                sleep(SPREAD.mul_f64(fastrand::f64())).await;
                return Ok(());
            }
        };
        let Some(message) = message else {
            return Err(Error::unavailable("etcd has ended the watch"));
        };
        if let Some(fault) = &message.error {
            return Err(from_fault(fault));
        }
        self.failures = 0;
        self.changed |= !message.result.events.is_empty();
        match take(known, &self.service, &message.result)? {
            Next::GoOn => {}
            Next::ListAgain => (self.known, self.opened) = (None, None),
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    ListAgain,
}

/// What a message of a watch changes.
fn take(known: &mut Known, service: &ServiceName, message: &WatchResult) -> Result<Next> {
    let revision = message.header.revision;
    if message.created && revision < known.revision {
        // A history that has not come so far: another one, or a member that lags. A list is linearizable and tells which.
        return Ok(Next::ListAgain);
    }
    if message.canceled {
        if message.compact_revision > 0 {
            // What happened in between is no longer known to anybody.
            return Ok(Next::ListAgain);
        }
        return Err(Error::unavailable(format!(
            "etcd has cancelled the watch: {}",
            message.cancel_reason
        )));
    }
    for event in &message.events {
        if event.is_delete() {
            known.instances.remove(&event.kv.key);
        } else {
            known.put(service, &event.kv)?;
        }
    }
    if !message.events.is_empty() {
        known.revision = known.revision.max(revision);
    }
    Ok(Next::GoOn)
}

async fn open(shared: &Shared, service: &ServiceName, revision: u64) -> Result<Opened> {
    let prefix = shared.keys.service(service);
    let asked = json!({ "create_request": {
        "key": encoded(&prefix),
        "range_end": encoded(end_of(&prefix)),
        "start_revision": revision.to_string(),
    } });
    shared.client.watch(&asked).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(value: serde_json::Value) -> WatchResult {
        serde_json::from_value(value).unwrap()
    }

    fn known() -> (ServiceName, Known) {
        let service = ServiceName::new("users").unwrap();
        let known = Known {
            revision: 10,
            ..Known::default()
        };
        (service, known)
    }

    #[test]
    fn a_history_that_is_behind_is_listed_anew() {
        let (service, mut known) = known();
        let same = message(json!({ "header": { "revision": "10" }, "created": true }));
        assert_eq!(take(&mut known, &service, &same).unwrap(), Next::GoOn);
        let behind = message(json!({ "header": { "revision": "3" }, "created": true }));
        assert_eq!(
            take(&mut known, &service, &behind).unwrap(),
            Next::ListAgain
        );
    }

    #[test]
    fn a_compaction_is_listed_anew_and_any_other_end_is_an_error() {
        let (service, mut known) = known();
        let compacted = message(json!({ "canceled": true, "compact_revision": "20" }));
        assert_eq!(
            take(&mut known, &service, &compacted).unwrap(),
            Next::ListAgain
        );
        let ended = message(json!({ "canceled": true, "cancel_reason": "permission denied" }));
        let error = take(&mut known, &service, &ended).unwrap_err();
        assert!(error.message().contains("permission denied"), "{error}");
    }

    #[test]
    fn events_change_what_is_known() {
        let (service, mut known) = known();
        let instance = trunkline_discovery::ServiceInstance::new(service.clone(), "h", 1);
        let value = encoded(serde_json::to_string(&instance).unwrap());
        let put = message(
            json!({ "header": { "revision": "11" }, "events": [{ "kv": { "key": "aw==", "value": value } }] }),
        );
        take(&mut known, &service, &put).unwrap();
        assert_eq!(
            (known.list().instances, known.revision),
            (vec![instance], 11)
        );
        let gone = message(
            json!({ "header": { "revision": "12" }, "events": [{ "type": "DELETE", "kv": { "key": "aw==" } }] }),
        );
        take(&mut known, &service, &gone).unwrap();
        assert!(known.list().instances.is_empty());
    }
}
