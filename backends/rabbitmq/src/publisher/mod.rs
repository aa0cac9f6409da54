//! Publishing: confirmed, in order per destination, with a bounded number and size of messages in flight.

mod delay;
mod job;
mod lane;

use std::collections::hash_map::DefaultHasher;
use std::future::Future;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, ErrorKind, Result, Retry};

use crate::config::RabbitMqConfig;
use crate::pool::Connection;
use crate::topology::Topology;
use job::{Fate, GiveUp, Job, Place};
use lane::Lane;

pub(crate) use job::{Envelope, Outcome};

/// Jobs that a lane may have waiting; more wait for their place among those in flight anyway.
const WAITING: usize = 256;

pub(crate) struct Publisher {
    config: Arc<RabbitMqConfig>,
    connection: Connection,
    topology: Arc<Topology>,
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Started with the first publish.
    lanes: Mutex<Option<Vec<mpsc::Sender<Job>>>>,
    scope: Scope,
}

impl Publisher {
    pub(crate) fn new(
        config: Arc<RabbitMqConfig>,
        connection: Connection,
        topology: Arc<Topology>,
    ) -> Self {
        let bytes = config.max_in_flight_bytes.as_usize();
        let count = usize::try_from(config.max_in_flight).unwrap_or(usize::MAX);
        Self {
            count: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))),
            config,
            connection,
            topology,
            lanes: Mutex::default(),
            scope: Scope::new(),
        }
    }

    /// When the caller does not wait any longer.
    pub(crate) fn deadline(&self) -> Instant {
        let own = Context::current().and_then(|context| context.deadline());
        own.unwrap_or_else(|| Instant::now() + self.config.request_timeout)
    }

    /// Sends it and waits for the confirm.
    pub(crate) async fn publish(&self, envelope: Envelope) -> Result<Outcome> {
        let deadline = self.deadline();
        let waiting = self.hand_over(envelope, deadline).await?;
        waiting.await
    }

    /// Hands it to its lane. What comes of it is awaited apart, so that several may be on their way.
    pub(crate) async fn hand_over(
        &self,
        envelope: Envelope,
        deadline: Instant,
    ) -> Result<impl Future<Output = Result<Outcome>> + Send + use<>> {
        self.may_publish(deadline).await?;
        let size = envelope.payload.len().max(1);
        let place = self.place(size, deadline).await?;
        let (answer, answered) = oneshot::channel();
        let fate = Fate::default();
        let job = Job {
            envelope,
            fate: fate.clone(),
            answer,
            place,
        };
        let give_up = GiveUp(fate.clone());
        let lane = self.lane(&job.envelope)?;
        match tokio::time::timeout_at(deadline, lane.send(job)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(closed()),
            Err(_) => return Err(late()),
        }
        let not_sent = self.not_sent();
        Ok(async move {
            let _give_up = give_up;
            match tokio::time::timeout_at(deadline, answered).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(if fate.give_up() {
                    closed()
                } else {
                    Error::unavailable("the broker was disconnected; it may have been processed")
                        .with_retry(Retry::IfIdempotent)
                }),
                Err(_) if fate.give_up() => Err(not_sent()),
                Err(_) => Err(
                    Error::timeout("no confirm in time; it may have been processed")
                        .with_retry(Retry::IfIdempotent),
                ),
            }
        })
    }

    /// Waits for a connection whose server takes messages.
    async fn may_publish(&self, deadline: Instant) -> Result<()> {
        if self.scope.is_stopping() {
            return Err(closed());
        }
        let (link, _) = match self.connection.current() {
            Ok(there) => there,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(_) => {
                let there = self.connection.connection();
                match tokio::time::timeout_at(deadline, there).await {
                    Ok(there) => there?,
                    Err(_) => return Err(late()),
                }
            }
        };
        let mut blocked = link.blocked();
        let open = blocked.wait_for(Option::is_none);
        match tokio::time::timeout_at(deadline, open).await {
            // Where the link is gone, the lane waits for the next one.
            Ok(Ok(_) | Err(_)) => Ok(()),
            Err(_) => Err(held_back(&link.blocked())),
        }
    }

    async fn place(&self, size: usize, deadline: Instant) -> Result<Place> {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let (count, bytes) = (Arc::clone(&self.count), Arc::clone(&self.bytes));
        let both = async move {
            let count = count.acquire_owned().await;
            let bytes = bytes.acquire_many_owned(size).await;
            count.and_then(|count| bytes.map(|bytes| (count, bytes)))
        };
        match tokio::time::timeout_at(deadline, both).await {
            Ok(Ok((count, bytes))) => Ok(Place {
                _count: count,
                _bytes: bytes,
            }),
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(Error::exhausted(
                "too many messages wait for their confirms; see max_in_flight and max_in_flight_bytes",
            )
            .with_retry(Retry::Safe)),
        }
    }

    /// The lane of a destination: always the same, so that its messages keep their order. Delayed messages have a lane of
    /// their own, as they wait for declarations.
    fn lane(&self, envelope: &Envelope) -> Result<mpsc::Sender<Job>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.scope.is_stopping() {
            return Err(closed());
        }
        let lanes = lanes.get_or_insert_with(|| {
            let count = self.config.publish_channels.max(1) + 1;
            (0..count).map(|_| self.start_lane()).collect()
        });
        let last = lanes.len() - 1;
        let at = if envelope.delay.is_some() {
            last
        } else {
            let mut hasher = DefaultHasher::new();
            envelope.exchange.hash(&mut hasher);
            envelope.routing_key.hash(&mut hasher);
            usize::try_from(hasher.finish() % last as u64).unwrap_or(0)
        };
        lanes.get(at).cloned().ok_or_else(closed)
    }

    fn start_lane(&self) -> mpsc::Sender<Job> {
        let (sender, jobs) = mpsc::channel(WAITING);
        let connection = self.connection.clone();
        let lane = Lane::new(
            connection,
            Arc::clone(&self.topology),
            self.config.exchange.clone(),
            jobs,
            self.scope.token(),
        );
        // It serves everybody: the deadline of whoever came first is not its own.
        self.scope
            .spawn("publishing", Context::new().scope(lane.run()));
        sender
    }

    /// What to say when the deadline came before the message was sent.
    fn not_sent(&self) -> impl FnOnce() -> Error + Send + use<> {
        let connection = self.connection.clone();
        move || match connection.current() {
            Ok((link, _)) if link.blocked().borrow().is_some() => held_back(&link.blocked()),
            Ok(_) => late(),
            Err(error) => error,
        }
    }

    /// Why the server holds publishers back now, if it does.
    pub(crate) fn blocked(&self) -> Option<Error> {
        let (link, _) = self.connection.current().ok()?;
        let blocked = link.blocked();
        let is_blocked = blocked.borrow().is_some();
        is_blocked.then(|| held_back(&blocked))
    }

    /// Answers what was accepted, then ends; says how many lanes had to be ended by force.
    pub(crate) async fn shutdown(&self, deadline: Instant) -> usize {
        self.scope.stop();
        self.lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.count.close();
        self.bytes.close();
        self.scope.shutdown(deadline).await
    }
}

fn closed() -> Error {
    Error::cancelled("the broker was disconnected")
}

/// The deadline came first, and nothing was sent.
fn late() -> Error {
    Error::unavailable("not sent in time").with_retry(Retry::Safe)
}

fn held_back(blocked: &watch::Receiver<Option<String>>) -> Error {
    let reason = blocked.borrow().clone().unwrap_or_default();
    Error::exhausted(format!("RabbitMQ holds publishers back: {reason}")).with_retry(Retry::Safe)
}
