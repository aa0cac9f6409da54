//! A message on its way to a handler.

use std::sync::Arc;

use trunkline_core::{Context, Metadata};

use crate::message::Message;
use crate::topic::Destination;

/// A message on its way to a handler, as middleware sees it and arguments are taken from it. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub(super) message: Arc<Message>,
    pub(super) about: Arc<About>,
    pub(super) attempt: u32,
    /// Attempts of those before this one that are to be taken for failed.
    pub(super) failures: u32,
    pub(super) context: Context,
}

/// What stays the same over all attempts.
#[derive(Debug)]
pub(super) struct About {
    pub(super) destination: Destination,
    /// Where it must have been published to, if it is signed or encrypted.
    pub(super) meant_for: Destination,
    pub(super) group: Option<String>,
    pub(super) handler: Arc<str>,
}

impl Incoming {
    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The message, shared.
    #[must_use]
    pub fn shared_message(&self) -> Arc<Message> {
        Arc::clone(&self.message)
    }

    /// Where it was published to first.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.about.destination
    }

    /// The group of the handler.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.about.group.as_deref()
    }

    /// The name of the handler.
    #[must_use]
    pub fn handler(&self) -> &str {
        &self.about.handler
    }

    /// 1 the first time.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The context that the handler runs in.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Replaces the context that the handler runs in.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// Replaces the message, as middleware does that opens or unpacks it.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Arc<Message>>) -> Self {
        self.message = message.into();
        self
    }

    /// An attempt failed, and the next is made right here.
    pub(super) fn fail(&mut self) {
        self.attempt = self.attempt.saturating_add(1);
        self.failures = self.failures.saturating_add(1);
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &Metadata {
        &self.message.headers
    }
}
