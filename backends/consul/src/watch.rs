//! Lists as they change: blocking queries, by Consul's rules for their index.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use trunkline_core::Result;
use trunkline_discovery::{InstanceList, InstanceWatch, ServiceName};

use crate::catalog::Seen;
use crate::pace::Pace;
use crate::registry::Shared;
use crate::turns::Watching;

/// The longest wait while other datacentres are looked at, whose changes end no blocking query here.
const LOOK_ELSEWHERE: Duration = Duration::from_secs(2);

struct Watch {
    shared: Arc<Shared>,
    service: ServiceName,
    turn: Watching,
    pace: Pace,
    index: Index,
    looked_elsewhere: bool,
    /// What was told last; nothing after an error, so that the next list is told whatever it is.
    last: Option<InstanceList>,
    /// The last question failed.
    failed: bool,
}

pub(crate) fn watch(shared: &Arc<Shared>, service: &ServiceName) -> InstanceWatch {
    let watch = Watch {
        shared: Arc::clone(shared),
        service: service.clone(),
        turn: shared.turns.watching(),
        pace: Pace::new(),
        index: Index::default(),
        looked_elsewhere: false,
        last: None,
        failed: false,
    };
    InstanceWatch::new(stream::unfold(watch, async |mut watch| {
        let closed = watch.shared.agent.closed().clone();
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
        loop {
            if self.failed {
                self.pace.after_failure().await;
            }
            match self.ask().await {
                Ok(seen) => {
                    self.failed = false;
                    self.pace.succeeded();
                    self.looked_elsewhere = seen.looked_elsewhere;
                    let went_back = self.index.advance(seen.index);
                    let same = self.last.as_ref().map(|last| &last.instances)
                        == Some(&seen.list.instances);
                    // Who compares revisions must hear of those that begin anew.
                    if !same || went_back {
                        self.last = Some(seen.list.clone());
                        return Ok(seen.list);
                    }
                }
                Err(error) => {
                    self.failed = true;
                    self.last = None;
                    // The server may be another one when it is back.
                    self.index = Index::default();
                    return Err(error.with_operation("watch"));
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<Seen> {
        let Shared { agent, asking, .. } = &*self.shared;
        self.pace.turn().await;
        let newer_than = self.index.newer_than();
        // What is answered at once keeps nobody waiting, and waits for nobody: a service that is new must not stand behind
        // those that are quiet.
        let (place, wait) = match newer_than {
            0 => (None, Duration::ZERO),
            _ => self.turn.place().await,
        };
        let wait = if self.looked_elsewhere {
            wait.min(LOOK_ELSEWHERE)
        } else {
            wait
        };
        let seen = asking.service(agent, &self.service, newer_than, wait).await;
        drop(place);
        seen
    }
}

/// Where a watch is in Consul's history.
#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    /// 0: the next question is answered at once.
    at: u64,
    highest: u64,
}

impl Index {
    fn newer_than(&self) -> u64 {
        self.at
    }

    /// Takes the index of an answer and says whether it went backwards: then the history is another one, and the next
    /// question must not wait for an index that may never come. An answer without one is as if it were 1, which every
    /// change is above.
    fn advance(&mut self, index: u64) -> bool {
        let index = index.max(1);
        let went_back = index < self.highest;
        self.at = if went_back { 0 } else { index };
        self.highest = index;
        went_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_moves_by_the_rules_of_consul() {
        let mut index = Index::default();
        assert_eq!(index.newer_than(), 0);
        assert!(!index.advance(7));
        assert_eq!(index.newer_than(), 7);
        assert!(!index.advance(7));
        assert_eq!(index.newer_than(), 7);
        // Backwards: from the beginning, and on from there.
        assert!(index.advance(3));
        assert_eq!(index.newer_than(), 0);
        assert!(!index.advance(3));
        assert_eq!(index.newer_than(), 3);
    }

    #[test]
    fn no_index_does_not_make_a_busy_loop() {
        let mut index = Index::default();
        assert!(!index.advance(0));
        assert_eq!(index.newer_than(), 1, "0 would not wait");
    }
}
