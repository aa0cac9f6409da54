//! Looking at what topics keep and what of queues is not done, and removing of it.
//!
//! A log forgets no single message. One that is removed from a queue is done for the queue's group: it lies below the
//! group's position, or is noted beside it. Where members of the group are in this process they are told, and commit that;
//! where the group has no members at all, it is committed on its behalf. Members elsewhere cannot be told: the servers refuse
//! a commit that is not theirs, and so is the removal.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;
use tokio::time::Instant;
use trunkline_core::{Clock as _, Error, ErrorKind, Result, Retry, SystemClock, Timestamp};
use trunkline_messaging::{
    Browse, BrowsePage, DeliveryInfo, Destination, QueueInfo, Source, StoredMessage, Subscribe,
    TopicName,
};

use crate::error::{closed, no_queue, of_question};
use crate::hub::lag::lag;
use crate::hub::ledger::Place;
use crate::hub::positions::committed;
use crate::hub::{Hub, list};
use crate::link::{Link, Reports, of_client, retire};
use crate::names::{Names, is_delayed, place_of, position};
use crate::note::{self, Note, Ranges};

/// One question may take so long, whatever the deadline.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the driver is waited for at a time.
const TICK: Duration = Duration::from_millis(50);
/// A removal that another one has overwritten is made again so many times.
const ROUNDS: usize = 5;
/// So many messages of a queue are counted one by one where there are transactions, whose marks count as well else.
const COUNTED: u64 = 1000;

/// Reads beside the groups, and never joins one.
type Reader = BaseConsumer<Reports>;

/// What looks.
pub(crate) struct Browser {
    link: Arc<Link>,
    names: Names,
    /// One at a time, kept for the next question about the same group.
    reader: tokio::sync::Mutex<Option<(String, Reader)>>,
}

impl std::fmt::Debug for Browser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Browser").finish_non_exhaustive()
    }
}

/// What is done of a partition of a queue, and where it ends.
struct Partition {
    place: Place,
    /// The first that is not done, as far as it is kept.
    position: i64,
    note: Note,
    /// Behind the last message.
    end: i64,
}

impl Partition {
    /// How many are not done.
    fn messages(&self) -> u64 {
        let done = self.note.done.count_below(self.end);
        u64::try_from(self.end - self.position - done).unwrap_or_default()
    }

    fn is_there(&self, offset: i64) -> bool {
        (self.position..self.end).contains(&offset) && !self.note.done.contains(offset)
    }
}

impl Browser {
    pub(crate) fn new(link: Arc<Link>, names: Names) -> Self {
        Self {
            link,
            names,
            reader: tokio::sync::Mutex::default(),
        }
    }

    /// What the group of a subscription has not done, asked by a reader.
    pub(crate) async fn lag(
        &self,
        subscribe: &Subscribe,
        deadline: Instant,
    ) -> Result<Option<u64>> {
        let group = match (&subscribe.source, &subscribe.group) {
            (source @ Source::Topics(_), Some(group)) => self.names.group(group, source),
            (source @ Source::Queue(_), _) => self.names.group("", source),
            (Source::Topics(_), None) => return Ok(None),
        };
        let (names, subscribe) = (self.names.clone(), subscribe.clone());
        self.ask(group, deadline, move |reader| {
            lag(reader, &names, &subscribe)
        })
        .await
    }

    /// Asks by a reader of a group, on a thread that may block, until there is an answer or no time left.
    async fn ask<T: Send + 'static>(
        &self,
        group: String,
        deadline: Instant,
        mut question: impl FnMut(&Reader) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.link.ready(deadline).await?;
        let late = || Error::timeout("looking at messages took too long").with_retry(Retry::Safe);
        let turn = tokio::time::timeout_at(deadline, self.reader.lock()).await;
        let mut kept = turn.map_err(|_| late())?;
        let known = kept.take();
        let (config, reports) = (self.link.config().reader(&group), self.link.reports());
        let link = Arc::clone(&self.link);
        let asked = tokio::task::spawn_blocking(move || {
            // One of another group may need a while to end, which it does here.
            let known = known.filter(|(of, _)| *of == group);
            let reader = match known {
                Some((_, reader)) => reader,
                None => Reader::from_config_and_context(&config, reports)
                    .map_err(|error| of_client(&error))?,
            };
            loop {
                match question(&reader) {
                    Ok(answer) => return Ok::<_, Error>((answer, group, reader)),
                    // After a restart the servers need a while to agree on who answers for a group.
                    Err(error)
                        if error.retry() == Retry::Safe
                            && !link.is_closed()
                            && Instant::now() + PAUSE < deadline =>
                    {
                        tracing::debug!(target: "trunkline", broker = "kafka", %error, "looking at messages failed");
                        link.doubt();
                        // What the driver has to report is read meanwhile.
                        drop(reader.poll(PAUSE));
                    }
                    Err(error) => return Err(error),
                }
            }
        });
        let (answer, group, reader) = match asked.await {
            Ok(answered) => answered.inspect_err(|_| self.link.doubt())?,
            Err(join) => {
                return Err(Error::internal("asking Kafka panicked").with_source(join));
            }
        };
        if self.link.is_closed() {
            drop(kept);
            retire(reader).await;
            return Err(closed());
        }
        *kept = Some((group, reader));
        Ok(answer)
    }

    /// The group whose position says what of a destination is done.
    fn group(&self, destination: &Destination) -> String {
        match destination {
            Destination::Queue(queue) => self.names.group("", &Source::Queue(queue.clone())),
            // Nobody's: what a topic keeps is asked for.
            Destination::Topic(_) => "trunkline.browse".to_owned(),
        }
    }

    pub(crate) async fn page(&self, browse: Browse, deadline: Instant) -> Result<BrowsePage> {
        let topic = self.names.topic(&browse.destination)?;
        let group = self.group(&browse.destination);
        self.ask(group, deadline, move |reader| {
            let is_queue = matches!(browse.destination, Destination::Queue(_));
            let partitions = match (partitions(reader, &topic, is_queue)?, &browse.destination) {
                (Some(partitions), _) => partitions,
                (None, Destination::Queue(queue)) => return Err(no_queue(queue)),
                (None, Destination::Topic(_)) => Vec::new(),
            };
            page(reader, &browse, &partitions, deadline)
        })
        .await
    }

    /// Every queue, with how many messages are not done at most.
    pub(crate) async fn queues(&self, deadline: Instant) -> Result<Vec<QueueInfo>> {
        let names = self.names.clone();
        let none = self.group(&Destination::Topic(TopicName::new("all")?));
        let listed = self.ask(none, deadline, move |reader| {
            let all = reader.fetch_metadata(None, ANSWER_WITHIN);
            let all = all.map_err(|error| of_question("asking for the queues", &error))?;
            let topics = all.topics().iter().filter(|topic| topic.error().is_none());
            let found = topics.filter_map(|topic| match names.destination(topic.name()) {
                Some(Destination::Queue(queue)) if !is_delayed(&queue) => Some(queue),
                _ => None,
            });
            let mut found: Vec<TopicName> = found.collect();
            found.sort_unstable();
            Ok(found)
        });
        let mut queues = Vec::new();
        for name in listed.await? {
            let queue = Destination::Queue(name.clone());
            let (topic, group) = (self.names.topic(&queue)?, self.group(&queue));
            let counted = self.link.config().transactions;
            let asked = self.ask(group, deadline, move |reader| {
                let Some(partitions) = partitions(reader, &topic, true)? else {
                    return Ok(None);
                };
                let most: u64 = partitions.iter().map(Partition::messages).sum();
                if !counted || !(1..=COUNTED).contains(&most) {
                    return Ok(Some(most));
                }
                // Each transaction leaves a mark in each partition, which is no message.
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                let browse = Browse::new(queue.clone()).with_limit(most);
                let page = page(reader, &browse, &partitions, deadline)?;
                Ok(Some(page.messages.len() as u64))
            });
            // It may have been deleted meanwhile.
            if let Some(messages) = asked.await? {
                queues.push(QueueInfo::new(name, messages));
            }
        }
        Ok(queues)
    }

    /// Removes messages of a queue, in whose group this process may have members, and says how many were there.
    pub(crate) async fn remove(
        &self,
        queue: &TopicName,
        positions: &[u64],
        hub: Option<Arc<Hub>>,
        deadline: Instant,
    ) -> Result<u64> {
        let destination = Destination::Queue(queue.clone());
        let (topic, group) = (self.names.topic(&destination)?, self.group(&destination));
        let mut wanted: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for (partition, offset) in positions.iter().map(|position| place_of(*position)) {
            wanted.entry(partition).or_default().push(offset);
        }
        let name = topic.clone();
        let known = self.ask(group.clone(), deadline, move |reader| {
            partitions(reader, &name, true)
        });
        let known = known.await?.ok_or_else(|| no_queue(queue))?;
        let mut removed = 0;
        let mut rest: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for partition in known {
            let Some(offsets) = wanted.remove(&partition.place.1) else {
                continue;
            };
            let own = match &hub {
                Some(hub) => hub.remove(&partition.place, &offsets, partition.end).await,
                None => None,
            };
            match own {
                Some(outcome) => removed += outcome?,
                None => {
                    rest.insert(partition.place.1, offsets);
                }
            }
        }
        if rest.is_empty() {
            return Ok(removed);
        }
        let name = queue.clone();
        let mut count = None;
        let others = self.ask(group, deadline, move |reader| {
            remove(reader, &name, &topic, &rest, &mut count)
        });
        Ok(removed + others.await?)
    }

    pub(crate) async fn close(&self) {
        if let Some(reader) = self.reader.lock().await.take() {
            retire(reader).await;
        }
    }
}

fn asking(error: &KafkaError) -> Error {
    of_question("looking at messages", error)
}

/// The partitions of a topic, and what of them is done, if that matters. `None` when there is no such topic.
fn partitions(reader: &Reader, topic: &str, is_queue: bool) -> Result<Option<Vec<Partition>>> {
    let metadata = reader.fetch_metadata(Some(topic), ANSWER_WITHIN);
    let metadata = metadata.map_err(|error| asking(&error))?;
    let found = metadata.topics().iter().find(|one| one.name() == topic);
    let Some(found) = found else {
        return Ok(None);
    };
    match found.error().map(Code::from) {
        None => {}
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(None),
        Some(other) => return Err(asking(&KafkaError::MetadataFetch(other))),
    }
    let name: Arc<str> = Arc::from(topic);
    let mut places: Vec<Place> = found
        .partitions()
        .iter()
        .map(|partition| (Arc::clone(&name), partition.id()))
        .collect();
    places.sort_unstable();
    let known = if is_queue {
        committed(reader, &places).map_err(|error| asking(&error))?
    } else {
        HashMap::new()
    };
    let mut all = Vec::with_capacity(places.len());
    for place in places {
        let marks = reader.fetch_watermarks(&place.0, place.1, ANSWER_WITHIN);
        let (low, end) = marks.map_err(|error| asking(&error))?;
        let (stands, mut note) = known.get(&place).cloned().unwrap_or_default();
        let position = note.done.behind(stands.max(low));
        note.done.forget_below(position);
        all.push(Partition {
            place,
            position,
            note,
            end,
        });
    }
    Ok(Some(all))
}

/// Messages partition by partition, each from its oldest on.
fn page(
    reader: &Reader,
    browse: &Browse,
    partitions: &[Partition],
    deadline: Instant,
) -> Result<BrowsePage> {
    // One more says whether there are more.
    let most = browse.limit.saturating_add(1);
    let (from, behind) = place_of(browse.after);
    let mut found = Vec::new();
    for partition in partitions {
        let start = match partition.place.1.cmp(&from) {
            std::cmp::Ordering::Less => continue,
            std::cmp::Ordering::Equal => partition.position.max(behind.saturating_add(1)),
            std::cmp::Ordering::Greater => partition.position,
        };
        if found.len() < most && start < partition.end {
            read(
                reader,
                &browse.destination,
                partition,
                start,
                deadline,
                (most, &mut found),
            )?;
        }
    }
    let mut page = BrowsePage::default();
    if found.len() == most {
        found.truncate(browse.limit);
        page.next = found.last().and_then(|stored| stored.info.position);
    }
    page.messages = found;
    Ok(page)
}

/// Reads what is not done of a partition, until there are so many messages.
fn read(
    reader: &Reader,
    destination: &Destination,
    partition: &Partition,
    start: i64,
    deadline: Instant,
    (most, found): (usize, &mut Vec<StoredMessage>),
) -> Result<()> {
    let (topic, number) = &partition.place;
    let mut own = TopicPartitionList::new();
    own.add_partition_offset(topic, *number, Offset::Offset(start))
        .and_then(|()| reader.assign(&own))
        .map_err(|error| asking(&error))?;
    let mut take = || loop {
        if Instant::now() >= deadline {
            return Err(Error::timeout("looking at messages took too long").with_retry(Retry::Safe));
        }
        let record = match reader.poll(TICK) {
            None => continue,
            // Behind the last message there may be marks of transactions, which nobody gets.
            Some(Err(KafkaError::PartitionEOF(of))) if of == *number => return Ok(()),
            Some(Err(error)) => {
                let error = asking(&error);
                // The driver gets over what passes.
                match error.kind() {
                    ErrorKind::Unavailable | ErrorKind::Timeout => continue,
                    _ => return Err(error),
                }
            }
            Some(Ok(record)) => record,
        };
        let offset = record.offset();
        if record.topic() != &**topic || record.partition() != *number || offset < start {
            continue;
        }
        let now = SystemClock.now().unix_millis();
        let (arrived, time) = crate::wire::read(&record, now);
        let expired = arrived.expires.is_some_and(|expires| now >= expires);
        let position = position(*number, offset);
        if offset < partition.end
            && partition.is_there(offset)
            && !expired
            && let Some(position) = position
        {
            let info = DeliveryInfo::new(destination.clone()).at(position);
            let at = Timestamp::from_unix_millis(time);
            found.push(StoredMessage::new(arrived.message, info, at));
        }
        if found.len() >= most || offset + 1 >= partition.end {
            return Ok(());
        }
    };
    let taken = take();
    reader.unassign().map_err(|error| asking(&error))?;
    taken
}

/// Removes messages of partitions whose group has no members. What the first look has found counts; later ones see that
/// nothing of it has come back.
fn remove(
    reader: &Reader,
    queue: &TopicName,
    topic: &str,
    wanted: &BTreeMap<i32, Vec<i64>>,
    count: &mut Option<u64>,
) -> Result<u64> {
    for _ in 0..ROUNDS {
        let all = partitions(reader, topic, true)?.ok_or_else(|| no_queue(queue))?;
        let (mut there, mut changed) = (0, Vec::new());
        for mut partition in all {
            let Some(offsets) = wanted.get(&partition.place.1) else {
                continue;
            };
            let mut own = Ranges::default();
            for offset in offsets.iter().filter(|at| partition.is_there(**at)) {
                own.insert(*offset, offset + 1);
            }
            let number = own.count_below(i64::MAX);
            if number == 0 {
                continue;
            }
            there += u64::try_from(number).unwrap_or_default();
            for offset in offsets {
                if own.contains(*offset) {
                    partition.note.done.insert(*offset, offset + 1);
                }
            }
            let stands = partition.note.done.behind(partition.position);
            let (text, all) = partition.note.write(stands, note::LONGEST);
            if !all {
                return Err(note::full());
            }
            changed.push((partition.place, stands, text));
        }
        let first = *count.get_or_insert(there);
        if there == 0 {
            return Ok(first);
        }
        let positions = changed.iter();
        let positions = list(positions.map(|(place, stands, text)| (place, *stands, text.clone())));
        let told = reader.commit(&positions, CommitMode::Sync);
        told.map_err(|error| refused(queue, &error))?;
    }
    let text = format!("others remove messages of the queue `{queue}` at the same time");
    Err(Error::conflict(text).with_retry(Retry::IfIdempotent))
}

/// The servers do not take it that something is done.
fn refused(queue: &TopicName, error: &KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress) => {
            Error::conflict(format!(
                "the queue `{queue}` is consumed by another process, which alone can remove messages from it: stop it, or remove \
                 them there"
            ))
            .with_retry(Retry::Never)
            .with_source(error.clone())
        }
        _ => of_question("removing messages", error),
    }
}
