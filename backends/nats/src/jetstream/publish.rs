//! Publishing, until the server has confirmed.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use trunkline_core::{Clock as _, Error, ErrorKind, Result, Retry, SystemClock, Timestamp};
use trunkline_messaging::{Capabilities, Destination, Message, Publish, Receipt, Routed};

use super::KIND;
use super::api::{self, Api, is};
use super::doubt::{self, Doubts, InDoubt};
use super::topology;
use crate::error::code;
use crate::link::Link;
use crate::names::Names;
use crate::replies::Answer;
use crate::wire;

/// Between two looks at a full stream, or at one that is still coming up.
const PAUSE: Duration = Duration::from_millis(50);

/// What publishes.
#[derive(Debug)]
pub(crate) struct Publisher {
    link: Arc<Link>,
    api: Api,
    names: Names,
    places: Semaphore,
    doubts: Arc<Doubts>,
}

/// A message that was sent, and waits for its confirm.
pub(crate) struct Sent<'a> {
    answer: Answer,
    generation: u64,
    _place: SemaphorePermit<'a>,
}

/// A message that is ready to be sent, again and again if need be.
pub(crate) struct Outgoing {
    /// By what the server recognises a repetition, and whether it may have it.
    doubt: InDoubt,
    message: Message,
    destination: Destination,
    subject: String,
    published_at: Timestamp,
    /// Milliseconds since 1970.
    expires: Option<i64>,
}

impl Outgoing {
    /// Written for each attempt, as most have one: the driver takes them, and a copy costs as much.
    fn headers(&self) -> HeaderMap {
        let mut headers = wire::encode(&self.message, self.published_at, self.expires);
        let id = HeaderValue::from(self.doubt.publish_id());
        headers.insert(wire::PUBLISH_ID.clone(), id);
        headers
    }
}

#[derive(Deserialize)]
struct Confirm {
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

impl Publisher {
    pub(crate) fn new(link: Arc<Link>, api: Api, names: Names) -> Self {
        let places = Semaphore::new(link.config().max_in_flight as usize);
        let window = link.config().duplicate_window;
        Self {
            link,
            api,
            names,
            places,
            doubts: Arc::new(Doubts::new(window)),
        }
    }

    /// Checks a message and writes it down.
    pub(crate) fn prepare(&self, publish: Publish, can: &Capabilities) -> Result<Outgoing> {
        if self.link.is_closed() {
            return Err(crate::error::closed());
        }
        can.require(publish.delay.is_none(), KIND, "delays")?;
        let topic = matches!(publish.destination, Destination::Topic(_));
        can.require(
            !(topic && publish.mandatory),
            KIND,
            "mandatory messages to topics",
        )?;
        let largest = can.max_message_size.unwrap_or(usize::MAX);
        let size = publish.message.size();
        if size > largest {
            return Err(Error::invalid(format!(
                "the message has {size} bytes and the broker takes {largest}"
            )));
        }
        let now = SystemClock.now();
        let expires = publish.expires_in.map(|span| now.after(span).unix_millis());
        let at = publish.message.published_at.unwrap_or(now);
        let subject = self.names.subject(&publish.destination);
        let key = doubt::key(&publish.message, &subject);
        let doubt = self.doubts.begin(key, &publish.message.id);
        Ok(Outgoing {
            doubt,
            message: publish.message,
            destination: publish.destination,
            subject,
            published_at: at,
            expires,
        })
    }

    /// Sends and waits for the confirm: for a connection, for room, for a stream that is still coming up.
    pub(crate) async fn send(&self, outgoing: &Outgoing, deadline: Instant) -> Result<Receipt> {
        let first = self.begin(outgoing, deadline).await?;
        self.finish(outgoing, deadline, first).await
    }

    /// Sends once; what is sent after this is stored after it.
    pub(crate) async fn begin(&self, outgoing: &Outgoing, deadline: Instant) -> Result<Sent<'_>> {
        let place = tokio::time::timeout_at(deadline, self.places.acquire()).await;
        let place = match place {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(crate::error::closed()),
            Err(_) => {
                let text = "too many publishes wait for their confirms";
                return Err(Error::new(ErrorKind::Exhausted, text).with_retry(Retry::Safe));
            }
        };
        let (answer, generation) = self.once(outgoing, deadline).await?;
        Ok(Sent {
            answer,
            generation,
            _place: place,
        })
    }

    async fn once(&self, outgoing: &Outgoing, deadline: Instant) -> Result<(Answer, u64)> {
        let up = self.link.ready(deadline).await?;
        outgoing.doubt.sent();
        let (subject, headers) = (outgoing.subject.clone(), outgoing.headers());
        let payload = outgoing.message.payload.clone();
        let sent = up.replies.send(&up.client, subject, Some(headers), payload);
        let late = || {
            Error::timeout("NATS did not take the message in time").with_retry(Retry::IfIdempotent)
        };
        let answer = tokio::time::timeout_at(deadline, sent)
            .await
            .map_err(|_| late())?;
        if answer
            .as_ref()
            .is_err_and(|error| error.retry() == Retry::Safe)
        {
            outgoing.doubt.refused();
        }
        Ok((answer?, up.generation))
    }

    /// Waits for the confirm, and sends again what was refused for now.
    pub(crate) async fn finish(
        &self,
        outgoing: &Outgoing,
        deadline: Instant,
        sent: Sent<'_>,
    ) -> Result<Receipt> {
        let Sent {
            mut answer,
            mut generation,
            _place,
        } = sent;
        let doubt = &outgoing.doubt;
        loop {
            let got = self.link.answer(generation, deadline, answer).await;
            let error = match got.and_then(|answer| api::read::<Confirm>(&answer.payload)) {
                Ok(confirm) => {
                    doubt.confirmed();
                    if confirm.duplicate {
                        tracing::debug!(target: "trunkline", broker = "nats", id = outgoing.message.id, "the server had it already");
                    }
                    return Ok(
                        Receipt::new(outgoing.message.id.clone(), Routed::Unknown).at(confirm.seq)
                    );
                }
                Err(error) => error,
            };
            let wait = match error.kind() {
                // No stream takes it.
                ErrorKind::NotFound if !is(&error, &[code::STREAM_NOT_FOUND]) => {
                    match self.find_stream(&outgoing.destination, deadline).await {
                        Ok(wait) => wait,
                        Err(error) => {
                            doubt.refused();
                            return Err(error);
                        }
                    }
                }
                // The server has said no, and may say yes later.
                ErrorKind::Exhausted | ErrorKind::Unavailable if error.retry() == Retry::Safe => {
                    true
                }
                _ => {
                    if error.retry() != Retry::IfIdempotent {
                        doubt.refused();
                    }
                    return Err(error);
                }
            };
            if wait && Instant::now() + PAUSE >= deadline {
                tokio::time::sleep_until(deadline).await;
                doubt.refused();
                return Err(error);
            }
            if wait {
                tokio::time::sleep(PAUSE).await;
            }
            (answer, generation) = self.once(outgoing, deadline).await?;
        }
    }

    /// Nobody took a message: makes the stream of topics, if it is missing. Says whether to wait a moment.
    async fn find_stream(&self, destination: &Destination, deadline: Instant) -> Result<bool> {
        let up = self.link.ready(deadline).await?;
        let stream = self.names.stream_of(destination);
        match self.api.stream(&up, deadline, &stream).await {
            // It is there, and does not listen yet.
            Ok(_) => Ok(true),
            Err(error) if is(&error, &[code::STREAM_NOT_FOUND]) => match destination {
                Destination::Topic(_) => {
                    let config = self.link.config();
                    topology::ensure_topics(&self.api, &up, deadline, config, &self.names).await?;
                    Ok(false)
                }
                Destination::Queue(queue) => {
                    Err(Error::not_found(format!("there is no queue `{queue}`"))
                        .with_retry(Retry::Never))
                }
            },
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(true),
            Err(error) => Err(error),
        }
    }
}
