//! The answer to a watch: one message a line, for as long as it lasts.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt as _;
use trunkline_core::{Error, Result};

use crate::message::Watched;

/// Longest message that is read; etcd's own limit of a request is far below.
const LONGEST: usize = 64 * 1024 * 1024;

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

pub(crate) struct Lines {
    pieces: Pieces,
    read: BytesMut,
}

impl Lines {
    pub(crate) fn new(pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self {
            pieces: Box::pin(pieces),
            read: BytesMut::new(),
        }
    }

    /// The next message; nothing when the answer has ended. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Watched>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let message = serde_json::from_slice(&line).map_err(|error| {
                    Error::internal("a message of etcd is not understood").with_source(error)
                })?;
                return Ok(Some(message));
            }
            if self.read.len() > LONGEST {
                return Err(Error::internal("a message of etcd is too long"));
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
        let text = "{\"result\":{\"header\":{\"revision\":\"7\"},\"created\":true}}\n\n{\"result\":{\"canceled\":true,\"compact_revision\":\"3\"}}\n";
        for size in [1, 2, 7, 1000] {
            let pieces: Vec<_> = text
                .as_bytes()
                .chunks(size)
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect();
            let mut lines = Lines::new(stream::iter(pieces));
            let first = lines.next().await.unwrap().unwrap().result;
            assert!(first.created && first.header.revision == 7);
            let second = lines.next().await.unwrap().unwrap().result;
            assert!(second.canceled && second.compact_revision == 3);
            assert!(lines.next().await.unwrap().is_none());
        }
        let mut odd = Lines::new(stream::iter([Ok(Bytes::from_static(b"<html>\n"))]));
        assert!(odd.next().await.is_err());
    }
}
