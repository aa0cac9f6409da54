//! How much waits.

use tokio::time::Instant;

use super::State;
use crate::subscription::Subscribe;
use crate::topic::Source;

impl State {
    /// What waits for a group or in a queue and is in nobody's hands; `None` where there is no such place.
    pub(in crate::memory) fn lag(&self, subscribe: &Subscribe, now: Instant) -> Option<u64> {
        let key = match (&subscribe.source, &subscribe.group) {
            (Source::Queue(queue), _) => self.queues.get(queue),
            (Source::Topics(pattern), Some(group)) => {
                self.groups.get(&(group.clone(), pattern.clone()))
            }
            (Source::Topics(_), None) => None,
        };
        let waiting = self.mailboxes.get(*key?)?.waiting(now);
        let alive = waiting.filter(|message| !self.store.is_expired(*message, now));
        Some(alive.count() as u64)
    }
}
