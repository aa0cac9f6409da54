//! One group in this process: one consumer of the driver, on a thread of its own, and the subscriptions that share it.
//!
//! The driver's consumer is polled by that thread alone; what blocks, blocks there. Subscriptions take from the books, and
//! settle in them.

mod commit;
pub(crate) mod forward;
pub(crate) mod lag;
pub(crate) mod ledger;
pub(crate) mod positions;
mod rebalance;
mod run;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, ConsumerGroupMetadata};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_core::{BoxFuture, Clock as _, Error, Result, Retry, SystemClock, Timestamp};
use trunkline_messaging::{
    Delivery, DeliveryInfo, Publish, Settle, Settlement, Source, Start, Subscribe,
    SubscriptionState,
};

use crate::catalog::Catalog;
use crate::error::{closed, lease_lost};
use crate::link::Link;
use crate::names::{self, Names};
use crate::note;
use crate::publish::Publisher;
use forward::{Fences, Forward, Then};
use ledger::{Done, Handed, Ledger, Place, Removed};
use rebalance::Events;

type Consumer = BaseConsumer<Events>;

/// How long a partition may keep others from handing out what may be younger.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the subscriptions of one group share.
pub(crate) struct Hub {
    link: Arc<Link>,
    names: Names,
    source: Source,
    /// Kafka's group; `None` for a subscriber of its own.
    group: Option<String>,
    /// The group as its members call it.
    label: Option<String>,
    start: Start,
    books: Mutex<Books>,
    /// Something was settled, for who waits on a thread.
    settled: Condvar,
    /// Something may be handed out.
    arrived: Notify,
    /// There is something to commit.
    done: Condvar,
    /// Held from reading positions until the servers have them: an older one must not come after a newer one.
    turn: Mutex<()>,
    /// What servers take beside a position, in bytes.
    longest_note: AtomicUsize,
    roll: Mutex<Roll>,
    /// Its consumer while there is one, for questions that are not the thread's own.
    asked: Mutex<Weak<Consumer>>,
    state: watch::Sender<SubscriptionState>,
    stop: AtomicBool,
    started: AtomicBool,
    /// What publishes, from the start on.
    publisher: OnceLock<Arc<Publisher>>,
    /// Under which name transactions are made.
    transactional_id: String,
    fences: Mutex<Fences>,
    /// Set under `turn` while it is not known what became of a transaction: nothing else is committed.
    in_doubt: AtomicBool,
    /// Why transactions cannot be made, or looked up.
    trouble: Mutex<Option<Error>>,
}

/// What is known of the topics, and of the membership in the group.
#[derive(Default)]
struct Roll {
    /// The topics were looked up.
    has_looked: bool,
    /// Those that were there at first.
    initial: HashSet<Arc<str>>,
    /// Every partition that is wanted.
    places: Vec<Place>,
    /// When that was, or where the group shall begin; milliseconds since 1970.
    since: i64,
    /// The group knows this member.
    is_member: bool,
    /// It did, or does not want it; the reason is in the state.
    was_expelled: bool,
    /// As which member of which generation of the group partitions were given to us.
    member: Option<Arc<ConsumerGroupMetadata>>,
}

/// What is guarded together.
#[derive(Default)]
struct Books {
    ledger: Ledger,
    /// Who waits until the servers know of so many changes of a partition.
    waiters: Vec<(Place, u64, oneshot::Sender<Result<()>>)>,
    /// What is to be done in the next transaction.
    forwards: Vec<Forward>,
    /// When the group began, milliseconds since 1970: for partitions that nobody has committed yet.
    since: Option<i64>,
    /// Nothing is handed out before, unless nothing older can come.
    patient_until: Option<Instant>,
    /// The thread has ended, or is about to: nobody may join.
    ended: bool,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("source", &self.source)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(link: Arc<Link>, names: Names, subscribe: &Subscribe) -> Arc<Self> {
        let group = match (&subscribe.group, &subscribe.source) {
            (Some(group), source) => Some(names.group(group, source)),
            (None, source @ Source::Queue(_)) => Some(names.group("", source)),
            (None, Source::Topics(_)) => None,
        };
        // A queue is worked off from its beginning.
        let start = match &subscribe.source {
            Source::Queue(_) => Start::Earliest,
            Source::Topics(_) => subscribe.start,
        };
        let reason = "not connected yet".to_owned();
        let transactional_id = forward::name(link.config(), group.as_deref());
        Arc::new(Self {
            link,
            names,
            source: subscribe.source.clone(),
            group,
            label: subscribe.group.clone(),
            start,
            books: Mutex::default(),
            settled: Condvar::new(),
            arrived: Notify::new(),
            done: Condvar::new(),
            turn: Mutex::default(),
            longest_note: AtomicUsize::new(note::LONGEST),
            roll: Mutex::default(),
            asked: Mutex::default(),
            state: watch::Sender::new(SubscriptionState::Detached { reason }),
            stop: AtomicBool::new(false),
            started: AtomicBool::new(false),
            publisher: OnceLock::new(),
            transactional_id,
            fences: Mutex::default(),
            in_doubt: AtomicBool::new(false),
            trouble: Mutex::default(),
        })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never taken while the books are held.
    fn roll(&self) -> MutexGuard<'_, Roll> {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> watch::Receiver<SubscriptionState> {
        self.state.subscribe()
    }

    fn set_state(&self, new: SubscriptionState) {
        self.state.send_if_modified(|state| {
            if *state == SubscriptionState::Closed || *state == new {
                return false;
            }
            *state = new;
            true
        });
    }

    fn detached(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.set_state(SubscriptionState::Detached { reason });
    }

    /// Begins the work, unless it has begun.
    pub(crate) fn start_once(
        self: &Arc<Self>,
        catalog: &Arc<Catalog>,
        publisher: &Arc<Publisher>,
        scope: &Scope,
    ) {
        self.publisher.get_or_init(|| Arc::clone(publisher));
        if !self.started.swap(true, Ordering::SeqCst) {
            run::start(Arc::clone(self), Arc::clone(catalog), scope);
        }
    }

    /// Nobody may join any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.books().ended
    }

    /// One more subscription; `None` when this has ended.
    pub(crate) fn join(&self, subscribe: &Subscribe) -> Option<u64> {
        let mut books = self.books();
        if books.ended || self.is_stopping() {
            return None;
        }
        Some(
            books
                .ledger
                .join(subscribe.prefetch.max(1), subscribe.lease),
        )
    }

    /// The next delivery of a member; `None` after the end. Cancel safe.
    pub(crate) async fn take(self: &Arc<Self>, member: u64) -> Option<Delivery> {
        let handed = self.take_handed(member).await?;
        Some(self.delivery(handed))
    }

    /// The next message of a member as the books have it; `None` after the end. Cancel safe. Whoever takes it settles it.
    pub(crate) async fn take_handed(&self, member: u64) -> Option<Handed> {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // Before looking, so that nothing that arrives meanwhile is missed.
            arrived.as_mut().enable();
            if self.is_stopping() {
                return None;
            }
            if let Some(handed) = self.next_of(member) {
                return Some(handed);
            }
            arrived.await;
        }
    }

    fn next_of(&self, member: u64) -> Option<Handed> {
        let mut books = self.books();
        if let Some(until) = books.patient_until {
            if books.ledger.is_behind() && Instant::now() < until {
                return None;
            }
            books.patient_until = None;
        }
        books
            .ledger
            .hand_out(member, SystemClock.now().unix_millis())
    }

    fn delivery(self: &Arc<Self>, handed: Handed) -> Delivery {
        let mut info = DeliveryInfo::new(handed.destination)
            .with_group(self.label.clone())
            .with_attempt(handed.attempt)
            .with_returns(handed.returned);
        if let Some(position) = names::position(handed.partition, handed.offset) {
            info = info.at(position);
        }
        let token = Token {
            hub: Arc::clone(self),
            number: handed.number,
        };
        Delivery::new(handed.message, info, token)
    }

    /// The subscription is gone; what it had handed out stays with its owner.
    pub(crate) fn leave(&self, member: u64) {
        self.books().ledger.leave(member);
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Ends it: nothing can be settled any more, the thread commits and leaves the group.
    pub(crate) fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.books().ended = true;
        self.state.send_replace(SubscriptionState::Closed);
        self.arrived.notify_waiters();
        self.settled.notify_all();
        self.done.notify_all();
    }

    fn gone(&self) -> Error {
        if self.is_stopping() || self.link.is_closed() {
            closed()
        } else {
            lease_lost()
        }
    }

    /// Changes the books on behalf of a holder.
    fn settle<T>(&self, change: impl FnOnce(&mut Ledger) -> Option<T>) -> Result<T> {
        if self.is_stopping() {
            return Err(closed());
        }
        let changed = change(&mut self.books().ledger);
        self.settled.notify_all();
        self.arrived.notify_waiters();
        changed.ok_or_else(|| self.gone())
    }

    /// It comes again, as if it had not been handed out.
    fn give_back(&self, number: u64) -> Result<()> {
        self.settle(|ledger| ledger.give_back(number).then_some(()))
    }

    /// It comes again, at once or after a delay.
    pub(crate) fn put_off(&self, number: u64, delay: Option<Duration>) -> Result<()> {
        let (delay, now) = (delay.unwrap_or_default(), SystemClock.now().unix_millis());
        self.settle(|ledger| ledger.put_off(number, delay, now).then_some(()))
    }

    /// It is done; waits until the servers know, where that is wanted.
    pub(crate) async fn done(&self, number: u64) -> Result<()> {
        let done = self.settle(|ledger| ledger.done(number))?;
        if self.group.is_none() {
            return Ok(());
        }
        if !self.link.config().confirmed_acks {
            self.commit();
            return Ok(());
        }
        self.known(done).await
    }

    /// It is done, and these are published, all or nothing; else it comes again.
    async fn forward(&self, number: u64, publishes: Vec<Publish>) -> Result<()> {
        let transacted = match self.link.config().transactions {
            true => self.transact(number, publishes, self.link.deadline()).await,
            false => Err(Error::unsupported(
                "the kafka broker cannot acknowledge and publish in one step without `transactions`",
            )
            .into()),
        };
        let Err(failed) = transacted else {
            return Ok(());
        };
        // Too late is as good.
        match failed.then {
            Then::Again => drop(self.give_back(number)),
            Then::Undecided => {}
        }
        Err(failed.error)
    }

    /// Waits until the servers know.
    async fn known(&self, done: Done) -> Result<()> {
        let (tell, told) = oneshot::channel();
        self.books().waiters.push((done.place, done.changes, tell));
        self.commit();
        match tokio::time::timeout_at(self.link.deadline(), told).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(self.gone()),
            Err(_) => Err(Error::unavailable(
                "the servers were not told in time; the message may come again",
            )
            .with_retry(Retry::IfIdempotent)),
        }
    }

    /// Removes messages of a partition below an end and says how many were there, when the servers know. `None` when the
    /// partition is not ours.
    pub(crate) async fn remove(
        &self,
        place: &Place,
        offsets: &[i64],
        end: i64,
    ) -> Option<Result<u64>> {
        if self.is_stopping() {
            return None;
        }
        let longest = self.longest_note().saturating_sub(note::BESIDE);
        let removed = self.books().ledger.remove(place, offsets, end, longest)?;
        let Removed::Some(count, done) = removed else {
            return Some(Err(note::full()));
        };
        self.settled.notify_all();
        self.arrived.notify_waiters();
        if count == 0 {
            return Some(Ok(0));
        }
        Some(self.known(done).await.map(|()| count))
    }

    fn longest_note(&self) -> usize {
        self.longest_note.load(Ordering::Relaxed)
    }

    /// From now on, next to nothing is written beside positions.
    fn no_notes(&self) {
        self.longest_note.store(0, Ordering::Relaxed);
    }

    /// There may be something to tell the servers.
    fn commit(&self) {
        self.done.notify_all();
    }
}

impl Books {
    /// Those who wait for what is known now hear of it.
    fn tell(&mut self, place: &Place, changes: u64) {
        self.waiters.retain_mut(|(waiting, wanted, tell)| {
            if waiting != place || *wanted > changes {
                return !tell.is_closed();
            }
            let (told, _) = oneshot::channel();
            drop(std::mem::replace(tell, told).send(Ok(())));
            false
        });
    }

    /// Those who wait for these hear that they are gone.
    fn tell_gone(&mut self, places: &[Place]) {
        self.waiters.retain_mut(|(waiting, _, tell)| {
            if !places.contains(waiting) {
                return true;
            }
            let (told, _) = oneshot::channel();
            let text = "the partition went to another member before the servers knew; the message may come again";
            let error = Error::conflict(text).with_retry(Retry::Never);
            drop(std::mem::replace(tell, told).send(Err(error)));
            false
        });
    }
}

/// Positions as the driver takes them, with what is noted beside them.
pub(crate) fn list<'a>(
    positions: impl Iterator<Item = (&'a Place, i64, String)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), position, note) in positions {
        let mut element = list.add_partition(topic, *partition);
        // An offset can always be represented.
        drop(element.set_offset(Offset::Offset(position)));
        element.set_metadata(note);
    }
    list
}

/// What a delivery is settled by.
struct Token {
    hub: Arc<Hub>,
    number: u64,
}

impl Settle for Token {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            match settlement {
                Settlement::Ack | Settlement::Reject => self.hub.done(self.number).await,
                Settlement::Requeue { delay } => self.hub.put_off(self.number, delay),
                Settlement::Forward(publish) => self.hub.forward(self.number, vec![*publish]).await,
                Settlement::ForwardAll(all) => self.hub.forward(self.number, all).await,
                _ => {
                    self.hub.give_back(self.number)?;
                    Err(Error::unsupported("the kafka broker cannot do this"))
                }
            }
        })
    }

    fn abandon(self: Box<Self>) {
        // Too late is as good.
        drop(self.hub.give_back(self.number));
    }

    fn extend(&self, lease: Duration) -> BoxFuture<'_, Result<()>> {
        let extended = self
            .hub
            .settle(|ledger| ledger.extend(self.number, lease).then_some(()));
        Box::pin(std::future::ready(extended))
    }
}

/// Milliseconds since 1970.
fn millis(start: Start) -> i64 {
    match start {
        Start::Latest => SystemClock.now().unix_millis(),
        Start::Earliest => 0,
        // Rounded up: what was there a moment earlier is not asked for.
        Start::At(time) => up(time),
    }
}

fn up(time: Timestamp) -> i64 {
    let millis = time.unix_millis();
    if Timestamp::from_unix_millis(millis) < time {
        millis + 1
    } else {
        millis
    }
}
