//! Payloads of older versions, made those of this one.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use trunkline_core::names::message_header as header;
use trunkline_core::{Error, Result};

use super::error::HandlerError;
use super::handler::Handled;
use super::incoming::Incoming;
use super::middleware::{Middleware, Next};
use crate::codec::{AnyCodec, Codec};
use crate::message::Message;

type Step = Arc<dyn Fn(Value) -> Result<Value> + Send + Sync>;

/// How payloads of older versions become those that a handler takes: one step from each version to the next.
///
/// Who publishes says the version ([`Outgoing::schema_version`](crate::Outgoing::schema_version)); a message that says none
/// is of version 1, as everything is that was written before there was a second. A message that no step leads to, or whose
/// version is newer than the handler's, is not guessed at: it becomes a dead letter at once, and can be replayed when the
/// handler knows it.
///
/// ```
/// use serde_json::{Value, json};
/// use trunkline_messaging::Upgrades;
///
/// // Version 2 split the name, version 3 made the age optional: nothing to do for those that have one.
/// let upgrades = Upgrades::to(3)
///     .step(1, |mut user: Value| {
///         let name = user["name"].as_str().unwrap_or_default().to_owned();
///         let (first, last) = name.split_once(' ').unwrap_or((name.as_str(), ""));
///         user["first"] = json!(first);
///         user["last"] = json!(last);
///         Ok(user)
///     })
///     .step(2, Ok);
/// # let _ = upgrades;
/// ```
#[derive(Clone)]
pub struct Upgrades {
    current: u32,
    /// That of version 1 first.
    steps: Vec<Option<Step>>,
    wrong: Option<u32>,
    accepts_newer: bool,
}

impl fmt::Debug for Upgrades {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrades")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl Upgrades {
    /// The most versions that steps are kept for.
    const MOST: u32 = 10_000;

    /// To the version that the handler takes; the first one is 1.
    #[must_use]
    pub fn to(version: u32) -> Self {
        Self {
            current: version,
            steps: Vec::new(),
            wrong: (version == 0 || version > Self::MOST).then_some(version),
            accepts_newer: false,
        }
    }

    /// How a payload of one version becomes one of the next.
    #[must_use]
    pub fn step(
        mut self,
        from: u32,
        step: impl Fn(Value) -> Result<Value> + Send + Sync + 'static,
    ) -> Self {
        let at = usize::try_from(from).unwrap_or(usize::MAX).wrapping_sub(1);
        if from == 0 || from >= self.current || from > Self::MOST {
            self.wrong = Some(from);
            return self;
        }
        if self.steps.len() <= at {
            self.steps.resize(at + 1, None);
        }
        if let Some(place) = self.steps.get_mut(at) {
            *place = Some(Arc::new(step));
        }
        self
    }

    /// Gives the handler payloads of newer versions as they are, where versions only ever add.
    #[must_use]
    pub fn accept_newer(mut self) -> Self {
        self.accepts_newer = true;
        self
    }

    /// # Errors
    /// `Config` for a step that leads nowhere, or one that is missing between others.
    pub(super) fn checked(self) -> Result<Self> {
        if let Some(version) = self.wrong {
            return Err(Error::config(format!(
                "no step begins at version {version} where the handler takes version {}: versions count from 1 to {}",
                self.current,
                Self::MOST
            )));
        }
        let first = self.steps.iter().position(Option::is_some);
        let expected = usize::try_from(self.current).unwrap_or(usize::MAX) - 1;
        let missing = match first {
            None => None,
            Some(first) => {
                (first..expected).find(|at| !matches!(self.steps.get(*at), Some(Some(_))))
            }
        };
        match missing {
            Some(at) => Err(Error::config(format!(
                "there is no step from version {} to version {}",
                at + 1,
                at + 2
            ))),
            None => Ok(self),
        }
    }

    /// The message as the handler takes it; `None` where it is so already.
    fn upgraded(&self, message: &Message) -> Result<Option<Message>> {
        let version = version_of(message)?;
        if version == self.current || (version > self.current && self.accepts_newer) {
            return Ok(None);
        }
        let unknown = || {
            Error::invalid(format!(
                "the message is of version {version}, and no step leads from it to version {}",
                self.current
            ))
        };
        let codec = AnyCodec::of(message.content_type.as_deref())?;
        let begin = usize::try_from(version).unwrap_or(usize::MAX) - 1;
        let steps = self.steps.get(begin..).filter(|steps| !steps.is_empty());
        let steps = steps
            .filter(|_| version < self.current)
            .ok_or_else(unknown)?;
        let mut value: Value = codec.decode(&message.payload)?;
        for (from, step) in (version..).zip(steps) {
            let step = step.as_ref().ok_or_else(unknown)?;
            value = step(value).map_err(|error| {
                error.with_context("upgrade", format!("from version {from} to {}", from + 1))
            })?;
        }
        let mut upgraded = message.clone();
        upgraded.payload = codec.encode(&value)?;
        upgraded
            .headers
            .insert(header::SCHEMA_VERSION, self.current.to_string());
        Ok(Some(upgraded))
    }
}

fn version_of(message: &Message) -> Result<u32> {
    let Some(text) = message.headers.get(header::SCHEMA_VERSION) else {
        return Ok(1);
    };
    let version = text.parse().ok().filter(|version| *version > 0);
    version.ok_or_else(|| {
        Error::invalid("the message's version is no whole number from 1 on")
            .with_context(header::SCHEMA_VERSION, text)
    })
}

impl Middleware for Upgrades {
    async fn handle(&self, incoming: Incoming, next: Next<'_>) -> Result<Handled, HandlerError> {
        let upgraded = self.upgraded(incoming.message());
        let upgraded = upgraded.map_err(|error| HandlerError::Undecodable { error })?;
        let incoming = match upgraded {
            Some(message) => incoming.with_message(message),
            None => incoming,
        };
        next.run(incoming).await
    }
}
