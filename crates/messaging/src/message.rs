//! What is published, and what the broker says of it.

use std::time::Duration;

use bytes::Bytes;
use trunkline_core::{Id, Metadata, Timestamp};

use crate::topic::Destination;

/// A message as it travels: a plain payload with headers, readable by any client of the broker.
///
/// ```
/// use trunkline_messaging::Message;
///
/// let message = Message::new(r#"{"order":1}"#).with_key("customer-7").with_content_type("application/json");
/// assert_eq!(message.key_text(), Some("customer-7"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Unique; consumers recognise a repetition by it. A UUID version 7 unless set.
    pub id: String,
    /// The body.
    pub payload: Bytes,
    /// The body's media type.
    pub content_type: Option<String>,
    /// What keeps order: messages of one key are handled one after the other where the broker can.
    pub key: Option<Bytes>,
    /// Everything else.
    pub headers: Metadata,
    /// When it was first published; set by the broker where absent.
    pub published_at: Option<Timestamp>,
}

impl Message {
    /// A message with a new id.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self::recorded(Id::new().to_string(), payload)
    }

    /// A message that has an id already; for backends.
    #[must_use]
    pub fn recorded(id: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            id: id.into(),
            payload: payload.into(),
            content_type: None,
            key: None,
            headers: Metadata::new(),
            published_at: None,
        }
    }

    /// Replaces the id: a repetition of the same fact carries the same id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Names the body's media type.
    #[must_use]
    pub fn with_content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Sets the key that keeps order.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The key, if it is text.
    #[must_use]
    pub fn key_text(&self) -> Option<&str> {
        self.key
            .as_deref()
            .and_then(|key| std::str::from_utf8(key).ok())
    }

    /// Bytes of body, key and headers, as limits count them.
    #[must_use]
    pub fn size(&self) -> usize {
        let key = self.key.as_ref().map_or(0, Bytes::len);
        self.payload.len() + key + self.id.len() + self.headers.size()
    }
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publish {
    /// Where to.
    pub destination: Destination,
    /// What.
    pub message: Message,
    /// Deliver it no earlier than this from now. Needs the capability `delayed_publish`.
    pub delay: Option<Duration>,
    /// Do not deliver it later than this from now. Needs the capability `expiry`.
    pub expires_in: Option<Duration>,
    /// Fail with `NotFound` when nobody subscribes. Needs the capability `mandatory`. Always so for queues.
    pub mandatory: bool,
}

impl Publish {
    /// At once, to whoever listens.
    #[must_use]
    pub fn new(destination: Destination, message: Message) -> Self {
        let mandatory = matches!(destination, Destination::Queue(_));
        Self {
            destination,
            message,
            delay: None,
            expires_in: None,
            mandatory,
        }
    }

    /// Delivers it no earlier than this from now.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Does not deliver it later than this from now.
    #[must_use]
    pub fn with_expiry(mut self, expires_in: Duration) -> Self {
        self.expires_in = Some(expires_in);
        self
    }

    /// Makes it an error that nobody subscribes.
    #[must_use]
    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }
}

/// Whether a published message found somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Routed {
    /// At least one group or consumer gets it.
    Yes,
    /// Nobody subscribes; the broker may keep it for later subscribers all the same.
    No,
    /// This broker does not tell.
    Unknown,
}

/// The broker has the message, as durably as its capabilities say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The message's id.
    pub id: String,
    /// Whether it found somebody.
    pub routed: Routed,
    /// Its place in the broker's log, where there is one.
    pub position: Option<u64>,
}

impl Receipt {
    /// A confirmation.
    #[must_use]
    pub fn new(id: impl Into<String>, routed: Routed) -> Self {
        Self {
            id: id.into(),
            routed,
            position: None,
        }
    }

    /// Adds the place in the broker's log.
    #[must_use]
    pub fn at(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }
}
