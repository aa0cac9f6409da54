//! Looking at what is stored, and removing it.

use redis::Value;
use trunkline_core::{Clock, Error, Result, SystemClock, Timestamp};
use trunkline_messaging::{
    Browse, BrowsePage, DeliveryInfo, Destination, QueueInfo, StoredMessage, TopicName,
};

use super::Core;
use super::place::{queue_key, topic_key};
use crate::script::Script;
use crate::wire::{self, Entry, entry_id, position};

/// Entries that are read in one step.
const AT_ONCE: usize = 500;

pub(super) async fn page(core: &Core, browse: Browse) -> Result<BrowsePage> {
    core.check_open()?;
    let prefix = core.settings.prefix();
    let stream = match &browse.destination {
        Destination::Topic(topic) => topic_key(prefix, topic),
        Destination::Queue(queue) => {
            let stream = queue_key(prefix, queue);
            let there = core.ask(redis::cmd("EXISTS").arg(&stream)).await?;
            if wire::number(&there)? == 0 {
                return Err(missing(queue));
            }
            stream
        }
    };
    let mut page = BrowsePage::default();
    page.total = u64::try_from(wire::number(
        &core.ask(redis::cmd("XLEN").arg(&stream)).await?,
    )?)
    .ok();
    let mut after = browse.after;
    loop {
        // One more than is shown tells whether there is more.
        let count = (browse.limit.saturating_add(1) - page.messages.len()).min(AT_ONCE);
        let range = redis::cmd("XRANGE")
            .arg(&stream)
            .arg(format!("({}", entry_id(after)))
            .arg("+")
            .arg("COUNT")
            .arg(count)
            .clone();
        let entries = wire::list(core.ask(&range).await?)?;
        let read = entries.len();
        let now = SystemClock.now();
        for entry in entries {
            let mut parts = wire::list(entry)?.into_iter();
            let mut part = || parts.next().unwrap_or(Value::Nil);
            let entry = Entry::read(part(), part())?;
            let Some(place) = position(&entry.id) else {
                continue;
            };
            if page.messages.len() == browse.limit {
                page.next = Some(after);
                return Ok(page);
            }
            after = place;
            if entry.expires.is_none_or(|expires| expires > now) {
                page.messages
                    .push(stored(entry, place, &browse.destination));
            }
        }
        if read < count {
            return Ok(page);
        }
    }
}

fn stored(entry: Entry, place: u64, destination: &Destination) -> StoredMessage {
    let millis = entry
        .id
        .split_once('-')
        .and_then(|(millis, _)| millis.parse().ok());
    let stored_at = Timestamp::from_unix_millis(millis.unwrap_or_default());
    let info = DeliveryInfo::new(destination.clone()).at(place);
    StoredMessage::new(entry.message, info, stored_at)
}

pub(super) async fn remove(core: &Core, queue: &TopicName, positions: &[u64]) -> Result<u64> {
    core.check_open()?;
    let mut removed = 0;
    for some in positions.chunks(AT_ONCE) {
        let answer = core
            .run(Script::Remove, |command| {
                command.arg(queue.as_str()).arg(some.len());
                for place in some {
                    command.arg(entry_id(*place));
                }
            })
            .await?;
        removed += u64::try_from(wire::number(&answer)?).map_err(|_| missing(queue))?;
    }
    Ok(removed)
}

fn missing(queue: &TopicName) -> Error {
    Error::not_found(format!("there is no queue {queue}"))
}

pub(super) async fn queues(core: &Core) -> Result<Vec<QueueInfo>> {
    core.check_open()?;
    let prefix = core.settings.prefix();
    let names = core
        .ask(redis::cmd("SMEMBERS").arg(format!("{prefix}queues")))
        .await?;
    let mut queues = Vec::new();
    for name in wire::list(names)? {
        let name = TopicName::new(wire::text(name)?)?;
        let length = core
            .ask(redis::cmd("XLEN").arg(queue_key(prefix, &name)))
            .await?;
        queues.push(QueueInfo::new(
            name,
            u64::try_from(wire::number(&length)?).unwrap_or_default(),
        ));
    }
    queues.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(queues)
}
