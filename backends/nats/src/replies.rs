//! Requests: who waits for which answer.
//!
//! One inbox for all requests of a client. The driver has the like, but remembers every request until its answer comes, and
//! some never come: those that a lost connection took along, and with core NATS all that have been received.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Client, HeaderMap, Message as Raw, PublishErrorKind, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use trunkline_core::{Error, Origin, Result, Retry};

use crate::error::lost;

type Waiting = HashMap<u64, oneshot::Sender<Raw>>;

/// The requests of one client.
#[derive(Debug)]
pub(crate) struct Replies {
    inbox: String,
    last: AtomicU64,
    waiting: Mutex<Waiting>,
    /// Which connection there is; 0 for none.
    generation: AtomicU64,
}

impl Replies {
    /// Opens the inbox. What arrives there is handed on by [`Replies::hand_on`].
    pub(crate) async fn open(client: &Client) -> Result<(Arc<Self>, Subscriber)> {
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(format!("{inbox}.*")).await;
        let subscriber = subscriber.map_err(|error| {
            Error::unavailable("no inbox for answers")
                .with_retry(Retry::Safe)
                .with_source(error)
        })?;
        let replies = Self {
            inbox,
            last: AtomicU64::new(0),
            waiting: Mutex::default(),
            generation: AtomicU64::new(0),
        };
        Ok((Arc::new(replies), subscriber))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is another connection, or none (0): what was asked on the one before gets no answer any more.
    pub(crate) fn renew(&self, generation: u64) {
        let mut waiting = self.waiting();
        self.generation.store(generation, Ordering::Release);
        let over = std::mem::take(&mut *waiting);
        drop(waiting);
        // Dropped without the lock: who waits is woken.
        drop(over);
    }

    /// Hands answers to who waits for them, until the client ends.
    pub(crate) async fn hand_on(self: Arc<Self>, mut answers: Subscriber, stop: CancellationToken) {
        loop {
            let answer = tokio::select! {
                () = stop.cancelled() => return,
                answer = answers.next() => answer,
            };
            let Some(answer) = answer else { return };
            let token = answer
                .subject
                .rsplit('.')
                .next()
                .and_then(|token| token.parse().ok());
            let asker = token.and_then(|token: u64| self.waiting().remove(&token));
            if let Some(asker) = asker {
                // Who asked may have left.
                drop(asker.send(answer));
            }
        }
    }

    /// Sends a request; returns once it is behind all that were sent before, with the answer to come.
    pub(crate) async fn send(
        self: &Arc<Self>,
        client: &Client,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Answer> {
        let token = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(token, sender);
        let answer = Answer {
            receiver,
            token,
            replies: Arc::clone(self),
        };
        let reply = format!("{}.{token}", self.inbox);
        let sent = match headers {
            Some(headers) => {
                client
                    .publish_with_reply_and_headers(subject, reply, headers, payload)
                    .await
            }
            None => client.publish_with_reply(subject, reply, payload).await,
        };
        sent.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Error::invalid(format!(
                "the message with its headers is larger than the server takes ({} bytes)",
                client.max_payload()
            )),
            PublishErrorKind::InvalidSubject => Error::invalid(error.to_string()),
            // The client is gone: nothing was sent.
            PublishErrorKind::Send => Error::unavailable("the connection was lost")
                .with_retry(Retry::Safe)
                .with_source(error),
        })?;
        Ok(answer)
    }

    /// Requests that are waited for.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.waiting().len()
    }
}

/// An answer to come.
#[derive(Debug)]
pub(crate) struct Answer {
    receiver: oneshot::Receiver<Raw>,
    token: u64,
    replies: Arc<Replies>,
}

impl Answer {
    /// Whether that connection is gone by now. When it goes later, [`Self::get`] ends.
    pub(crate) fn is_late(&self, generation: u64) -> bool {
        self.replies.generation.load(Ordering::Acquire) != generation
    }

    /// Waits for it; cancel safe.
    pub(crate) async fn get(&mut self) -> Result<Raw> {
        match (&mut self.receiver).await {
            Ok(raw) if raw.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(Error::not_found("nobody listens there")
                    .with_retry(Retry::Safe)
                    .with_origin(Origin::Remote))
            }
            Ok(raw) => Ok(raw),
            // The connection is gone, or the client and its inbox with it.
            Err(_) => Err(lost()),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.replies.waiting().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_nobody_waits_for_is_forgotten() {
        let replies = Arc::new(Replies {
            inbox: "i".to_owned(),
            last: AtomicU64::new(0),
            waiting: Mutex::default(),
            generation: AtomicU64::new(0),
        });
        let (sender, receiver) = oneshot::channel();
        replies.waiting().insert(7, sender);
        let answer = Answer {
            receiver,
            token: 7,
            replies: Arc::clone(&replies),
        };
        assert_eq!(replies.len(), 1);
        drop(answer);
        assert_eq!(replies.len(), 0);
    }

    #[tokio::test]
    async fn what_was_asked_on_a_connection_that_is_gone_gets_no_answer() {
        let replies = Arc::new(Replies {
            inbox: "i".to_owned(),
            last: AtomicU64::new(0),
            waiting: Mutex::default(),
            generation: AtomicU64::new(1),
        });
        let (sender, receiver) = oneshot::channel();
        replies.waiting().insert(7, sender);
        let mut answer = Answer {
            receiver,
            token: 7,
            replies: Arc::clone(&replies),
        };
        assert!(!answer.is_late(1));
        replies.renew(2);
        assert!(answer.is_late(1));
        assert_eq!(answer.get().await.unwrap_err().kind(), lost().kind());
        assert_eq!(replies.len(), 0);
    }
}
