//! The task of one subscription: it keeps the consumer on the server, and asks it for messages when they are wanted.
//!
//! What the server promises about a pull ends with the connection it came on, with the server, and with the consumer, and it
//! need not say so. So every pull asks for heartbeats, and one that falls silent is dropped with its inbox and asked again;
//! before that the consumer is looked after, and made again if it is gone. Between pulls the server is asked now and then
//! whether the consumer is still there.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message as Raw, StatusCode, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::{ErrorKind, Timestamp};
use trunkline_messaging::{DeliveryInfo, SubscriptionState};

use super::api::{Api, is};
use super::inlet::{Demand, Fetched, Inlet};
use super::ledger::{Ledger, Token, Word};
use super::pace::Pace;
use super::topology::{self, Mark, Place, SLACK};
use crate::error::code;
use crate::link::{Link, LinkState, Up};
use crate::names::Names;
use crate::wire;

/// A pull ends after this, and is asked again. Short, because it cannot be taken back: whoever stops waits for its end, so
/// that nothing is sent to an inbox that is gone, where it would wait for the end of its lease.
const PULL_LASTS: Duration = Duration::from_secs(1);
/// How often the server says that it still has a pull.
const HEARTBEAT: Duration = Duration::from_millis(400);
/// A pull that neither brings something nor ends is given up after so much silence.
const SILENCE: Duration = Duration::from_secs(5);
/// How often the server is asked for the consumer.
const LOOK: Duration = Duration::from_secs(10);
/// After a failure, until the next attempt.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a message may lie here that another member could have.
const IDLE: Duration = Duration::from_millis(500);
/// How long a subscription that ends waits for the end of its pull.
const LINGER: Duration = Duration::from_secs(2);

/// What a subscription's task works with.
pub(crate) struct Pump {
    pub(crate) api: Api,
    pub(crate) link: Arc<Link>,
    pub(crate) names: Names,
    pub(crate) place: Place,
    pub(crate) group: Option<String>,
    pub(crate) lease: Duration,
    pub(crate) inlet: Arc<Inlet>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) state: watch::Sender<SubscriptionState>,
    pub(crate) stop: CancellationToken,
}

/// A pull, or several that follow each other, on one inbox.
struct Session {
    inbox: String,
    subscriber: Subscriber,
    /// Asked for and not come yet.
    outstanding: u32,
    heard: Instant,
    pulled: Instant,
}

/// Why a session ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The subscription, or the broker.
    Over,
    /// The connection.
    Lost,
    /// The pull, or the consumer; why.
    Broken(String),
}

impl Pump {
    /// Runs until the subscription is dropped or the broker disconnected.
    pub(crate) async fn run(self) {
        let mut mark = Mark::default();
        let mut links = self.link.state();
        while !self.is_over() {
            let up = match &*links.borrow_and_update() {
                LinkState::Up(up) => Some(up.clone()),
                LinkState::Closed => break,
                LinkState::Idle | LinkState::Down(_) => None,
            };
            let Some(up) = up else {
                self.detached(self.link.down().to_string());
                self.pause(&mut links, None).await;
                continue;
            };
            if let Err(reason) = self.attach(&up, &mut mark).await {
                self.detached(reason);
                self.pause(&mut links, Some(PAUSE)).await;
                continue;
            }
            self.state.send_replace(SubscriptionState::Attached);
            match self.serve(&up, &mut mark).await {
                End::Over => break,
                End::Lost => {}
                End::Broken(reason) => {
                    tracing::warn!(
                        target: "trunkline", broker = "nats", stream = self.place.stream,
                        consumer = self.place.consumer, reason, "fetching is begun anew"
                    );
                    self.detached(reason);
                    // What ends at once every time must not be asked for without a breath.
                    self.pause(&mut links, Some(PAUSE)).await;
                }
            }
        }
        self.farewell().await;
    }

    fn is_over(&self) -> bool {
        self.stop.is_cancelled() || self.inlet.demand().dropped
    }

    fn detached(&self, reason: String) {
        self.state.send_if_modified(|state| {
            let next = SubscriptionState::Detached { reason };
            let other = *state != next && *state != SubscriptionState::Closed;
            if other {
                *state = next;
            }
            other
        });
    }

    /// Waits for another connection, the end, or a while.
    async fn pause(&self, links: &mut watch::Receiver<LinkState>, at_most: Option<Duration>) {
        let later = async {
            match at_most {
                Some(span) => tokio::time::sleep(span.mul_f64(0.75 + fastrand::f64() / 2.0)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.inlet.changed.notified() => {}
            // An error: the link is gone, which the next look sees.
            _ = links.changed() => {}
            () = later => {}
        }
    }

    async fn attach(&self, up: &Up, mark: &mut Mark) -> Result<(), String> {
        let deadline = Instant::now() + self.link.config().request_timeout;
        let settings = self.link.config();
        let attach = topology::attach(
            &self.api,
            up,
            deadline,
            settings,
            &self.names,
            &self.place,
            mark,
        );
        tokio::select! {
            attached = attach => attached.map_err(|error| error.report().to_string()),
            () = self.stop.cancelled() => Err("the broker is being disconnected".to_owned()),
        }
    }

    /// Fetches on one connection until something ends it.
    async fn serve(&self, up: &Up, mark: &mut Mark) -> End {
        let inbox = up.client.new_inbox();
        let subscriber = match up.client.subscribe(inbox.clone()).await {
            Ok(subscriber) => subscriber,
            Err(error) => {
                tokio::time::sleep(PAUSE).await;
                return End::Broken(format!("no inbox: {error}"));
            }
        };
        let now = Instant::now();
        let mut session = Session {
            inbox,
            subscriber,
            outstanding: 0,
            heard: now,
            pulled: now,
        };
        let mut pace = Pace::new();
        let end = self.fetch(up, mark, &mut session, &mut pace).await;
        if end == End::Over {
            self.linger(up, &mut session).await;
        }
        self.drain(&mut session);
        end
    }

    async fn fetch(&self, up: &Up, mark: &mut Mark, session: &mut Session, pace: &mut Pace) -> End {
        let mut look = Instant::now() + LOOK;
        loop {
            let demand = self.inlet.demand();
            if demand.dropped || self.stop.is_cancelled() {
                return End::Over;
            }
            self.give_back(&demand, session, pace);
            if let Err(end) = self.pull(up, session, pace).await {
                return end;
            }
            let now = Instant::now();
            let mut next = look;
            if session.outstanding > 0 {
                next = next.min(session.heard + SILENCE);
            }
            if let Some(oldest) = self.inlet.demand().oldest {
                next = next.min((oldest + self.patience()).max(now + IDLE / 10));
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return End::Over,
                () = self.link.lost(up.generation) => return End::Lost,
                raw = session.subscriber.next() => {
                    let Some(raw) = raw else { return End::Lost };
                    session.heard = Instant::now();
                    if let Some(end) = self.arrived(raw, session) {
                        return end;
                    }
                    // What else has come is taken at once.
                    while let Some(Some(raw)) = session.subscriber.next().now_or_never() {
                        if let Some(end) = self.arrived(raw, session) {
                            return end;
                        }
                    }
                }
                () = self.inlet.changed.notified() => {}
                () = tokio::time::sleep_until(next) => {
                    let now = Instant::now();
                    if session.outstanding > 0 && now >= session.heard + SILENCE {
                        return End::Broken("the server fell silent: no heartbeat of a pull".to_owned());
                    }
                    if now >= look {
                        if let Some(end) = self.look(up, mark).await {
                            return end;
                        }
                        look = Instant::now() + LOOK.mul_f64(0.75 + fastrand::f64() / 2.0);
                    }
                }
            }
        }
    }

    /// How long a message may wait here to be taken.
    fn patience(&self) -> Duration {
        if self.place.shared {
            IDLE
        } else {
            // Nobody else could have it; it must only not run out.
            (self.lease / 2).max(IDLE)
        }
    }

    /// Gives back what nobody takes, once there is no pull that would get it again.
    fn give_back(&self, demand: &Demand, session: &Session, pace: &mut Pace) {
        let patience = self.patience();
        let now = Instant::now();
        let lies = demand.oldest.is_some_and(|oldest| now >= oldest + patience);
        let idle = demand.asked.is_none_or(|asked| now >= asked + patience);
        if lies && idle {
            pace.rest();
            if session.outstanding == 0 {
                self.return_all();
            }
        }
    }

    fn return_all(&self) {
        for fetched in self.inlet.take_back() {
            self.ledger.untried.note(&fetched.token);
            self.ledger.tell(fetched.token.reply, Word::Nak(None));
        }
    }

    /// Asks for what is wanted, unless it is asked for already.
    async fn pull(&self, up: &Up, session: &mut Session, pace: &mut Pace) -> Result<(), End> {
        let demand = self.inlet.demand();
        let at_work = demand.waiting
            || (pace.stock() > 1
                && demand
                    .asked
                    .is_some_and(|asked| asked.elapsed() < IDLE / 10));
        let coming = demand.buffered + session.outstanding;
        if !at_work || coming * 2 > pace.stock() {
            return Ok(());
        }
        let now = Instant::now();
        let batch = (pace.stock() - coming).min(demand.free.saturating_sub(session.outstanding));
        if batch == 0 {
            return Ok(());
        }
        pace.asked(now, batch);
        let rest = format!(
            "CONSUMER.MSG.NEXT.{}.{}",
            self.place.stream, self.place.consumer
        );
        let body = json!({
            "batch": batch,
            "expires": nanos(PULL_LASTS),
            "idle_heartbeat": nanos(HEARTBEAT),
        });
        let asked = up
            .client
            .publish_with_reply(
                self.api.subject(&rest),
                session.inbox.clone(),
                body.to_string().into(),
            )
            .await;
        if let Err(error) = asked {
            tokio::time::sleep(PAUSE).await;
            return Err(End::Broken(format!("nothing can be asked for: {error}")));
        }
        session.outstanding += batch;
        (session.pulled, session.heard) = (now, now);
        Ok(())
    }

    /// Something has come: a message, or a word about the pull.
    fn arrived(&self, raw: Raw, session: &mut Session) -> Option<End> {
        let Some(status) = raw.status.filter(|status| *status != StatusCode::OK) else {
            session.outstanding = session.outstanding.saturating_sub(1);
            self.message(raw);
            return None;
        };
        let said = raw.description.unwrap_or_default();
        match status {
            StatusCode::IDLE_HEARTBEAT => None,
            StatusCode::TIMEOUT | StatusCode::NOT_FOUND => {
                let left = raw
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get("Nats-Pending-Messages"))
                    .and_then(|left| left.as_str().parse::<u32>().ok());
                let left = left.unwrap_or(session.outstanding);
                session.outstanding = session.outstanding.saturating_sub(left);
                None
            }
            // Deleted, moved, too many, shutting down: all of them end the pull.
            other => Some(End::Broken(format!(
                "the server ended a pull: {other} {said}"
            ))),
        }
    }

    fn message(&self, raw: Raw) {
        let Some(reply) = raw.reply else { return };
        let Some(origin) = Origin::parse(&reply) else {
            tracing::warn!(target: "trunkline", broker = "nats", subject = %raw.subject, "a message without a place was dropped");
            return;
        };
        let now = Instant::now();
        let patience = self.lease.saturating_add(SLACK);
        let token = Token {
            reply,
            stream: self.place.stream.as_str().into(),
            consumer: self.place.consumer.as_str().into(),
            position: origin.position,
            patience,
            server_until: now + patience,
        };
        let destination = self.names.destination(&raw.subject);
        let wanted = destination.as_ref().is_some_and(|destination| {
            self.place
                .pattern
                .as_ref()
                .is_none_or(|pattern| pattern.matches(destination.name()))
        });
        if destination.is_none() {
            tracing::warn!(
                target: "trunkline", broker = "nats", subject = %raw.subject, position = origin.position,
                "a message was passed over: its subject is no name of a topic"
            );
        }
        let Some(destination) = destination.filter(|_| wanted) else {
            // The server cannot tell these apart; for this consumer they are done.
            self.ledger.tell(token.reply, Word::Ack);
            self.inlet.changed.notify_one();
            return;
        };
        let id = || format!("{}-{}", self.place.stream, origin.position);
        let arrived = wire::decode(
            raw.headers.as_ref(),
            raw.payload,
            id,
            Some(origin.stored_at),
        );
        let attempt = self.ledger.untried.attempt(&token, origin.attempt);
        let info = DeliveryInfo::new(destination)
            .with_group(self.group.clone())
            .with_attempt(attempt)
            .at(origin.position);
        self.inlet.push(Fetched {
            message: arrived.message,
            info,
            expires: arrived.expires,
            token,
            at: now,
        });
    }

    /// Asks for the consumer.
    async fn look(&self, up: &Up, mark: &mut Mark) -> Option<End> {
        let deadline = Instant::now() + self.link.config().request_timeout;
        let asked = self
            .api
            .consumer(up, deadline, &self.place.stream, &self.place.consumer)
            .await;
        match asked {
            Ok(info) => {
                mark.note(&info);
                None
            }
            Err(error) if is(&error, &[code::CONSUMER_NOT_FOUND, code::STREAM_NOT_FOUND]) => {
                Some(End::Broken("the consumer is gone".to_owned()))
            }
            Err(error) if error.kind() == ErrorKind::Unavailable && self.link.now().is_none() => {
                Some(End::Lost)
            }
            Err(error) => Some(End::Broken(error.report().to_string())),
        }
    }

    /// Waits for the end of the pull, and for what it still brings. Nothing is given back before: the server would give it to
    /// this pull.
    async fn linger(&self, up: &Up, session: &mut Session) {
        let end = Instant::now() + LINGER;
        while session.outstanding > 0 {
            let raw = tokio::select! {
                biased;
                () = self.link.lost(up.generation) => return,
                raw = tokio::time::timeout_at(end, session.subscriber.next()) => raw,
            };
            let Ok(Some(raw)) = raw else { return };
            if self.arrived(raw, session).is_some() {
                return;
            }
        }
    }

    /// Takes what has come out of an inbox that is no longer used.
    fn drain(&self, session: &mut Session) {
        while let Some(Some(raw)) = session.subscriber.next().now_or_never() {
            if self.arrived(raw, session).is_some() {
                break;
            }
        }
    }

    /// Leaves nothing behind.
    async fn farewell(self) {
        self.return_all();
        if !self.place.shared
            && let Some(up) = self.link.now()
        {
            self.inlet.leave();
            let deadline = Instant::now() + Duration::from_secs(1);
            let (stream, consumer) = (&self.place.stream, &self.place.consumer);
            if let Err(error) = self
                .api
                .delete_consumer(&up, deadline, stream, consumer)
                .await
            {
                // It goes by itself when it has been idle for a while.
                tracing::debug!(target: "trunkline", broker = "nats", error = %error.report(), "a consumer was left behind");
            }
        }
        self.state.send_replace(SubscriptionState::Closed);
    }
}

/// What the subject says on which a message is settled.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    attempt: u32,
    position: u64,
    stored_at: Timestamp,
}

impl Origin {
    /// `$JS.ACK.<stream>.<consumer>.<attempt>.<position>.<delivery>.<nanos>.<pending>`, with domain and account behind `ACK`
    /// in newer servers, and a random part at the end.
    fn parse(reply: &str) -> Option<Self> {
        let parts: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let first = match parts.len() {
            7 => 2,
            9.. => 4,
            _ => return None,
        };
        let number = |at: usize| parts.get(first + at)?.parse::<u64>().ok();
        let micros = number(3)? / 1000;
        Some(Self {
            attempt: u32::try_from(number(0)?).unwrap_or(u32::MAX),
            position: number(1)?,
            stored_at: Timestamp::from_unix_micros(i64::try_from(micros).ok()?),
        })
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_message_is_read() {
        let expected = Origin {
            attempt: 2,
            position: 17,
            stored_at: Timestamp::from_unix_micros(1_700_000_000_000_000),
        };
        for reply in [
            "$JS.ACK.S.c.2.17.9.1700000000000000000.4",
            "$JS.ACK._.hash.S.c.2.17.9.1700000000000000000.4",
            "$JS.ACK.leaf.hash.S.c.2.17.9.1700000000000000000.4.rnd",
        ] {
            assert_eq!(Origin::parse(reply).as_ref(), Some(&expected), "{reply}");
        }
        for reply in ["", "_INBOX.a.b", "$JS.ACK.S.c.2", "$JS.ACK.S.c.x.17.9.1.4"] {
            assert_eq!(Origin::parse(reply), None, "{reply}");
        }
    }
}
