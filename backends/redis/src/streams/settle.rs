//! Settling deliveries: one task per broker tells the server, as many at once as there are.

use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::{BoxFuture, Error, ErrorKind, Result, Retry};
use trunkline_messaging::{Publish, Settle, Settlement};

use super::Core;
use super::desk::Desk;
use super::publish::{Outgoing, no_route};
use crate::link::{Failure, Link, millis};
use crate::script::Script;
use crate::wire;

/// Settlements that go to the server in one step.
const AT_ONCE: usize = 128;

/// A message that is held under a lease. Whoever has the token may settle it, on any connection.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) stream: String,
    pub(super) group: String,
    pub(super) id: String,
    pub(super) token: String,
    /// When the lease is over.
    pub(super) until: Instant,
}

enum Action {
    Ack,
    Requeue(Duration),
    /// It was never handed out.
    GiveBack,
    Extend(Duration),
    Forward(Outgoing),
}

struct Task {
    held: Held,
    action: Action,
    /// Gives up then.
    deadline: Instant,
    /// Sent before on a connection that was lost: the server may have done it.
    unsure: bool,
    answer: Option<oneshot::Sender<Result<()>>>,
}

impl Task {
    fn answer(self, outcome: Result<()>) {
        if let Some(answer) = self.answer {
            // Nobody may wait any more.
            drop(answer.send(outcome));
        } else if let Err(error) = outcome
            && error.kind() != ErrorKind::Conflict
        {
            tracing::debug!(target: "trunkline", error = %error.report(), "a message comes again when its lease is over");
        }
    }
}

/// Hands settlements to the task. Clones share it.
///
/// The queue has no limit of its own: there are never more settlements than deliveries, which `prefetch` limits.
#[derive(Clone)]
pub(super) struct Settler {
    tasks: mpsc::UnboundedSender<Task>,
    limit: Duration,
    max_message_size: usize,
    closed: CancellationToken,
}

impl Settler {
    /// A handle, and what the task works off.
    pub(super) fn new(core: &super::Settings, closed: CancellationToken) -> (Self, Queue) {
        let (tasks, queue) = mpsc::unbounded_channel();
        let settler = Self {
            tasks,
            limit: core.config.request_timeout,
            max_message_size: core.config.max_message_size.as_usize(),
            closed,
        };
        (settler, Queue(queue))
    }

    /// Gives a message back without waiting.
    pub(super) fn give_back(&self, held: Held, was_handed_out: bool) {
        let action = if was_handed_out {
            Action::Requeue(Duration::ZERO)
        } else {
            Action::GiveBack
        };
        self.send(Task {
            deadline: held.until,
            held,
            action,
            unsure: false,
            answer: None,
        });
    }

    fn send(&self, task: Task) {
        if let Err(refused) = self.tasks.send(task) {
            refused.0.answer(Err(closed()));
        }
    }

    async fn settle(&self, held: Held, action: Action) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(closed());
        }
        let (answer, outcome) = oneshot::channel();
        self.send(Task {
            deadline: crate::link::deadline(self.limit),
            held,
            action,
            unsure: false,
            answer: Some(answer),
        });
        tokio::select! {
            biased;
            outcome = outcome => outcome.unwrap_or_else(|_| Err(closed())),
            () = self.closed.cancelled() => Err(closed()),
        }
    }
}

fn closed() -> Error {
    Error::cancelled("the broker was disconnected")
}

/// One delivery in the hands of its owner.
pub(super) struct Hold {
    settler: Settler,
    held: Held,
    seat: Seat,
}

/// Its place among those that `prefetch` allows, free again however the settlement ends.
struct Seat {
    desk: Arc<Desk>,
    serial: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.desk.free(self.serial);
    }
}

impl Hold {
    pub(super) fn new(settler: Settler, desk: Arc<Desk>, serial: u64, held: Held) -> Self {
        let seat = Seat { desk, serial };
        Self {
            settler,
            held,
            seat,
        }
    }

    fn action(&self, settlement: Settlement) -> Result<Action> {
        Ok(match settlement {
            Settlement::Ack | Settlement::Reject => Action::Ack,
            Settlement::Requeue { delay } => Action::Requeue(delay.unwrap_or_default()),
            Settlement::Forward(publish) => Action::Forward(self.outgoing(*publish)?),
            other => {
                return Err(Error::unsupported(format!(
                    "the redis broker cannot do this: {other:?}"
                )));
            }
        })
    }

    fn outgoing(&self, publish: Publish) -> Result<Outgoing> {
        Outgoing::new(publish, self.settler.max_message_size)
    }
}

impl Settle for Hold {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let action = match self.action(settlement) {
                Ok(action) => action,
                Err(error) => {
                    self.settler.give_back(self.held.clone(), true);
                    return Err(error);
                }
            };
            let outcome = self.settler.settle(self.held.clone(), action).await;
            drop(self.seat);
            outcome
        })
    }

    fn abandon(self: Box<Self>) {
        if !self.settler.closed.is_cancelled() {
            self.settler.give_back(self.held.clone(), true);
        }
    }

    fn extend(&self, lease: Duration) -> BoxFuture<'_, Result<()>> {
        Box::pin(
            self.settler
                .settle(self.held.clone(), Action::Extend(lease)),
        )
    }
}

/// What the task works off.
pub(super) struct Queue(mpsc::UnboundedReceiver<Task>);

/// Tells the server, over whatever connection there is, until the broker is disconnected.
pub(super) async fn work(core: Arc<Core>, mut queue: Queue) {
    let stop = core.scope.token();
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            received = queue.0.recv_many(&mut batch, AT_ONCE) => if received == 0 {
                return;
            },
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tell(&core, &mut batch) => {}
        }
    }
}

/// Tells until everything is answered.
async fn tell(core: &Core, batch: &mut Vec<Task>) {
    while !batch.is_empty() {
        give_up(batch);
        let Some(first) = batch.iter().map(|task| task.deadline).min() else {
            return;
        };
        let link = tokio::select! {
            link = core.link() => link,
            () = tokio::time::sleep_until(first) => continue,
        };
        match link {
            Ok(link) => tell_once(core, &link, batch).await,
            Err(error) => {
                let text = error.message().to_owned();
                for task in batch.drain(..) {
                    task.answer(Err(Error::cancelled(text.clone())));
                }
            }
        }
    }
}

/// Answers those whose time is over.
fn give_up(batch: &mut Vec<Task>) {
    let now = Instant::now();
    for task in batch.extract_if(.., |task| task.deadline <= now) {
        let retry = if task.unsure {
            Retry::IfIdempotent
        } else {
            Retry::Safe
        };
        let error = Error::unavailable("Redis was not told in time; the message may come again");
        task.answer(Err(error.with_retry(retry)));
    }
}

async fn tell_once(core: &Core, link: &Link, batch: &mut Vec<Task>) {
    let deadline = Instant::now() + core.settings.config.request_timeout;
    let settings = &core.settings;
    let outcome = link
        .run(Script::Settle, settings.prefix(), deadline, |command| {
            settings.limits(command);
            command.arg(batch.len());
            for task in batch.iter() {
                add(task, command);
            }
        })
        .await;
    match outcome.map(wire::list) {
        Ok(Ok(outcomes)) => {
            for (task, outcome) in batch.drain(..).zip(outcomes) {
                let unsure = task.unsure;
                let outcome = read(outcome, &task, unsure);
                task.answer(outcome);
            }
            // Were there fewer answers, the senders are dropped and say so.
        }
        Ok(Err(error)) => refuse(batch, &error),
        // The next connection has the same leases.
        Err(Failure::Lost(_)) => {
            for task in batch.iter_mut() {
                task.unsure = true;
            }
            // A connection that is up and does not answer is for its heartbeat to judge.
            tokio::select! {
                () = link.gone() => {}
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
        Err(Failure::Answer(error)) => refuse(batch, &crate::error::mapped(error)),
    }
}

fn refuse(batch: &mut Vec<Task>, error: &Error) {
    for task in batch.drain(..) {
        let own = Error::new(error.kind(), error.message().to_owned());
        task.answer(Err(own.with_retry(error.retry())));
    }
}

fn add(task: &Task, command: &mut Cmd) {
    let Held {
        stream,
        group,
        id,
        token,
        ..
    } = &task.held;
    command.arg(stream).arg(group).arg(id).arg(token);
    match &task.action {
        Action::Ack => command.arg("a").arg(0),
        Action::Requeue(delay) => command.arg("n").arg(millis(*delay)),
        Action::GiveBack => command.arg("b").arg(0),
        Action::Extend(lease) => command.arg("x").arg(millis(*lease)),
        Action::Forward(outgoing) => {
            command.arg("f").arg(0);
            outgoing.add(command);
            command
        }
    };
}

fn read(outcome: redis::Value, task: &Task, unsure: bool) -> Result<()> {
    match wire::text(outcome)?.as_str() {
        "OK" => Ok(()),
        "CONFLICT" if unsure => Err(Error::unavailable(
            "the connection was lost while settling; it was done, or the lease is over",
        )
        .with_retry(Retry::IfIdempotent)),
        "CONFLICT" => Err(Error::conflict(
            "the lease is over or the message was removed: it may be in other hands",
        )),
        other => match &task.action {
            Action::Forward(outgoing) => Err(no_route(other, &outgoing.destination)),
            _ => Err(crate::error::unexpected("a settlement")),
        },
    }
}

/// Gives back what a broker holds that is being disconnected.
pub(super) async fn release(
    core: &Core,
    link: &Link,
    unseen: Vec<Held>,
    seen: Vec<Held>,
    deadline: Instant,
) -> Result<()> {
    let counted = seen.into_iter().map(|held| (held, true));
    let all: Vec<(Held, bool)> = unseen
        .into_iter()
        .map(|held| (held, false))
        .chain(counted)
        .collect();
    for some in all.chunks(AT_ONCE) {
        let settings = &core.settings;
        link.run(Script::Settle, settings.prefix(), deadline, |command| {
            settings.limits(command);
            command.arg(some.len());
            for (held, counts) in some {
                let action = if *counts { "n" } else { "b" };
                command.arg(&held.stream).arg(&held.group).arg(&held.id);
                command.arg(&held.token).arg(action).arg(0);
            }
        })
        .await?;
    }
    Ok(())
}
