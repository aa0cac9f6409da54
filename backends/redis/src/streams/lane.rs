//! Single publishes of many callers, sent together.
//!
//! A script costs Redis more than what it stores. So a publish that finds others on their way waits for the next script and
//! goes with all that wait; one that is alone goes at once. Each has its own outcome: what has no room, or is refused, holds
//! up nobody else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::RedisError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use trunkline_core::{Error, Result, Retry};

use super::publish::{AT_ONCE, BYTES_AT_ONCE, Outgoing, Stored, duplicates, once};
use super::{Core, cancelled};
use crate::link::Link;

/// Scripts that are on their way at once: one works while the next is gathered.
const UNDER_WAY: usize = 2;

struct Job {
    message: Arc<Outgoing>,
    fate: Fate,
    answer: oneshot::Sender<Result<Stored>>,
}

/// Whether a job was sent or given up, whichever came first.
#[derive(Clone, Default)]
struct Fate(Arc<AtomicU8>);

const WAITING: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Fate {
    /// False when the caller has given up.
    fn send(&self) -> bool {
        self.decide(SENT)
    }

    /// False when it was sent, and so may have been stored.
    fn give_up(&self) -> bool {
        self.decide(GIVEN_UP)
    }

    fn decide(&self, fate: u8) -> bool {
        let decided = self
            .0
            .compare_exchange(WAITING, fate, Ordering::AcqRel, Ordering::Acquire);
        decided.is_ok()
    }
}

/// Gives up a job that has not been sent when its caller stops waiting.
struct GiveUp(Fate);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Hands publishes to the task that sends them. As many wait here at most as there are callers.
pub(super) struct Lane {
    jobs: mpsc::UnboundedSender<Job>,
    callers: AtomicUsize,
}

/// One of those who publish.
struct Caller<'a>(&'a AtomicUsize);

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the task sends.
pub(super) struct Waiting(mpsc::UnboundedReceiver<Job>);

impl Lane {
    pub(super) fn new() -> (Self, Waiting) {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let callers = AtomicUsize::new(0);
        (Self { jobs, callers }, Waiting(waiting))
    }

    /// Publishes once, and says what became of it. When dropped, it may be published or not.
    pub(super) async fn send(
        &self,
        core: &Core,
        message: &Arc<Outgoing>,
        deadline: Instant,
    ) -> Result<Stored> {
        core.check_open()?;
        let others = self.callers.fetch_add(1, Ordering::AcqRel);
        let _caller = Caller(&self.callers);
        if others == 0 {
            let link = core.connection().await?;
            let mut stored = once(core, &link, &[message.as_ref()], true, deadline).await?;
            return stored.pop().unwrap_or_else(|| Err(missing()));
        }
        let (answer, answered) = oneshot::channel();
        let fate = Fate::default();
        let job = Job {
            message: Arc::clone(message),
            fate: fate.clone(),
            answer,
        };
        if self.jobs.send(job).is_err() {
            return Err(cancelled());
        }
        let give_up = GiveUp(fate);
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(_)) if give_up.0.give_up() => Err(cancelled()),
            Ok(Err(_)) => {
                let text = "the broker was disconnected; it may have been done";
                Err(Error::cancelled(text).with_retry(Retry::IfIdempotent))
            }
            Err(_) if give_up.0.give_up() => Err(match core.line.current() {
                Ok(_) => Error::unavailable("not sent in time").with_retry(Retry::Safe),
                Err(error) => error,
            }),
            Err(_) => {
                let error = Error::timeout("Redis has not answered in time; it may have been done");
                Err(error.with_retry(Retry::IfIdempotent))
            }
        }
    }
}

fn missing() -> Error {
    crate::error::unexpected("a publish")
}

/// Sends what waits, until the broker is disconnected; then waits for the answers to what was sent.
pub(super) async fn work(core: Arc<Core>, mut waiting: Waiting) {
    let stop = core.scope.token();
    let mut sending = FuturesUnordered::new();
    let mut batch = Vec::new();
    let mut jobs = VecDeque::new();
    loop {
        if jobs.is_empty() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(()) = sending.next(), if !sending.is_empty() => {}
                count = waiting.0.recv_many(&mut batch, AT_ONCE), if sending.len() < UNDER_WAY => {
                    if count == 0 {
                        break;
                    }
                    jobs.extend(batch.drain(..));
                }
            }
            continue;
        }
        let link = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(()) = sending.next(), if !sending.is_empty() => continue,
            link = core.link(), if sending.len() < UNDER_WAY => link,
        };
        let Ok(link) = link else { break };
        let some = fitting(&mut jobs);
        if !some.is_empty() {
            sending.push(tell(Arc::clone(&core), link, some));
        }
    }
    // Whose job was not sent learns it from the end of its channel.
    drop((waiting, jobs));
    while sending.next().await.is_some() {}
}

/// Those that go in one step; from now on they may have been stored.
fn fitting(jobs: &mut VecDeque<Job>) -> Vec<Job> {
    let (mut some, mut bytes) = (Vec::with_capacity(jobs.len()), 0);
    while let Some(job) = jobs.pop_front() {
        bytes += job.message.size();
        if bytes > BYTES_AT_ONCE && !some.is_empty() {
            jobs.push_front(job);
            break;
        }
        if job.fate.send() {
            some.push(job);
        }
    }
    some
}

async fn tell(core: Arc<Core>, link: Link, jobs: Vec<Job>) {
    let deadline = Instant::now() + core.settings.config.request_timeout;
    let messages: Vec<&Outgoing> = jobs.iter().map(|job| job.message.as_ref()).collect();
    let outcome = once(&core, &link, &messages, false, deadline).await;
    drop(messages);
    // Who gave up waiting is not there any more.
    match outcome {
        Ok(stored) => {
            let mut stored = stored.into_iter();
            for job in jobs {
                let one = stored.next().unwrap_or_else(|| Err(missing()));
                drop(job.answer.send(one));
            }
        }
        Err(error) => {
            let again = duplicates(error);
            for job in jobs {
                drop(job.answer.send(Err(again(None))));
            }
        }
    }
}

/// What the script says of a message that Redis refused, as Redis' own error.
pub(super) fn refused(text: String) -> RedisError {
    let kind = redis::ErrorKind::Extension;
    RedisError::from((kind, "a message was refused", text))
}
