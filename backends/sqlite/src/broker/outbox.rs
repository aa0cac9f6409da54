//! Publishing: what several tasks publish at the same time is written by one job.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Duration, Instant, timeout_at};
use trunkline_core::{Error, Result, Retry, SharedClock};
use trunkline_messaging::{Destination, Receipt};

use super::book::Book;
use super::config::{EmbeddedBrokerConfig, WhenFull};
use super::limits::{DestinationFull, Limits};
use super::outgoing::Outgoing;
use crate::engine::{Job, JobSender, Stop, Tx, busy};
use crate::error::Failure;

const OPERATION: &str = "publish";
/// Messages and bytes of one job; what is left becomes the next job, after other processes had their turn.
const JOB_MESSAGES: usize = 4096;
const JOB_BYTES: i64 = 8 << 20;
/// How often to look whether another process made room.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(25);

/// The way of messages into the database. Clones share it.
#[derive(Clone)]
pub(super) struct Outbox(Arc<Shared>);

struct Shared {
    queue: JobSender,
    clock: SharedClock,
    limits: Limits,
    when_full: WhenFull,
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_places: u32,
    max_bytes: u32,
    /// Told when messages were removed, so that those who wait for room look again.
    room: Notify,
    waiting: Mutex<Waiting>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Waiting {
    parcels: Vec<Parcel>,
    job_queued: bool,
}

/// What one caller publishes together.
struct Parcel {
    items: Vec<Outgoing>,
    reply: oneshot::Sender<Outcome>,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// The messages back, with what became of each; or why none was written.
type Outcome = std::result::Result<Vec<(Outgoing, Result<Receipt>)>, Failure>;

impl Outbox {
    pub(super) fn new(queue: JobSender, clock: SharedClock, config: &EmbeddedBrokerConfig) -> Self {
        let bytes = config.max_in_flight_bytes.as_usize();
        let max_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self(Arc::new(Shared {
            queue,
            clock,
            limits: Limits::of(config),
            when_full: config.when_full,
            places: Arc::new(Semaphore::new(config.max_in_flight as usize)),
            bytes: Arc::new(Semaphore::new(max_bytes as usize)),
            max_places: config.max_in_flight,
            max_bytes,
            room: Notify::new(),
            waiting: Mutex::default(),
        }))
    }

    /// Publishes one message; waits for room where that is wanted.
    pub(super) async fn publish(&self, item: Outgoing, deadline: Instant) -> Result<Receipt> {
        let mut outcomes = self.publish_all(vec![item], deadline).await;
        outcomes
            .pop()
            .unwrap_or_else(|| Err(Error::internal("a publish has no outcome")))
    }

    /// Publishes several in order; one outcome for each.
    pub(super) async fn publish_all(
        &self,
        items: Vec<Outgoing>,
        deadline: Instant,
    ) -> Vec<Result<Receipt>> {
        let count = items.len();
        let mut outcomes: Vec<Option<Result<Receipt>>> = (0..count).map(|_| None).collect();
        let mut left: Vec<(usize, Outgoing)> = items.into_iter().enumerate().collect();
        while !left.is_empty() {
            let room = self.0.room.notified();
            left = self.attempt(left, deadline, &mut outcomes).await;
            if !left.is_empty() {
                let look = (Instant::now() + LOOK_FOR_ROOM).min(deadline);
                // Either way it looks again.
                timeout_at(look, room).await.ok();
                if Instant::now() >= deadline {
                    break;
                }
            }
        }
        let missing = || Err(Error::internal("a publish has no outcome"));
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(missing))
            .collect()
    }

    /// Publishes what is left, notes the outcomes, and returns what waits for room.
    async fn attempt(
        &self,
        mut left: Vec<(usize, Outgoing)>,
        deadline: Instant,
        outcomes: &mut [Option<Result<Receipt>>],
    ) -> Vec<(usize, Outgoing)> {
        let mut full = Vec::new();
        let mut queues = Queues::new(self.0.when_full);
        let mut note = |at: usize, outcome| {
            if let Some(place) = outcomes.get_mut(at) {
                *place = Some(outcome);
            }
        };
        while !left.is_empty() {
            let rest = left.split_off(chunk(&left));
            let (mut places, mut items) = (Vec::new(), Vec::new());
            for (at, item) in left {
                if let Some(error) = queues.before(&item) {
                    note(at, Err(error));
                    full.push((at, item));
                } else {
                    places.push(at);
                    items.push(item);
                }
            }
            left = rest;
            if items.is_empty() {
                continue;
            }
            match self.send(items, deadline).await {
                Ok(sent) => {
                    for (at, (item, outcome)) in places.into_iter().zip(sent) {
                        let no_room = queues.join(&item, &outcome);
                        note(at, outcome);
                        if no_room {
                            full.push((at, item));
                        }
                    }
                }
                Err(why) => {
                    for at in places {
                        note(at, Err(why.error()));
                    }
                }
            }
        }
        full
    }

    async fn send(
        &self,
        items: Vec<Outgoing>,
        deadline: Instant,
    ) -> std::result::Result<Vec<(Outgoing, Result<Receipt>)>, Unsent> {
        let permits = timeout_at(deadline, self.permits(&items))
            .await
            .map_err(|_| Unsent::Busy)?
            .ok_or(Unsent::Failed(Failure::closed()))?;
        let (reply, answer) = oneshot::channel();
        self.push(Parcel {
            items,
            reply,
            _permits: permits,
        });
        match timeout_at(deadline, answer).await {
            Ok(Ok(Ok(sent))) => Ok(sent),
            Ok(Ok(Err(failure))) => Err(Unsent::Failed(failure)),
            Ok(Err(_)) => Err(Unsent::Failed(Failure::closed())),
            Err(_) => Err(Unsent::Late),
        }
    }

    async fn permits(
        &self,
        items: &[Outgoing],
    ) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let size: i64 = items.iter().map(Outgoing::size).sum();
        let bytes = u32::try_from(size)
            .unwrap_or(u32::MAX)
            .min(self.0.max_bytes);
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let count = count.min(self.0.max_places);
        let places = Arc::clone(&self.0.places);
        let places = places.acquire_many_owned(count).await.ok()?;
        let bytes = Arc::clone(&self.0.bytes).acquire_many_owned(bytes).await;
        Some((places, bytes.ok()?))
    }

    fn push(&self, parcel: Parcel) {
        let queue_job = {
            let mut waiting = self.lock();
            waiting.parcels.push(parcel);
            !std::mem::replace(&mut waiting.job_queued, true)
        };
        if queue_job {
            self.queue_job();
        }
    }

    fn queue_job(&self) {
        self.0.queue.submit(Box::new(PublishJob {
            outbox: self.clone(),
            parcels: None,
            outcomes: Vec::new(),
        }));
    }

    /// Takes as much as one job may write; the rest gets a job of its own.
    fn take(&self) -> Vec<Parcel> {
        let (parcels, more) = {
            let mut waiting = self.lock();
            let (mut messages, mut bytes, mut count) = (0, 0, 0);
            for parcel in &waiting.parcels {
                if count > 0 && (messages >= JOB_MESSAGES || bytes >= JOB_BYTES) {
                    break;
                }
                messages += parcel.items.len();
                bytes += parcel.items.iter().map(Outgoing::size).sum::<i64>();
                count += 1;
            }
            let parcels = waiting.parcels.drain(..count).collect();
            waiting.job_queued = !waiting.parcels.is_empty();
            (parcels, waiting.job_queued)
        };
        if more {
            self.queue_job();
        }
        parcels
    }

    /// The job ended before it took anything: nobody else will.
    fn fail_waiting(&self, failure: &Failure) {
        let parcels = {
            let mut waiting = self.lock();
            waiting.job_queued = false;
            std::mem::take(&mut waiting.parcels)
        };
        for parcel in parcels {
            parcel.answer(Err(failure.clone()));
        }
    }

    /// Messages were removed: whoever waits for room looks again.
    pub(super) fn made_room(&self) {
        self.0.room.notify_waiters();
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many of the messages as may go together.
fn chunk(items: &[(usize, Outgoing)]) -> usize {
    const TOGETHER: usize = 1000;
    let mut bytes = 0;
    let fits = items.iter().take(TOGETHER).take_while(|(_, item)| {
        bytes += item.size();
        bytes <= JOB_BYTES
    });
    fits.count().max(1)
}

/// Where messages of one caller wait for room. What comes behind them waits too, even if there is room for it: messages
/// to one destination are stored in the order given.
struct Queues {
    when_full: WhenFull,
    full: Vec<(Destination, DestinationFull)>,
}

impl Queues {
    fn new(when_full: WhenFull) -> Self {
        Self {
            when_full,
            full: Vec::new(),
        }
    }

    /// Why a message has to wait, if others wait before it.
    fn before(&self, item: &Outgoing) -> Option<Error> {
        let mut full = self.full.iter();
        let (_, cause) = full.find(|(destination, _)| *destination == item.destination)?;
        Some(cause.clone().error().with_operation(OPERATION))
    }

    /// Notes whether a message found no room. What is refused for good holds nobody up.
    fn join(&mut self, item: &Outgoing, outcome: &Result<Receipt>) -> bool {
        let cause: Option<&DestinationFull> = outcome.as_ref().err().and_then(Error::find);
        let Some(cause) = cause.filter(|_| self.when_full == WhenFull::Wait) else {
            return false;
        };
        if self.before(item).is_none() {
            self.full.push((item.destination.clone(), cause.clone()));
        }
        true
    }
}

/// Why a parcel has no outcomes.
enum Unsent {
    Busy,
    Late,
    Failed(Failure),
}

impl Unsent {
    fn error(&self) -> Error {
        match self {
            Self::Busy => busy(OPERATION),
            Self::Late => Error::timeout("the disk did not confirm the message in time")
                .with_retry(Retry::IfIdempotent)
                .with_operation(OPERATION),
            Self::Failed(failure) => failure.to_error(OPERATION),
        }
    }
}

impl Parcel {
    fn answer(self, outcome: Outcome) {
        // Nobody waits any more: the caller was dropped.
        drop(self.reply.send(outcome));
    }
}

struct PublishJob {
    outbox: Outbox,
    /// Taken when it runs first, so that as much as possible goes together.
    parcels: Option<Vec<Parcel>>,
    outcomes: Vec<Vec<Result<Receipt>>>,
}

impl Job for PublishJob {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        let shared = &self.outbox.0;
        let parcels = self.parcels.get_or_insert_with(|| {
            let mut parcels = self.outbox.take();
            // Who was dropped before is not published.
            parcels.retain(|parcel| !parcel.reply.is_closed());
            parcels
        });
        self.outcomes.clear();
        let now = shared.clock.now().unix_micros();
        let (connection, book) = tx.cached::<Book>();
        let mut written = false;
        for parcel in parcels {
            let mut outcomes = Vec::with_capacity(parcel.items.len());
            let mut queues = Queues::new(shared.when_full);
            for item in &parcel.items {
                if let Some(error) = queues.before(item) {
                    outcomes.push(Err(error));
                    continue;
                }
                let outcome = match book.publish(connection, &shared.limits, now, item) {
                    Ok(receipt) => Ok(receipt),
                    Err(Stop::Refused(error)) => Err(error.with_operation(OPERATION)),
                    Err(Stop::Sql(error)) => return Err(error),
                };
                written |= outcome.is_ok();
                queues.join(item, &outcome);
                outcomes.push(outcome);
            }
            self.outcomes.push(outcomes);
        }
        book.save(connection)?;
        if written {
            tx.ring();
        }
        Ok(())
    }

    fn done(self: Box<Self>, outcome: std::result::Result<(), &Failure>) {
        let Some(parcels) = self.parcels else {
            if let Err(failure) = outcome {
                self.outbox.fail_waiting(failure);
            }
            return;
        };
        if let Err(failure) = outcome {
            for parcel in parcels {
                parcel.answer(Err(failure.clone()));
            }
            return;
        }
        for (mut parcel, outcomes) in parcels.into_iter().zip(self.outcomes) {
            let items = std::mem::take(&mut parcel.items);
            parcel.answer(Ok(items.into_iter().zip(outcomes).collect()));
        }
    }
}
