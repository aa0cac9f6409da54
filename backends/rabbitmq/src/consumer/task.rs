//! The task of one subscription: attaches, hands on what comes, notices that it was detached, and attaches again, for as
//! long as the subscription lives. There is never more than one consumer of it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::Consumer;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::{Error, ErrorKind, Result};
use trunkline_messaging::{Source, SubscriptionState};

use super::intake::{Arrived, Intake};
use super::session::{About, Session};
use crate::config::QueueType;
use crate::error::from_driver;
use crate::link::Link;
use crate::names;
use crate::native::{Binding, Exchange, ExchangeKind, Queue};
use crate::pool::Place;
use crate::topology::{bind, look_at, need_exchange, need_queue};
use crate::wire::short;

/// How long deliveries may lie without anybody asking for them while others could have them.
const NEGLECTED: Duration = Duration::from_millis(500);
/// How long what is done may wait for more of it, before the server is told.
const LINGER: Duration = Duration::from_millis(5);
/// Deliveries that are taken at once before the task looks at everything else.
const AT_ONCE: u32 = 64;
/// Wait before the next attempt to attach, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a farewell may take; nothing depends on it.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) struct Task {
    pub(super) about: Arc<About>,
    pub(super) prefetch: u16,
    pub(super) place: Place,
    pub(super) intake: Arc<Intake>,
    pub(super) state: watch::Sender<SubscriptionState>,
    /// The subscription was dropped.
    pub(super) dropped: CancellationToken,
}

/// A consumer that works, or one that was put to rest because nobody takes what comes.
struct Attached {
    session: Arc<Session>,
    consumer: Option<Consumer>,
}

/// Why a consumer does not work any more.
enum End {
    /// The subscription or the broker ended.
    Over,
    /// It was lost, for this reason.
    Lost(String),
}

impl Task {
    pub(super) async fn run(self) {
        let closed = self.about.shared.closed.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let attached = tokio::select! {
                biased;
                () = self.dropped.cancelled() => break,
                () = closed.cancelled() => break,
                attached = self.attach() => attached,
            };
            let reason = match attached {
                Ok(mut attached) => {
                    pause = FIRST_PAUSE;
                    self.state.send_replace(SubscriptionState::Attached);
                    let end = self.serve(&mut attached).await;
                    self.leave(attached, &end).await;
                    match end {
                        End::Over => break,
                        End::Lost(reason) => reason,
                    }
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => break,
                Err(error) => error.report().to_string(),
            };
            tracing::warn!(
                target: "trunkline", source = %self.about.source, group = self.about.group.as_deref(), reason,
                "a subscription is detached; it will be attached again"
            );
            self.state
                .send_replace(SubscriptionState::Detached { reason });
            tokio::select! {
                () = self.dropped.cancelled() => break,
                () = closed.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        drop(self.intake.close());
        self.state.send_replace(SubscriptionState::Closed);
        // Others that want a place may have it.
        drop(self.place);
    }

    /// Declares everything that the subscription needs, and consumes.
    async fn attach(&self) -> Result<Attached> {
        let (link, _) = self.place.connection.connection().await?;
        link.or_gone(self.attach_to(&link)).await
    }

    async fn attach_to(&self, link: &Link) -> Result<Attached> {
        let shared = &self.about.shared;
        need_queue(link, &self.queue(), shared.config.queue_type).await?;
        let mut channel = link.channel().await?;
        if let Source::Topics(pattern) = &self.about.source {
            let exchange = &shared.config.exchange;
            let topics = Exchange::new(exchange).with_kind(ExchangeKind::Topic);
            need_exchange(link, &channel, &topics).await?;
            if !channel.status().connected() {
                channel = link.channel().await?;
            }
            let binding = Binding::new(&self.about.queue, exchange, pattern.as_str());
            bind(&channel, &binding).await?;
        }
        let limited = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        let limited = limited.await;
        limited.map_err(|error| from_driver("limit deliveries", error))?;
        let about = Arc::clone(&self.about);
        let session = Arc::new(Session::new(about, link.clone(), channel, self.prefetch));
        let consumer = Some(self.consume(&session).await?);
        Ok(Attached { session, consumer })
    }

    fn queue(&self) -> Queue {
        let (about, config) = (&self.about, &self.about.shared.config);
        let is_own = about.group.is_none() && matches!(about.source, Source::Topics(_));
        if !is_own {
            return super::work_queue(&about.queue, config);
        }
        // It outlives a connection that is lost, and the server removes it when nobody comes back.
        let expiry = u64::try_from(config.subscriber_expiry.as_millis()).unwrap_or(u64::MAX);
        Queue::new(&about.queue)
            .with_type(QueueType::Classic)
            .with_argument("x-expires", expiry)
    }

    async fn consume(&self, session: &Session) -> Result<Consumer> {
        let queue = short("the queue's name", &self.about.queue)?;
        let tag = names::consumer_tag(&self.about.shared.config.connection_name);
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = session
            .channel
            .basic_consume(queue, tag.into(), options, arguments);
        consumer
            .await
            .map_err(|error| from_driver("consume", error))
    }

    /// Hands on what comes, until that ends.
    async fn serve(&self, attached: &mut Attached) -> End {
        let closed = self.about.shared.closed.clone();
        let link = attached.session.link.clone();
        let mut gone = pin!(link.gone());
        let mut watch = tokio::time::interval(NEGLECTED);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut linger = pin!(tokio::time::sleep(Duration::ZERO));
        let mut lingers = false;
        loop {
            let Attached { session, consumer } = attached;
            let is_resting = consumer.is_none();
            let arrived = async {
                match consumer {
                    Some(consumer) => consumer.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.dropped.cancelled() => return End::Over,
                () = closed.cancelled() => return End::Over,
                () = linger.as_mut(), if lingers => {
                    lingers = false;
                    session.tell_done();
                }
                () = session.done.notified(), if !lingers => {
                    lingers = true;
                    linger.as_mut().reset(Instant::now() + LINGER);
                }
                arrived = arrived => {
                    let mut next = Some(arrived);
                    let mut taken = 0;
                    // What is there already is taken without asking everything else before each.
                    while let Some(arrived) = next {
                        match arrived {
                            Some(Ok(delivery)) => {
                                let session = Arc::clone(session);
                                self.intake.put(Arrived { delivery, session });
                            }
                            Some(Err(error)) => return End::Lost(from_driver("consume", error).report().to_string()),
                            None => return End::Lost("the server ended the consumer: its queue was deleted or moved".to_owned()),
                        }
                        taken += 1;
                        next = consumer
                            .as_mut()
                            .filter(|_| taken < AT_ONCE)
                            .and_then(|consumer| consumer.next().now_or_never());
                    }
                }
                // A consumer at rest hears nothing of its connection.
                () = gone.as_mut() => return End::Lost("the connection was lost".to_owned()),
                () = self.intake.wanted.notified(), if is_resting => match link.or_gone(self.consume(session)).await {
                    Ok(again) => *consumer = Some(again),
                    Err(error) => return End::Lost(error.report().to_string()),
                },
                _ = watch.tick() => {
                    if !session.is_open() {
                        return End::Lost("the channel was closed".to_owned());
                    }
                    if !is_resting && let Err(error) = link.or_gone(self.rest(attached)).await {
                        return End::Lost(error.report().to_string());
                    }
                }
            }
        }
    }

    /// Gives back what has lain here for a while without anybody asking for it, if there are others who could have it.
    async fn rest(&self, attached: &mut Attached) -> Result<()> {
        let since = self.intake.neglected_since();
        if since.is_none_or(|since| since.elapsed() < NEGLECTED) {
            return Ok(());
        }
        let others = look_at(&attached.session.channel, &self.about.queue).await?;
        if others.consumers < 2 {
            return Ok(());
        }
        if let Some(consumer) = attached.consumer.take() {
            self.cancel(&attached.session, consumer).await?;
        }
        Ok(())
    }

    /// Ends a consumer and gives back what it had not handed out. What was on its way when it was told to end is in its
    /// buffer when that was confirmed.
    async fn cancel(&self, session: &Session, mut consumer: Consumer) -> Result<()> {
        let tag = consumer.tag();
        let ended = session
            .channel
            .basic_cancel(tag, BasicCancelOptions::default())
            .await;
        for arrived in self.intake.take_back() {
            session.give_back_unread(&arrived.delivery);
        }
        while let Some(Ok(delivery)) = consumer.next().await {
            session.give_back_unread(&delivery);
        }
        ended.map_err(|error| from_driver("end a consumer", error))
    }

    /// Leaves nothing behind: no consumer, no delivery that nobody has, no queue of one's own, no channel.
    async fn leave(&self, attached: Attached, end: &End) {
        let Attached { session, consumer } = attached;
        if !session.is_open() {
            for arrived in self.intake.take_back() {
                session.note_unread(&arrived.delivery);
            }
            let mut rest = consumer;
            while let Some(Some(Ok(delivery))) =
                rest.as_mut().and_then(|rest| rest.next().now_or_never())
            {
                session.note_unread(&delivery);
            }
            return;
        }
        session.tell_done();
        let farewell = async {
            if let (Some(consumer), End::Over) = (consumer, end) {
                self.cancel(&session, consumer).await?;
            } else {
                for arrived in self.intake.take_back() {
                    session.give_back_unread(&arrived.delivery);
                }
            }
            let is_own =
                self.about.group.is_none() && matches!(self.about.source, Source::Topics(_));
            if is_own && matches!(end, End::Over) {
                let queue = short("the queue's name", &self.about.queue)?;
                let deleted = session
                    .channel
                    .queue_delete(queue, QueueDeleteOptions::default())
                    .await;
                deleted.map_err(|error| from_driver("delete a queue", error))?;
            }
            Ok::<(), Error>(())
        };
        match tokio::time::timeout(FAREWELL, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(target: "trunkline", error = %error.report(), "a consumer did not end cleanly");
            }
            Err(_) => tracing::debug!(target: "trunkline", "a consumer did not end in time"),
        }
        if matches!(end, End::Over) {
            self.outlive(&session).await;
        }
        session.tell_done();
        let closed = session.channel.close(200, "done".into());
        drop(tokio::time::timeout(FAREWELL, closed).await);
    }

    /// Waits until everything handed out has been settled, or cannot be settled any more.
    async fn outlive(&self, session: &Session) {
        let closed = &self.about.shared.closed;
        self.intake.close();
        while session.held() > 0 && session.is_open() {
            session.tell_done();
            let look_again = tokio::time::sleep_until(Instant::now() + NEGLECTED);
            tokio::select! {
                () = session.settled.notified() => {}
                () = closed.cancelled() => return,
                () = look_again => {}
            }
        }
    }
}
