//! Messages that only their receivers can read, and of which they know who wrote them.
//!
//! Encryption hides the payload and authenticates it together with the topic or queue that it was published to and the
//! headers that were there then: id, key, content type, attributes of the event and your own. A signature covers the same and what is on the wire, hidden or
//! not. Both name their key, so that keys can be changed while messages are under way: new messages use the current key, and
//! whatever is in `keys` still opens and verifies.
//!
//! What cannot be verified is never handed to a handler: it is a dead letter at once, with [`Untrusted`] as its cause. A
//! repetition of a message that was genuine is genuine; an [inbox](crate::inbox) recognises it. Traces and what brokers add
//! are not covered.

mod config;
mod covered;
#[cfg(feature = "protection")]
mod encryption;
#[cfg(feature = "protection")]
mod keys;
#[cfg(not(feature = "protection"))]
#[path = "no_keys.rs"]
mod keys;
#[cfg(feature = "protection")]
mod signing;

pub use config::{
    EncryptionAlgorithm, EncryptionConfig, EncryptionKey, SignatureAlgorithm, SigningConfig,
    SigningKey,
};
pub(crate) use keys::Keys;

use trunkline_core::names::message_header as header;
use trunkline_core::{Error, ErrorKind, Retry};

use crate::message::Message;
use crate::topic::{Destination, TopicName, TopicPattern};

/// Whether this build can encrypt and sign: the feature `protection`.
pub const AVAILABLE: bool = cfg!(feature = "protection");

/// Why a message is not trusted: a cause of errors, and of dead letters with the reason `untrusted`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Untrusted {
    /// It is not signed and must be.
    #[error("it is not signed, which messages from there must be")]
    Unsigned,
    /// It is not encrypted and must be.
    #[error("it is not encrypted, which messages from there must be")]
    Unencrypted,
    /// It names a key that is not here.
    #[error("it names the {what} key `{key}`, which is not among the keys here")]
    UnknownKey {
        /// `encryption` or `signing`.
        what: &'static str,
        /// The key's id.
        key: String,
    },
    /// Payload, headers or destination are not what was written, or the key is another one of the same name.
    #[error(
        "its payload, a header or its destination was changed, or the key `{key}` is another one than its sender's"
    )]
    Tampered {
        /// The key's id.
        key: String,
    },
    /// A header that must be covered was added on the way.
    #[error("the header `{header}` is not covered: it was added on the way")]
    Uncovered {
        /// Its name.
        header: String,
    },
    /// The header that says how it is protected cannot be read.
    #[error("the header `{header}` cannot be read")]
    Malformed {
        /// Its name.
        header: &'static str,
    },
}

impl From<Untrusted> for Error {
    fn from(cause: Untrusted) -> Self {
        Self::new(ErrorKind::Unauthenticated, "the message is not trusted")
            .with_retry(Retry::Never)
            .with_source(cause)
    }
}

/// What a message must be, or is to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demands {
    pub(crate) encrypted: bool,
    pub(crate) signed: bool,
}

impl Demands {
    /// What a message says of itself: answers to it are to be no less.
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            encrypted: message.headers.contains(header::ENCRYPTION),
            signed: message.headers.contains(header::SIGNATURE),
        }
    }
}

/// Which destinations are meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope(Vec<TopicPattern>);

impl Scope {
    #[cfg_attr(
        not(feature = "protection"),
        allow(dead_code, reason = "nothing is scoped")
    )]
    fn new(patterns: &[String]) -> trunkline_core::Result<Self> {
        let patterns = patterns.iter().map(TopicPattern::new);
        patterns.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a destination is meant. One that is not known for sure is.
    #[cfg_attr(
        not(feature = "protection"),
        allow(dead_code, reason = "nothing is scoped")
    )]
    pub(crate) fn has(&self, destination: Option<&Destination>) -> bool {
        let Some(destination) = destination else {
            return true;
        };
        let name: &TopicName = destination.name();
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(name))
    }
}

/// The error of a message that is encrypted where there are no keys.
fn unopened(message: &Message) -> Error {
    let said = message.headers.get(header::ENCRYPTION).unwrap_or_default();
    let key = said.split(';').nth(1).unwrap_or_default().to_owned();
    let what = "encryption";
    Untrusted::UnknownKey { what, key }.into()
}

/// The error of a message that is to be protected where there are no keys.
fn no_key() -> Error {
    Error::config(
        "the message is to be protected, as what it answers was, and there are no keys here",
    )
}
