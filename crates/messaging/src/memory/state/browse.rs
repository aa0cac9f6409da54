//! Looking at messages and removing them.

use std::collections::HashSet;

use tokio::time::Instant;
use trunkline_core::Result;

use super::{State, Wake, missing_queue};
use crate::broker::{Browse, BrowsePage, QueueInfo, StoredMessage};
use crate::delivery::DeliveryInfo;
use crate::topic::{Destination, TopicName};

use super::store::Stored;

impl State {
    pub(in crate::memory) fn browse(&self, browse: &Browse, now: Instant) -> Result<BrowsePage> {
        let is_alive = |stored: &Stored| stored.expires.is_none_or(|at| at > now);
        let mut found: Vec<(&Stored, u32)> = match &browse.destination {
            Destination::Topic(topic) => self.store.log(topic).map(|stored| (stored, 0)).collect(),
            Destination::Queue(queue) => {
                let key = *self.queues.get(queue).ok_or_else(|| missing_queue(queue))?;
                let entries = self
                    .mailboxes
                    .get(key)
                    .into_iter()
                    .flat_map(|m| m.entries());
                entries
                    .filter_map(|(key, attempts)| Some((self.store.get(key)?, attempts)))
                    .collect()
            }
        };
        found.retain(|(stored, _)| is_alive(stored));
        let total = found.len() as u64;
        found.retain(|(stored, _)| stored.position > browse.after);
        found.sort_unstable_by_key(|(stored, _)| stored.position);
        let more = found.len() > browse.limit;
        found.truncate(browse.limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(stored, _)| stored.position);
        let messages = found
            .into_iter()
            .map(|(stored, attempts)| {
                let info = DeliveryInfo::new(stored.destination.clone())
                    .with_attempt(attempts)
                    .at(stored.position);
                StoredMessage::new(stored.message.as_ref().clone(), info, stored.stored_at)
            })
            .collect();
        Ok(BrowsePage {
            messages,
            next,
            total: Some(total),
        })
    }

    pub(in crate::memory) fn remove(
        &mut self,
        queue: &TopicName,
        positions: &[u64],
        wake: &mut Wake,
    ) -> Result<u64> {
        let key = *self.queues.get(queue).ok_or_else(|| missing_queue(queue))?;
        let positions: HashSet<u64> = positions.iter().copied().collect();
        let mut done = Vec::new();
        if let Some(mailbox) = self.mailboxes.get_mut(key) {
            mailbox.remove_where(&mut done, |entry| positions.contains(&entry.position));
            mailbox.remove_leased_where(&mut done, |entry| positions.contains(&entry.position));
            mailbox.wake(wake);
        }
        for message in &done {
            self.store.release(*message);
        }
        Ok(done.len() as u64)
    }

    pub(in crate::memory) fn queue_infos(&self, now: Instant) -> Vec<QueueInfo> {
        let count = |key| {
            let entries = self
                .mailboxes
                .get(key)
                .into_iter()
                .flat_map(|m| m.entries());
            entries
                .filter(|(message, _)| !self.store.is_expired(*message, now))
                .count() as u64
        };
        self.queues
            .iter()
            .map(|(name, key)| QueueInfo::new(name.clone(), count(*key)))
            .collect()
    }
}
