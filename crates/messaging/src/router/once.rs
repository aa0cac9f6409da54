//! Handling a message once although it is delivered twice.

use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use trunkline_core::names::message_header as header;
use trunkline_core::{Error, ErrorKind};

use super::consumer::{Consumer, GiveBack};
use super::handler::Answer;
use super::incoming::Incoming;
use crate::codec::AnyCodec;
use crate::delivery::Delivery;
use crate::inbox::{Claim, ClaimRequest, ClaimToken, InboxStore};

/// What the inbox says.
pub(super) enum Leave {
    /// Handle it; then complete or release the claim, if there is one.
    Go(Option<ClaimToken>),
    /// It was handled before, with this answer.
    DoneBefore(Option<Answer>),
}

/// How long to wait before an inbox that does not answer is asked again.
const INBOX_PAUSE: Duration = Duration::from_secs(1);
/// How often completing is tried.
const COMPLETIONS: u32 = 3;

impl Consumer {
    /// Asks for leave to handle a message. Waits, with the message in hand, while another consumer handles it or the
    /// inbox does not answer.
    pub(super) async fn claim(
        &self,
        delivery: &Delivery,
        incoming: &Incoming,
    ) -> Result<Leave, GiveBack> {
        let Some(inbox) = &self.inbox else {
            return Ok(Leave::Go(None));
        };
        let id = &incoming.message.id;
        // An id that is made of what is in a message does not tell a repetition from another one that is equal, which must
        // not be dropped.
        if id.is_empty() || incoming.headers().contains(header::DERIVED_ID) {
            tracing::warn!(
                target: "trunkline",
                handler = &*self.name,
                id,
                "a message has no id of its sender's, so that a repetition of it cannot be recognised"
            );
            return Ok(Leave::Go(None));
        }
        let mut lost = pin!(self.keep_lease(delivery));
        loop {
            let request = ClaimRequest::new(self.scope(), id).with_lease(self.settings.lease);
            let claim = tokio::select! {
                biased;
                claim = inbox.claim(request) => claim,
                error = lost.as_mut() => {
                    self.log_lost(&error);
                    return Err(GiveBack);
                }
            };
            let pause = match claim {
                Ok(Claim::Granted(token)) => return Ok(Leave::Go(Some(token))),
                Ok(Claim::Done(result)) => return Ok(Leave::DoneBefore(read_answer(&result))),
                Ok(Claim::InProgress { retry_after }) => retry_after.min(INBOX_PAUSE),
                // No fingerprint is given, so there is nothing that could mismatch.
                Ok(Claim::Mismatch) => return Ok(Leave::Go(None)),
                Err(error) => {
                    self.log_inbox("asked", &error);
                    if error.kind() == ErrorKind::Cancelled {
                        return Err(GiveBack);
                    }
                    INBOX_PAUSE
                }
            };
            let pause = pause.max(Duration::from_millis(10));
            self.wait(pause, lost.as_mut()).await?;
        }
    }

    /// Records that a message was handled. When that fails the message is acknowledged all the same, as it was handled:
    /// only a repetition of it would not be recognised.
    pub(super) async fn complete(&self, claim: Option<&ClaimToken>, answer: Option<&Answer>) {
        let (Some(inbox), Some(claim)) = (&self.inbox, claim) else {
            return;
        };
        let result = write_answer(answer);
        for attempt in 1..=COMPLETIONS {
            let keep = self.settings.dedup_for;
            match inbox.complete(claim.clone(), result.clone(), keep).await {
                Ok(()) => return,
                Err(error) => {
                    self.log_inbox("told", &error);
                    if error.kind() == ErrorKind::Conflict {
                        return;
                    }
                }
            }
            tokio::time::sleep(INBOX_PAUSE / 10 * attempt).await;
        }
    }

    pub(super) async fn release(&self, claim: ClaimToken) {
        if let Some(inbox) = &self.inbox
            && let Err(error) = inbox.release(claim).await
        {
            self.log_inbox("told", &error);
        }
    }

    /// Renews a claim until it is lost; says why.
    pub(super) async fn keep_claim(&self, claim: Option<&ClaimToken>) -> Error {
        let (Some(inbox), Some(claim)) = (&self.inbox, claim) else {
            return std::future::pending().await;
        };
        let lease = self.settings.lease;
        loop {
            tokio::time::sleep(lease / 3).await;
            match inbox.extend(claim, lease).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Conflict => return error,
                Err(error) => self.log_inbox("told", &error),
            }
        }
    }

    /// Whose messages are remembered: those of a group under one pattern, or of a queue.
    fn scope(&self) -> String {
        match &self.group {
            Some(group) => format!("{group}/{}", self.source),
            None => self.source.to_string(),
        }
    }

    fn log_inbox(&self, what: &str, error: &Error) {
        tracing::warn!(
            target: "trunkline",
            handler = &*self.name,
            error = %error.report(),
            "the inbox could not be {what}"
        );
    }
}

const NO_ANSWER: u8 = 0;
const IN_JSON: u8 = 1;
const IN_MESSAGE_PACK: u8 = 2;

/// An answer as the inbox keeps it: its format, then itself.
fn write_answer(answer: Option<&Answer>) -> Bytes {
    let Some(answer) = answer else {
        return Bytes::from_static(&[NO_ANSWER]);
    };
    let mut bytes = BytesMut::with_capacity(answer.payload.len() + 1);
    bytes.put_u8(match answer.codec {
        AnyCodec::Json => IN_JSON,
        AnyCodec::MessagePack => IN_MESSAGE_PACK,
    });
    bytes.put_slice(&answer.payload);
    bytes.freeze()
}

fn read_answer(result: &Bytes) -> Option<Answer> {
    let codec = match *result.first()? {
        IN_JSON => AnyCodec::Json,
        IN_MESSAGE_PACK => AnyCodec::MessagePack,
        _ => return None,
    };
    let payload = result.slice(1..);
    Some(Answer { payload, codec })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        for codec in [AnyCodec::Json, AnyCodec::MessagePack] {
            let answer = Answer {
                payload: codec.encode(&7).unwrap(),
                codec,
            };
            let read = read_answer(&write_answer(Some(&answer))).unwrap();
            assert_eq!((read.payload, read.codec), (answer.payload, codec));
        }
        assert!(read_answer(&write_answer(None)).is_none());
        assert!(read_answer(&Bytes::new()).is_none());
    }
}
