//! A message on its way into the database.

use std::time::Duration;

use bytes::Bytes;
use trunkline_core::{Error, Result};
use trunkline_messaging::{Destination, Publish};

use super::limits::Limits;
use super::row;

/// A message to publish, checked and written down outside the writer thread.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) destination: Destination,
    pub(super) id: String,
    pub(super) key: Option<Bytes>,
    pub(super) head: Vec<u8>,
    pub(super) payload: Bytes,
    /// In microseconds.
    pub(super) delay: Option<i64>,
    pub(super) expires: Expiry,
    pub(super) mandatory: bool,
}

/// When a message is of no use any more.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expiry {
    Never,
    /// So many microseconds after it was published.
    In(i64),
    At(i64),
}

impl Expiry {
    pub(super) fn at(self, now: i64) -> Option<i64> {
        match self {
            Self::Never => None,
            Self::In(span) => Some(now.saturating_add(span)),
            Self::At(time) => Some(time),
        }
    }
}

impl Outgoing {
    pub(super) fn new(publish: Publish, now: i64, largest: usize) -> Result<Self> {
        let message = publish.message;
        let size = message.size();
        if size > largest {
            return Err(Error::invalid(format!(
                "the message has {size} bytes, and {largest} are allowed"
            ))
            .with_context("destination", &publish.destination));
        }
        Ok(Self {
            head: row::encode(&message, now),
            destination: publish.destination,
            id: message.id,
            key: message.key,
            payload: message.payload,
            delay: publish.delay.filter(|delay| !delay.is_zero()).map(micros),
            expires: publish
                .expires_in
                .map_or(Expiry::Never, |span| Expiry::In(micros(span))),
            mandatory: publish.mandatory,
        })
    }

    /// Refuses what would find no room in an empty topic either: it would wait for nothing.
    pub(super) fn fits(self, limits: &Limits) -> Result<Self> {
        let (size, most) = (self.size(), limits.bytes);
        if size <= most {
            return Ok(self);
        }
        Err(Error::invalid(format!(
            "the message takes {size} bytes, and a topic or queue holds {most} at most"
        ))
        .with_context("destination", &self.destination))
    }

    /// Bytes that it takes in its topic, as the limits count them.
    pub(super) fn size(&self) -> i64 {
        let key = self.key.as_ref().map_or(0, Bytes::len);
        i64::try_from(self.head.len() + self.payload.len() + key).unwrap_or(i64::MAX)
    }
}

/// A span of time in microseconds, as all times in the database are.
pub(super) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
