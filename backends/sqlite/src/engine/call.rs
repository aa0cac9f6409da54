//! Writing with a function and awaiting what it gives.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use trunkline_core::{Error, Result, Retry};

use super::job::{Job, Stop, Tx};
use super::queue::JobSender;
use crate::error::Failure;

/// Calls that may wait for the writer at once; the next ones wait for a place.
const PLACES: usize = 1024;

/// How a call is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Named in errors.
    pub(crate) operation: &'static str,
    /// When to give up waiting.
    pub(crate) deadline: Instant,
    /// Whether it must be on the disk before it counts.
    pub(crate) durable: bool,
    /// Whether it needs new space.
    pub(crate) grows: bool,
}

impl Manner {
    pub(crate) fn durable(operation: &'static str, deadline: Instant) -> Self {
        Self {
            operation,
            deadline,
            durable: true,
            grows: true,
        }
    }

    /// For what only ends with its process: no sync of the disk.
    pub(crate) fn relaxed(operation: &'static str, deadline: Instant) -> Self {
        Self {
            durable: false,
            ..Self::durable(operation, deadline)
        }
    }

    pub(crate) fn shrinking(mut self) -> Self {
        self.grows = false;
        self
    }
}

/// The bounded entrance to the writer of one database.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    queue: JobSender,
    places: Arc<Semaphore>,
}

impl Calls {
    pub(super) fn new(queue: JobSender) -> Self {
        Self {
            queue,
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }

    /// Runs a function in the next transaction. It may run twice, when a group must be tried again, and must not write
    /// before it refuses.
    ///
    /// A call that is dropped before the writer takes it is not run.
    pub(crate) async fn write<T, F>(&self, manner: Manner, function: F) -> Result<T>
    where
        F: FnMut(&mut Tx<'_>) -> std::result::Result<T, Stop> + Send + 'static,
        T: Send + 'static,
    {
        self.run(manner, Repeatable(function)).await
    }

    async fn run<T, B>(&self, manner: Manner, body: B) -> Result<T>
    where
        B: Body<T>,
        T: Send + 'static,
    {
        let place = timeout_at(manner.deadline, Arc::clone(&self.places).acquire_owned())
            .await
            .map_err(|_| busy(manner.operation))?
            .map_err(|_| Failure::closed().to_error(manner.operation))?;
        let (reply, answer) = oneshot::channel();
        self.queue.submit(Box::new(Call {
            body,
            manner,
            outcome: None,
            reply,
            _place: place,
        }));
        match timeout_at(manner.deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Failure::closed().to_error(manner.operation)),
            Err(_) => Err(Error::timeout("the disk did not confirm the write in time")
                .with_operation(manner.operation)),
        }
    }
}

/// More waits than the writer can take.
pub(crate) fn busy(operation: &'static str) -> Error {
    Error::exhausted("too many writes are waiting for the disk")
        .with_retry(Retry::Safe)
        .with_operation(operation)
}

trait Body<T>: Send + 'static {
    fn run(&mut self, tx: &mut Tx<'_>) -> std::result::Result<T, Stop>;
}

struct Repeatable<F>(F);

impl<T, F> Body<T> for Repeatable<F>
where
    F: FnMut(&mut Tx<'_>) -> std::result::Result<T, Stop> + Send + 'static,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> std::result::Result<T, Stop> {
        (self.0)(tx)
    }
}

struct Call<T, B> {
    body: B,
    manner: Manner,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
    _place: OwnedSemaphorePermit,
}

impl<T: Send, B: Body<T>> Job for Call<T, B> {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        if self.reply.is_closed() {
            return Ok(());
        }
        self.outcome = Some(match self.body.run(tx) {
            Ok(value) => Ok(value),
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Sql(error)) => return Err(error),
        });
        Ok(())
    }

    fn done(self: Box<Self>, outcome: std::result::Result<(), &Failure>) {
        let operation = self.manner.operation;
        let answer = match (outcome, self.outcome) {
            (Err(failure), _) => Err(failure.to_error(operation)),
            (Ok(()), Some(answer)) => answer,
            (Ok(()), None) => Err(Failure::closed().to_error(operation)),
        };
        // Nobody waits any more: the caller was dropped.
        drop(self.reply.send(answer));
    }

    fn durable(&self) -> bool {
        self.manner.durable
    }

    fn grows(&self) -> bool {
        self.manner.grows
    }
}

/// A job without a caller that waits: a function to write, and one that is told the outcome on the writer thread.
struct Errand<W, T, D> {
    write: W,
    value: Option<T>,
    done: D,
    durable: bool,
}

impl<W, T, D> Job for Errand<W, T, D>
where
    W: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
    D: FnOnce(std::result::Result<T, &Failure>) + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        self.value = Some((self.write)(tx)?);
        Ok(())
    }

    fn done(self: Box<Self>, outcome: std::result::Result<(), &Failure>) {
        let closed = Failure::closed();
        let outcome = match outcome {
            Ok(()) => self.value.ok_or(&closed),
            Err(failure) => Err(failure),
        };
        (self.done)(outcome);
    }

    fn durable(&self) -> bool {
        self.durable
    }

    fn grows(&self) -> bool {
        false
    }
}

impl JobSender {
    /// Queues a function nobody waits for. It may run twice; `done` is called once, on the writer thread.
    pub(crate) fn errand<W, T, D>(&self, durable: bool, write: W, done: D)
    where
        W: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
        D: FnOnce(std::result::Result<T, &Failure>) + Send + 'static,
    {
        self.submit(Box::new(Errand {
            write,
            value: None,
            done,
            durable,
        }));
    }
}
