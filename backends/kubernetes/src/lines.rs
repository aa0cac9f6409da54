//! The answer to a watch: one message a line, for as long as it lasts.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt as _;
use trunkline_core::{Error, Result};

use crate::message::Event;

/// Longest message that is read; a slice has a thousand endpoints at most.
const LONGEST: usize = 64 * 1024 * 1024;

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

pub(crate) struct Lines {
    pieces: Pieces,
    read: BytesMut,
    /// How much of what was read has no end of a line.
    looked: usize,
}

impl Lines {
    pub(crate) fn new(pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self {
            pieces: Box::pin(pieces),
            read: BytesMut::new(),
            looked: 0,
        }
    }

    /// The next message; nothing when the answer has ended. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            let unseen = self.read.get(self.looked..).unwrap_or_default();
            if let Some(end) = unseen.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(self.looked + end + 1);
                self.looked = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let message = serde_json::from_slice(&line).map_err(|error| {
                    Error::internal("a message of Kubernetes is not understood").with_source(error)
                })?;
                return Ok(Some(message));
            }
            self.looked = self.read.len();
            if self.read.len() > LONGEST {
                return Err(Error::internal("a message of Kubernetes is too long"));
            }
            match self.pieces.next().await {
                Some(piece) => self.read.extend_from_slice(&piece?),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn messages_are_read_however_they_are_cut() {
        let text =
            "{\"type\":\"ADDED\",\"object\":{}}\n\n{\"type\":\"BOOKMARK\",\"object\":{\"a\":1}}\n";
        for size in [1, 2, 7, 1000] {
            let pieces: Vec<_> = text
                .as_bytes()
                .chunks(size)
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect();
            let mut lines = Lines::new(stream::iter(pieces));
            assert_eq!(lines.next().await.unwrap().unwrap().what, "ADDED");
            assert_eq!(lines.next().await.unwrap().unwrap().object["a"], 1);
            assert!(lines.next().await.unwrap().is_none());
        }
        let mut odd = Lines::new(stream::iter([Ok(Bytes::from_static(b"<html>\n"))]));
        assert!(odd.next().await.is_err());
    }
}
