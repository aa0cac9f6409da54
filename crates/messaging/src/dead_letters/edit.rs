//! Mending dead letters.

use bytes::Bytes;
use trunkline_core::names::message_header as header;
use trunkline_core::{Error, Result};

use super::{DeadLetters, queue_of};
use crate::broker::MessageBroker;
use crate::codec::{AnyCodec, Codec};
use crate::compression;
use crate::message::{Message, Publish};
use crate::topic::Destination;

/// What is changed of a dead letter. Id, key, reason and attempts stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edit {
    /// Another payload.
    pub payload: Option<Bytes>,
    /// Another media type of the payload.
    pub content_type: Option<String>,
    /// Headers that are set.
    pub set: Vec<(String, String)>,
    /// Headers that are removed.
    pub removed: Vec<String>,
}

impl Edit {
    /// Replaces the payload.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Replaces the media type of the payload.
    #[must_use]
    pub fn with_content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Sets a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.set.push((name.into(), value.into()));
        self
    }

    /// Removes a header.
    #[must_use]
    pub fn without_header(mut self, name: impl Into<String>) -> Self {
        self.removed.push(name.into());
        self
    }

    fn apply(&self, message: &mut Message) -> Result<()> {
        if *self == Self::default() {
            return Err(Error::invalid("nothing is to be changed"));
        }
        // Whoever changes these without the keys makes of them what no handler may see.
        for (name, what) in [
            (header::SIGNATURE, "signed"),
            (header::ENCRYPTION, "encrypted"),
        ] {
            if message.headers.contains(name) {
                return Err(Error::invalid(format!(
                    "the message is {what}: changed, it would not be trusted; publish another one"
                )));
            }
        }
        let names = self.removed.iter().map(String::as_str);
        let mut names = names.chain(self.set.iter().map(|(name, _)| name.as_str()));
        if names.any(|name| name.eq_ignore_ascii_case(header::CONTENT_ENCODING)) {
            return Err(Error::invalid(
                "the header `content-encoding` says how the payload is compressed, and follows it; a new payload is stored \
                 as it is given",
            ));
        }
        if self.payload.is_some() {
            // The payload is in the message again, and as it can be read.
            message.headers.remove(header::CLAIM);
            message.headers.remove(header::CONTENT_ENCODING);
        }
        for name in self
            .removed
            .iter()
            .chain(self.set.iter().map(|(name, _)| name))
        {
            if is_ours(name) {
                return Err(Error::invalid(format!(
                    "the header `{name}` says what became of the message, and stays as it is"
                )));
            }
        }
        for name in &self.removed {
            message.headers.remove(name);
        }
        for (name, value) in &self.set {
            message.headers.insert(name.as_str(), value.as_str());
        }
        if let Some(content_type) = &self.content_type {
            message.content_type = Some(content_type.clone());
        }
        if let Some(payload) = &self.payload {
            message.payload = payload.clone();
        }
        // What lies elsewhere is not read here.
        if !message.headers.contains(header::CLAIM)
            && let Ok(AnyCodec::Json) = AnyCodec::of(message.content_type.as_deref())
        {
            let mut readable = message.clone();
            compression::decompress(None, &mut readable)?;
            AnyCodec::Json
                .decode::<serde::de::IgnoredAny>(&readable.payload)
                .map_err(|error| {
                    Error::invalid("the payload is to be JSON and is not").with_source(error)
                })?;
        }
        Ok(())
    }
}

/// Headers that the router writes of dead letters.
fn is_ours(name: &str) -> bool {
    let names = [
        header::ATTEMPTS,
        header::COPY,
        header::ORIGIN,
        header::REPLAYS,
    ];
    let starts = name
        .get(.."trunkline-dead-letter-".len())
        .is_some_and(|start| start.eq_ignore_ascii_case("trunkline-dead-letter-"));
    starts || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

impl DeadLetters {
    /// Changes a dead letter, so that it can be replayed with better luck. It goes behind the others, since it is stored anew;
    /// a crash in between leaves the old one beside it, under the same id. A new payload is stored as it is given, without
    /// the compression of the old one.
    ///
    /// # Errors
    /// `NotFound` when there is none at that position; `Invalid` when nothing is to be changed, the payload does not fit
    /// its media type, or the message is signed or encrypted; else as [`DeadLetters::list`].
    ///
    /// # Cancel safety
    /// When dropped, the old one may be left beside the new one.
    pub async fn edit(&self, owner: &str, position: u64, edit: &Edit) -> Result<()> {
        let queue = queue_of(owner)?;
        let mut message = self.show(owner, position).await?.message;
        edit.apply(&mut message)?;
        let publish = Publish::new(Destination::Queue(queue.clone()), message);
        self.broker
            .publish(publish)
            .await
            .map_err(|error| error.with_operation("edit"))?;
        self.broker.remove(queue, vec![position]).await?;
        Ok(())
    }
}
