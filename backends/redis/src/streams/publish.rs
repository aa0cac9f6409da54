//! Publishing: one script stores messages in order and says of each what became of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};
use tokio::time::Instant;
use trunkline_core::{Clock, Error, Result, Retry, SystemClock};
use trunkline_messaging::{Destination, Publish, Receipt, Routed};

use super::Core;
use super::lane::refused;
use crate::link::{Link, millis};
use crate::script::Script;
use crate::wire;

/// Messages, and bytes, that are published in one step.
pub(super) const AT_ONCE: usize = 200;
pub(super) const BYTES_AT_ONCE: usize = 1024 * 1024;

/// How long a publisher waits before it looks again whether there is room, at first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_millis(250);

/// A message as the script takes it.
pub(super) struct Outgoing {
    pub(super) id: String,
    pub(super) destination: Destination,
    mandatory: bool,
    delay: Duration,
    fields: Vec<Bytes>,
    size: usize,
}

impl Outgoing {
    pub(super) fn new(publish: Publish, largest: usize) -> Result<Self> {
        let mut message = publish.message;
        let size = message.size();
        if size > largest {
            return Err(Error::invalid(format!(
                "the message has {size} bytes, more than the {largest} of `max_message_size`"
            )));
        }
        let now = SystemClock.now();
        message.published_at.get_or_insert(now);
        let expires = publish.expires_in.map(|span| now.after(span));
        Ok(Self {
            fields: wire::fields(&message, expires)?,
            id: message.id,
            destination: publish.destination,
            mandatory: publish.mandatory,
            delay: publish.delay.unwrap_or_default(),
            size,
        })
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Adds it to a command, as `read_message` of the scripts reads it.
    pub(super) fn add(&self, command: &mut Cmd) {
        let kind = match self.destination {
            Destination::Topic(_) => "t",
            Destination::Queue(_) => "q",
        };
        command
            .arg(kind)
            .arg(self.destination.name().as_str())
            .arg(u8::from(self.mandatory))
            .arg(millis(self.delay))
            .arg(self.fields.len());
        for field in &self.fields {
            command.arg(field.as_ref());
        }
    }
}

/// What became of a message, in a word of the script, and its id.
pub(super) type Stored = (String, String);

/// Publishes one, with others that are published at the same time.
pub(super) async fn one(core: &Core, publish: Publish) -> Result<Receipt> {
    let largest = core.settings.config.max_message_size.as_usize();
    let deadline = crate::link::deadline(core.settings.config.request_timeout);
    let message = Arc::new(Outgoing::new(publish, largest)?);
    let mut pause = FIRST_LOOK;
    loop {
        let (word, id) = core.lane.send(core, &message, deadline).await?;
        if word != "FULL" {
            return receipt(&message, &word, &id);
        }
        let look = Instant::now() + pause;
        pause = (pause * 2).min(LAST_LOOK);
        if look >= deadline {
            tokio::time::sleep_until(deadline).await;
            return Err(full(core, &message));
        }
        tokio::select! {
            () = tokio::time::sleep_until(look) => {}
            () = core.closed.cancelled() => {}
        }
    }
}

/// Publishes in order; one outcome each.
pub(super) async fn all(core: &Core, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
    let largest = core.settings.config.max_message_size.as_usize();
    let deadline = crate::link::deadline(core.settings.config.request_timeout);
    let mut outcomes: Vec<Option<Result<Receipt>>> = Vec::with_capacity(batch.len());
    let mut outgoing = Vec::with_capacity(batch.len());
    for (place, publish) in batch.into_iter().enumerate() {
        match Outgoing::new(publish, largest) {
            Ok(message) => {
                outgoing.push((place, message));
                outcomes.push(None);
            }
            Err(error) => outcomes.push(Some(Err(error))),
        }
    }
    let mut rest = outgoing.as_slice();
    let mut pause = FIRST_LOOK;
    while !rest.is_empty() {
        let (some, _) = rest.split_at(fitting(rest));
        match together(core, some, deadline).await {
            Ok(answers) => {
                let mut stored = 0;
                for ((place, message), (word, id)) in some.iter().zip(answers) {
                    if word == "FULL" {
                        break;
                    }
                    if let Some(outcome) = outcomes.get_mut(*place) {
                        *outcome = Some(receipt(message, &word, &id));
                    }
                    stored += 1;
                }
                rest = rest.get(stored..).unwrap_or_default();
                if stored == some.len() {
                    pause = FIRST_LOOK;
                    continue;
                }
                // The first of the rest finds no room, and those behind it wait with it.
                let look = Instant::now() + pause;
                pause = (pause * 2).min(LAST_LOOK);
                if look >= deadline {
                    tokio::time::sleep_until(deadline).await;
                    fail(&mut outcomes, rest, |message| full(core, message));
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep_until(look) => {}
                    () = core.closed.cancelled() => {}
                }
            }
            Err(error) => {
                // What was sent may be there; what was not sent yet is not.
                let (sent, unsent) = rest.split_at(some.len());
                let retry = match error.retry() {
                    Retry::IfIdempotent => Retry::Safe,
                    other => other,
                };
                let again = duplicates(error);
                fail(&mut outcomes, sent, |_| again(None));
                fail(&mut outcomes, unsent, |_| again(Some(retry)));
                break;
            }
        }
    }
    outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|| Err(crate::error::unexpected("a publish"))))
        .collect()
}

fn fail(
    outcomes: &mut [Option<Result<Receipt>>],
    which: &[(usize, Outgoing)],
    error: impl Fn(&Outgoing) -> Error,
) {
    for (place, message) in which {
        if let Some(outcome) = outcomes.get_mut(*place) {
            *outcome = Some(Err(error(message)));
        }
    }
}

/// How many go in one step.
fn fitting(rest: &[(usize, Outgoing)]) -> usize {
    let mut bytes = 0;
    let many = rest.iter().take(AT_ONCE).take_while(|(_, message)| {
        bytes += message.size;
        bytes <= BYTES_AT_ONCE
    });
    many.count().max(1)
}

/// The same error for several, each with another word on whether a retry is safe, where one is given.
pub(super) fn duplicates(error: Error) -> impl Fn(Option<Retry>) -> Error {
    let error = Arc::new(error);
    move |retry| {
        Error::new(error.kind(), error.message().to_owned())
            .with_retry(retry.unwrap_or(error.retry()))
            .with_source(Arc::clone(&error))
    }
}

async fn together(
    core: &Core,
    some: &[(usize, Outgoing)],
    deadline: Instant,
) -> Result<Vec<Stored>> {
    let link = core.connection().await?;
    let messages: Vec<&Outgoing> = some.iter().map(|(_, message)| message).collect();
    let stored = once(core, &link, &messages, true, deadline).await?;
    stored.into_iter().collect()
}

/// Stores messages in one step. With `in_order` one that finds no room stops those behind it, and one that is refused fails
/// them all.
pub(super) async fn once(
    core: &Core,
    link: &Link,
    messages: &[&Outgoing],
    in_order: bool,
    deadline: Instant,
) -> Result<Vec<Result<Stored>>> {
    let settings = &core.settings;
    let answer = link
        .run(Script::Publish, settings.prefix(), deadline, |command| {
            settings.limits(command);
            command.arg(u8::from(in_order)).arg(messages.len());
            for message in messages {
                message.add(command);
            }
        })
        .await
        .map_err(|failure| core.explain(failure))?;
    let answers = wire::list(answer)?.into_iter().map(|answer| {
        let mut parts = wire::list(answer)?.into_iter();
        let mut part = || wire::text(parts.next().unwrap_or(Value::Nil));
        let (word, id) = (part()?, part()?);
        if word == "ERR" {
            return Err(core.explain(link.answered(refused(id))));
        }
        Ok((word, id))
    });
    Ok(answers.collect())
}

fn receipt(message: &Outgoing, word: &str, id: &str) -> Result<Receipt> {
    let routed = match word {
        "Y" => Routed::Yes,
        "N" => Routed::No,
        "D" => Routed::Unknown,
        other => return Err(no_route(other, &message.destination)),
    };
    let mut receipt = Receipt::new(message.id.clone(), routed);
    receipt.position = wire::position(id);
    Ok(receipt)
}

/// Why a message was refused.
pub(super) fn no_route(word: &str, destination: &Destination) -> Error {
    match word {
        "NOQUEUE" => Error::not_found(format!("there is no {destination}")),
        "NOROUTE" => Error::not_found(format!("nobody subscribes to {destination}")),
        _ => crate::error::unexpected("a publish"),
    }
}

fn full(core: &Core, message: &Outgoing) -> Error {
    let most = core.settings.config.max_messages;
    let text = format!(
        "{} holds the {most} messages of `max_messages`",
        message.destination
    );
    Error::exhausted(text).with_retry(Retry::Safe)
}
