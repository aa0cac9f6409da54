//! One channel in confirm mode and the task that owns it: publishes go out one after the other without waiting for each
//! other, and confirms are given to those who wait.
//!
//! The server returns an unroutable message and *then* confirms it, perhaps together with others. The driver gives a
//! returned message to whichever confirm is resolved first after it came, which may be another one's. So the lane gathers
//! every confirm that is there, takes the returned messages out, and gives them to those who sent them: whoever was given
//! a returned message was resolved no later than its sender, so it has been seen when its sender is answered.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Future;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, ConnectionState};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use trunkline_core::{Error, ErrorKind, Result, Retry};
use trunkline_messaging::supervisor::in_flight;

use super::delay::Delays;
use super::job::{Job, Outcome, Place};
use crate::error::{from_driver, is_unsent};
use crate::link::{FAREWELL, Link};
use crate::native::{Exchange, ExchangeKind};
use crate::pool::Connection;
use crate::topology::Topology;

/// By what a returned message is recognised: exchange, routing key, id.
type Mark = (ShortString, ShortString, Option<ShortString>);

/// What came of one publish.
struct Done {
    mark: Mark,
    answer: oneshot::Sender<Result<Outcome>>,
    confirmed: Result<Confirmation, Lost>,
    /// Free for others from here on.
    _place: Place,
}

/// No confirm came.
struct Lost {
    error: lapin::Error,
    /// Nothing was sent.
    unsent: bool,
}

type Sending = Pin<Box<dyn Future<Output = Done> + Send>>;

pub(super) struct Lane {
    connection: Connection,
    topology: Arc<Topology>,
    exchange: String,
    jobs: mpsc::Receiver<Job>,
    stop: CancellationToken,
    sending: FuturesUnordered<Sending>,
    open: Option<Open>,
}

/// A channel that publishes.
struct Open {
    channel: Channel,
    link: Link,
    /// Returned messages whose senders have not been confirmed yet.
    returned: HashMap<Mark, u32>,
    delays: Delays,
}

impl Lane {
    pub(super) fn new(
        connection: Connection,
        topology: Arc<Topology>,
        exchange: String,
        jobs: mpsc::Receiver<Job>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            connection,
            topology,
            exchange,
            jobs,
            stop,
            sending: FuturesUnordered::new(),
            open: None,
        }
    }

    /// Publishes until it is told to stop and everything accepted has been answered.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(done) = self.sending.next(), if !self.sending.is_empty() => self.settle(done),
                job = self.jobs.recv() => match job {
                    Some(job) => self.take(job).await,
                    None => break,
                },
                () = self.stop.cancelled() => break,
            }
        }
        self.jobs.close();
        while let Some(job) = self.jobs.recv().await {
            self.take(job).await;
        }
        while let Some(done) = self.sending.next().await {
            self.settle(done);
        }
        if let Some(open) = self.open.take() {
            let closed = open.channel.close(200, "done".into());
            drop(tokio::time::timeout(FAREWELL, closed).await);
        }
    }

    async fn take(&mut self, job: Job) {
        if let Err(error) = self.ready().await {
            // When it was given up its caller knows already.
            drop(job.answer.send(Err(error)));
            return;
        }
        let Some(open) = &mut self.open else {
            return;
        };
        let mut job = job;
        if let Err(error) = self.topology.check_exchange(job.envelope.exchange.as_str()) {
            drop(job.answer.send(Err(error)));
            return;
        }
        if let Some(millis) = job.envelope.delay {
            let prepared = open
                .delays
                .prepare(&open.link, &open.channel, millis, &job.envelope);
            match open.link.or_gone(prepared).await {
                Ok(exchange) => job.envelope.exchange = exchange,
                Err(error) => {
                    // Nothing was sent; a queue that is missing stays so.
                    let error = match error.kind() {
                        ErrorKind::Unavailable => error.with_retry(Retry::Safe),
                        _ => error,
                    };
                    drop(job.answer.send(Err(error)));
                    return;
                }
            }
        }
        if job.fate.send() {
            let sending = send(open.link.clone(), open.channel.clone(), job);
            self.sending.push(sending);
        }
    }

    /// Waits until there is a channel that may publish, and answers others meanwhile.
    async fn ready(&mut self) -> Result<()> {
        loop {
            if let Some(open) = &self.open
                && open.channel.status().connected()
                && open.link.is_connected()
            {
                let mut blocked = open.link.blocked();
                if blocked.borrow_and_update().is_none() {
                    return Ok(());
                }
                let link = open.link.clone();
                let unblocked = async move {
                    while link.is_connected() && blocked.borrow_and_update().is_some() {
                        let pause = std::time::Duration::from_millis(500);
                        drop(tokio::time::timeout(pause, blocked.changed()).await);
                    }
                };
                self.meanwhile(unblocked.boxed()).await?;
                continue;
            }
            self.open = None;
            let (connection, exchange) = (self.connection.clone(), self.exchange.clone());
            let opened = open(connection, Arc::clone(&self.topology), exchange).boxed();
            let opened = self.meanwhile(opened).await?;
            match opened {
                Ok(open) => self.open = Some(open),
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(target: "trunkline", error = %error.report(), "no channel to publish on");
                    if self.stop.is_cancelled() {
                        return Err(error.with_retry(Retry::Safe));
                    }
                    let pause = std::time::Duration::from_millis(100);
                    self.meanwhile(tokio::time::sleep(pause).boxed()).await?;
                }
            }
        }
    }

    /// Waits for something, and answers those whose confirms come. Fails when it is time to stop.
    async fn meanwhile<T>(
        &mut self,
        mut wait: Pin<Box<dyn Future<Output = T> + Send>>,
    ) -> Result<T> {
        loop {
            let done = tokio::select! {
                biased;
                result = &mut wait => return Ok(result),
                Some(done) = self.sending.next(), if !self.sending.is_empty() => done,
                () = self.stop.cancelled() => {
                    return Err(Error::cancelled("the broker was disconnected"));
                }
            };
            self.settle(done);
        }
    }

    /// Answers one whose confirm came, and all others whose confirms are there.
    fn settle(&mut self, first: Done) {
        let mut all = vec![first];
        while let Some(Some(done)) = self.sending.next().now_or_never() {
            all.push(done);
        }
        let mut none = HashMap::new();
        let returned = self
            .open
            .as_mut()
            .map_or(&mut none, |open| &mut open.returned);
        for done in &mut all {
            if let Ok(Confirmation::Ack(message) | Confirmation::Nack(message)) =
                &mut done.confirmed
                && let Some(message) = message.take()
            {
                *returned.entry(mark_of(&message)).or_default() += 1;
            }
        }
        for done in all {
            let answer = match done.confirmed {
                Ok(Confirmation::Ack(_)) => Ok(match take(returned, &done.mark) {
                    true => Outcome::Unroutable,
                    false => Outcome::Routed,
                }),
                Ok(Confirmation::Nack(_)) => Err(refused()),
                Ok(Confirmation::NotRequested) => {
                    Err(Error::internal("the channel does not confirm"))
                }
                Err(Lost {
                    error,
                    unsent: true,
                }) => Err(from_driver("publish", error).with_retry(Retry::Safe)),
                Err(Lost { error, .. }) => Err(in_flight(from_driver("publish", error))),
            };
            // Who gave up waiting is not there any more.
            drop(done.answer.send(answer));
        }
    }
}

async fn open(connection: Connection, topology: Arc<Topology>, exchange: String) -> Result<Open> {
    let (link, _) = connection.connection().await?;
    let opened = async {
        let topics = Exchange::new(exchange).with_kind(ExchangeKind::Topic);
        let mut channel = link.channel().await?;
        topology.ensure_exchange(&link, &channel, &topics).await?;
        // A refusal closes it. What needs no exchange of ours is published all the same.
        if !channel.status().connected() {
            channel = link.channel().await?;
        }
        let confirming = channel.confirm_select(ConfirmSelectOptions::default());
        let confirming = confirming.await;
        confirming.map_err(|error| from_driver("ask for confirms", error))?;
        Ok(channel)
    };
    let channel = link.or_gone(opened).await?;
    Ok(Open {
        channel,
        link,
        returned: HashMap::new(),
        delays: Delays::default(),
    })
}

/// Sends when it is polled first; resolves with the confirm.
fn send(link: Link, channel: Channel, job: Job) -> Sending {
    Box::pin(async move {
        let Job {
            envelope,
            answer,
            place,
            ..
        } = job;
        let mark = (
            envelope.exchange.clone(),
            envelope.routing_key.clone(),
            envelope.properties.message_id().clone(),
        );
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let (exchange, key) = (envelope.exchange, envelope.routing_key);
        let confirm = async {
            let payload = &envelope.payload;
            let properties = envelope.properties;
            let written = channel.basic_publish(exchange, key, options, payload, properties);
            match written.await {
                Ok(confirm) => confirm.await.map_err(|error| Lost {
                    error,
                    unsent: false,
                }),
                Err(error) => Err(Lost {
                    unsent: is_unsent(&error),
                    error,
                }),
            }
        };
        let confirmed = tokio::select! {
            biased;
            confirmed = confirm => confirmed,
            () = link.gone() => Err(Lost {
                error: lapin::ErrorKind::InvalidConnectionState(ConnectionState::Closed).into(),
                unsent: false,
            }),
        };
        Done {
            mark,
            answer,
            confirmed,
            _place: place,
        }
    })
}

fn mark_of(message: &BasicReturnMessage) -> Mark {
    (
        message.exchange.clone(),
        message.routing_key.clone(),
        message.properties.message_id().clone(),
    )
}

fn take(returned: &mut HashMap<Mark, u32>, mark: &Mark) -> bool {
    match returned.get_mut(mark) {
        Some(1) => returned.remove(mark).is_some(),
        Some(count) => {
            *count -= 1;
            true
        }
        None => false,
    }
}

/// The server said no: a queue is full, or cannot store. Of several queues some may have taken it.
fn refused() -> Error {
    Error::exhausted("the server refused the message: a queue is full or cannot store it")
        .with_retry(Retry::IfIdempotent)
}
