//! Looking at what waits in a queue, which AMQP has no word for.
//!
//! Messages are fetched from the front of the queue on a channel of its own and given back together, which puts them where
//! they were. While that goes on no consumer gets them, and each look counts as a delivery with the server. What is in the
//! hands of a consumer is not seen.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapin::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use trunkline_core::{Clock as _, Error, ErrorKind, Result, SystemClock};
use trunkline_messaging::{
    BrowsePage, DeliveryInfo, Destination, Message, StoredMessage, TopicName,
};

use crate::error::from_driver;
use crate::topology::look_at;
use crate::wire;

/// How far into a queue a look goes: the server and the network carry all of it.
const DEPTH: usize = 10_000;
/// Positions that are remembered for one queue.
const REMEMBERED: usize = 4 * DEPTH;
/// Of the bits of a position, those that count; above them stands when counting began, in milliseconds.
const COUNT_BITS: u32 = 20;
const SUCCESS: u16 = 200;

/// Positions of messages. The server has none, so a message gets one when it is first seen, and is known again by what it
/// carries. Two that carry the same cannot be told apart, nor need they be.
#[derive(Debug, Default)]
pub(crate) struct Positions(Mutex<HashMap<TopicName, Known>>);

#[derive(Debug)]
struct Known {
    next: u64,
    /// By what a message carries: as many positions, ascending, as there were such messages at once.
    places: HashMap<u64, Vec<u64>>,
    count: usize,
}

impl Known {
    fn new() -> Self {
        // No position of this broker is one of an earlier one.
        let millis = u64::try_from(SystemClock.now().unix_millis()).unwrap_or(0);
        Self {
            next: (millis << COUNT_BITS) + 1,
            places: HashMap::new(),
            count: 0,
        }
    }

    /// The position of a message of which so many like it were before it.
    fn position(&mut self, mark: u64, before: usize) -> u64 {
        let places = self.places.entry(mark).or_default();
        if let Some(place) = places.get(before) {
            return *place;
        }
        let place = self.next;
        places.push(place);
        self.next += 1;
        self.count += 1;
        place
    }

    fn forget(&mut self, mark: u64, position: u64) {
        if let Some(places) = self.places.get_mut(&mark) {
            let known = places.len();
            places.retain(|place| *place != position);
            self.count -= known - places.len();
            if places.is_empty() {
                self.places.remove(&mark);
            }
        }
    }

    /// Forgets the older half when there are too many: most of those are in the queue no more.
    fn prune(&mut self) {
        if self.count <= REMEMBERED {
            return;
        }
        let mut all: Vec<u64> = self.places.values().flatten().copied().collect();
        let middle = all.len() / 2;
        let oldest = *all.select_nth_unstable(middle).1;
        for places in self.places.values_mut() {
            places.retain(|place| *place >= oldest);
        }
        self.places.retain(|_, places| !places.is_empty());
        self.count = self.places.values().map(Vec::len).sum();
    }
}

impl Positions {
    fn of<T>(&self, queue: &TopicName, work: impl FnOnce(&mut Known) -> T) -> T {
        let mut all: MutexGuard<'_, _> = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(queue.clone()).or_insert_with(Known::new);
        known.prune();
        work(known)
    }
}

/// One message at the front of a queue, in our hands for a moment.
struct Fetched {
    tag: u64,
    mark: u64,
    position: u64,
    /// How many waited behind it.
    behind: u64,
    message: Message,
    is_expired: bool,
}

/// A walk from the front of a queue on. What it has fetched is given back by [`end`](Self::end), or by the server when the
/// channel is closed.
struct Walk<'a> {
    channel: &'a Channel,
    queue: &'a TopicName,
    positions: &'a Positions,
    seen: HashMap<u64, usize>,
    fetched: usize,
    /// The last one that is to be given back.
    last: Option<u64>,
}

impl<'a> Walk<'a> {
    async fn begin(
        channel: &'a Channel,
        queue: &'a TopicName,
        positions: &'a Positions,
    ) -> Result<Self> {
        look_at(channel, queue.as_str()).await?;
        Ok(Self {
            channel,
            queue,
            positions,
            seen: HashMap::new(),
            fetched: 0,
            last: None,
        })
    }

    async fn next(&mut self) -> Result<Option<Fetched>> {
        if self.fetched == DEPTH {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "{}: a look goes {DEPTH} messages deep, and there are more; remove or replay those in front",
                    self.queue
                ),
            ));
        }
        let name = wire::short("the queue's name", self.queue.as_str())?;
        let got = self
            .channel
            .basic_get(name, BasicGetOptions::default())
            .await;
        let got = got.map_err(|error| from_driver("fetch a message", error))?;
        let Some(BasicGetMessage {
            delivery,
            message_count,
        }) = got
        else {
            return Ok(None);
        };
        self.fetched += 1;
        let expires = wire::number(&delivery.properties, wire::EXPIRES_AT);
        let came = wire::Came {
            exchange: delivery.exchange.as_str(),
            key: delivery.routing_key.as_str(),
            recognise_equal: false,
        };
        let message = wire::message(&delivery.properties, delivery.data, came);
        let mark = mark(&message);
        let before = self.seen.entry(mark).or_default();
        let position = self
            .positions
            .of(self.queue, |known| known.position(mark, *before));
        *before += 1;
        self.last = Some(delivery.delivery_tag);
        Ok(Some(Fetched {
            tag: delivery.delivery_tag,
            mark,
            position,
            behind: u64::from(message_count),
            message,
            is_expired: expires.is_some_and(|at| SystemClock.now().unix_millis() >= at),
        }))
    }

    /// Gives everything back and waits until the server has it.
    async fn end(self) -> Result<()> {
        if let Some(tag) = self.last {
            let options = BasicNackOptions {
                multiple: true,
                requeue: true,
            };
            let given = self.channel.basic_nack(tag, options).await;
            given.map_err(|error| from_driver("give messages back", error))?;
        }
        let closed = self.channel.close(SUCCESS, "looked".into()).await;
        closed.map_err(|error| from_driver("close a channel", error))
    }
}

/// What a message carries, as a number.
fn mark(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.id.hash(&mut hasher);
    message.key.hash(&mut hasher);
    message.payload.hash(&mut hasher);
    message.content_type.hash(&mut hasher);
    let at = message.published_at.map(|at| at.unix_micros());
    at.hash(&mut hasher);
    for (name, value) in message.headers.iter() {
        name.hash(&mut hasher);
        value.as_bytes().hash(&mut hasher);
    }
    hasher.finish()
}

/// Looks at what waits in a queue, on a channel that nobody else uses and that is closed afterwards.
pub(crate) async fn page(
    channel: &Channel,
    queue: &TopicName,
    positions: &Positions,
    after: u64,
    limit: usize,
) -> Result<BrowsePage> {
    let mut walk = Walk::begin(channel, queue, positions).await?;
    let mut page = BrowsePage::default();
    let mut last = after;
    while let Some(fetched) = walk.next().await? {
        if page.total.is_none() {
            page.total = Some(1 + fetched.behind);
        }
        if fetched.position <= after || fetched.is_expired {
            continue;
        }
        if page.messages.len() == limit {
            page.next = Some(last);
            break;
        }
        last = last.max(fetched.position);
        let info = DeliveryInfo::new(Destination::Queue(queue.clone())).at(fetched.position);
        let stored_at = fetched.message.published_at;
        let stored_at = stored_at.unwrap_or_else(|| SystemClock.now());
        page.messages
            .push(StoredMessage::new(fetched.message, info, stored_at));
    }
    walk.end().await?;
    page.total.get_or_insert(0);
    page.messages
        .sort_by_key(|stored| stored.info.position.unwrap_or_default());
    Ok(page)
}

/// Removes what waits at these positions and says how many there were.
pub(crate) async fn remove(
    channel: &Channel,
    queue: &TopicName,
    positions: &Positions,
    mut wanted: Vec<u64>,
) -> Result<u64> {
    let mut walk = Walk::begin(channel, queue, positions).await?;
    let (mut removed, mut kept) = (0, None);
    while !wanted.is_empty() {
        let Some(fetched) = walk.next().await? else {
            break;
        };
        let Some(at) = wanted.iter().position(|one| *one == fetched.position) else {
            kept = Some(fetched.tag);
            continue;
        };
        wanted.swap_remove(at);
        let done = channel.basic_ack(fetched.tag, BasicAckOptions::default());
        done.await
            .map_err(|error| from_driver("remove a message", error))?;
        positions.of(queue, |known| known.forget(fetched.mark, fetched.position));
        // Those like it that come behind it keep their own positions.
        if let Some(before) = walk.seen.get_mut(&fetched.mark) {
            *before -= 1;
        }
        removed += 1;
    }
    // The server refuses to take back what it has not given out.
    walk.last = kept;
    walk.end().await?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> TopicName {
        TopicName::new("work").unwrap()
    }

    #[test]
    fn a_message_keeps_its_position_and_equal_ones_have_their_own() {
        let positions = Positions::default();
        let at = |mark, before| positions.of(&queue(), |known| known.position(mark, before));
        let (first, other, second) = (at(1, 0), at(2, 0), at(1, 1));
        assert!(first < other && other < second);
        assert_eq!((at(1, 0), at(1, 1), at(2, 0)), (first, second, other));
        positions.of(&queue(), |known| known.forget(1, first));
        assert_eq!(at(1, 0), second, "the one that is left is where it was");
        assert!(at(1, 1) > second, "a new one is behind all others");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_young_ones_stay() {
        let positions = Positions::default();
        let all: Vec<u64> = (0..=REMEMBERED as u64)
            .map(|mark| positions.of(&queue(), |known| known.position(mark, 0)))
            .collect();
        let count = positions.of(&queue(), |known| known.count);
        assert!(count <= REMEMBERED / 2 + 1, "{count}");
        let youngest = REMEMBERED as u64;
        let again = positions.of(&queue(), |known| known.position(youngest, 0));
        assert_eq!(Some(&again), all.last());
    }

    #[test]
    fn messages_are_told_apart_by_what_they_carry() {
        let message = || Message::new("x").with_id("1").with_header("a", "b");
        assert_eq!(mark(&message()), mark(&message()));
        for other in [
            message().with_id("2"),
            message().with_header("a", "c"),
            message().with_key("k"),
        ] {
            assert_ne!(mark(&message()), mark(&other));
        }
    }
}
