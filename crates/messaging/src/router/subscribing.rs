//! Putting a subscription together.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use trunkline_core::{Error, Result};
use trunkline_resilience::breaker::BreakerSettings;
use trunkline_resilience::retry::Schedule;

use super::handler::{self, AnyHandler, Handler, IntoAnswer, IntoOutcome};
use super::middleware::{AnyMiddleware, Middleware};
use super::upgrades::Upgrades;
use super::{Listening, Router};
use crate::inbox::AnyInbox;
use crate::policies::ConsumeSettings;
#[cfg(feature = "json-schema")]
use crate::schema::PayloadSchema;
use crate::schema::TopicSchemas;
use crate::subscription::Start;
use crate::topic::{Source, TopicName};
use crate::typed::Listen;

/// A subscription that is being put together; see [`Router::subscribe`]. `P` is what the source knows of its payload.
#[must_use = "nothing is subscribed before `handle` or `respond`"]
pub struct Subscribing<'a, P> {
    pub(super) router: &'a Router,
    pub(super) source: Result<Source>,
    pub(super) group: Membership,
    pub(super) start: Start,
    pub(super) settings: ConsumeSettings,
    pub(super) name: Option<Arc<str>>,
    pub(super) inbox: Option<AnyInbox>,
    pub(super) middleware: Vec<AnyMiddleware>,
    payload: PhantomData<fn(P)>,
}

/// Which group a subscription belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    /// That of the service.
    Service,
    Named(String),
    /// None: everything, as long as it is there.
    Alone,
}

impl<P> fmt::Debug for Subscribing<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribing")
            .field("source", &self.source)
            .field("group", &self.group)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<'a, P: 'static> Subscribing<'a, P> {
    pub(super) fn new<S: Listen<Payload = P>>(router: &'a Router, source: S) -> Self {
        let source = source.source();
        let around = router.around();
        let settings = source.as_ref().map_or_else(
            |_| ConsumeSettings::default(),
            |s| around.policies.consume(s),
        );
        Self {
            router,
            source,
            group: Membership::Service,
            start: Start::default(),
            settings,
            name: None,
            inbox: around.inbox.clone(),
            middleware: around.middleware.clone(),
            payload: PhantomData,
        }
    }

    /// Joins a group: its members share the messages, and the group collects them while none is there. Default: the
    /// name of the service. Handlers of one source need groups of their own, so that each has its own copy.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Membership::Named(group.into());
        self
    }

    /// Belongs to no group: gets every message as long as it is there, and none from before or after.
    pub fn alone(mut self) -> Self {
        self.group = Membership::Alone;
        self
    }

    /// Says where a new group begins.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Names the handler, as logs and dead letters show it. Default: the name of the function.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how many attempts are made before a message is a dead letter.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.max_attempts = attempts.max(1);
        self
    }

    /// Sets how many consumers beyond the attempts may end with the message unsettled before it is a dead letter.
    pub fn max_crashes(mut self, crashes: u32) -> Self {
        self.settings.max_crashes = crashes;
        self
    }

    /// Sets how many failed attempts are repeated at once, before waits begin.
    pub fn immediate_retries(mut self, retries: u32) -> Self {
        self.settings.immediate_retries = retries;
        self
    }

    /// Sets the waits between attempts.
    pub fn backoff(mut self, schedule: Schedule) -> Self {
        self.settings.schedule = schedule;
        self
    }

    /// Waits the same span before every further attempt.
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        let schedule = &mut self.settings.schedule;
        (schedule.delay, schedule.max_delay) = (delay, delay);
        (schedule.backoff, schedule.jitter) = (1.0, false);
        self
    }

    /// Limits one attempt.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Sets how many messages are handled at once; those of one key always one after the other.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.settings.concurrency = messages.max(1);
        self
    }

    /// Sets how many unsettled messages may be held.
    pub fn prefetch(mut self, messages: u32) -> Self {
        self.settings.prefetch = messages;
        self
    }

    /// Sets how long the broker waits for a sign of life.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.max(Duration::from_millis(10));
        self
    }

    /// Drops messages that keep failing, logged and counted, instead of keeping them as dead letters.
    pub fn without_dead_letters(mut self) -> Self {
        self.settings.dead_letters = false;
        self
    }

    /// Lets the deadline of a message bound its handler.
    pub fn honour_deadline(mut self) -> Self {
        self.settings.honour_deadline = true;
        self
    }

    /// Pauses while the handler keeps failing.
    pub fn circuit_breaker(mut self, settings: BreakerSettings) -> Self {
        self.settings.circuit_breaker = Some(settings);
        self
    }

    /// Remembers handled messages in this inbox.
    pub fn inbox(mut self, inbox: AnyInbox) -> Self {
        self.inbox = Some(inbox);
        self
    }

    /// Does not recognise repetitions, because the handler does, or because they do no harm.
    pub fn without_inbox(mut self) -> Self {
        self.inbox = None;
        self
    }

    /// Adds middleware, inside of what is there.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.middleware.push(AnyMiddleware::new(middleware));
        self
    }

    /// Gives the handler payloads alone that keep a JSON Schema, inside of all middleware there is so far; others are dead
    /// letters at once. With [`upgrades`](Self::upgrades) before it, payloads are checked as the handler takes them.
    #[cfg(feature = "json-schema")]
    pub fn schema(self, schema: PayloadSchema) -> Self {
        self.middleware(schema)
    }

    /// Makes payloads of older versions what the handler takes, inside of all middleware there is so far. A mistake in the
    /// steps fails when it begins.
    pub fn upgrades(mut self, upgrades: Upgrades) -> Self {
        match upgrades.checked() {
            Ok(upgrades) => self.middleware(upgrades),
            Err(error) => {
                self.source = self.source.and(Err(error));
                self
            }
        }
    }

    /// Replaces all settings.
    pub fn settings(mut self, settings: ConsumeSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Handles the messages. Returns when the broker knows of the subscription, or will be told as soon as it is there:
    /// see [`Listening::attached`].
    ///
    /// # Errors
    /// `Invalid` when a name is wrong; `Config` when the group is missing, or taken by another handler of this router;
    /// `Unsupported` when the broker cannot do what is asked; `Cancelled` when the router was drained.
    ///
    /// # Cancel safety
    /// When dropped, nothing is handled.
    pub async fn handle<Args, H>(self, handler: H) -> Result<Listening>
    where
        Args: 'static,
        H: Handler<P, Args>,
        H::Output: IntoOutcome,
    {
        let name = std::any::type_name::<H>();
        self.begin(handler::erase(handler), name).await
    }

    /// Answers the messages, which are requests: what the handler returns goes to whoever asked.
    ///
    /// # Errors
    /// As [`Subscribing::handle`].
    ///
    /// # Cancel safety
    /// As [`Subscribing::handle`].
    pub async fn respond<Args, H>(self, handler: H) -> Result<Listening>
    where
        Args: 'static,
        H: Handler<P, Args>,
        H::Output: IntoAnswer,
    {
        let name = std::any::type_name::<H>();
        self.begin(handler::erase_responder(handler), name).await
    }

    async fn begin(self, handler: AnyHandler, type_name: &str) -> Result<Listening> {
        let router = self.router.clone();
        let name = self.name.clone().unwrap_or_else(|| short(type_name).into());
        let source = self.source?;
        let mut middleware = self.middleware;
        if let Some(schemas) = TopicSchemas::of(&router.around().expected, &source) {
            middleware.push(AnyMiddleware::new(schemas));
        }
        let plan = Plan {
            source,
            group: self.group,
            start: self.start,
            settings: self.settings,
            name,
            inbox: self.inbox,
            middleware,
            handler,
        };
        router.begin(plan).await
    }
}

/// Everything that was asked for.
pub(super) struct Plan {
    pub(super) source: Source,
    pub(super) group: Membership,
    pub(super) start: Start,
    pub(super) settings: ConsumeSettings,
    pub(super) name: Arc<str>,
    pub(super) inbox: Option<AnyInbox>,
    pub(super) middleware: Vec<AnyMiddleware>,
    pub(super) handler: AnyHandler,
}

impl Plan {
    /// The group, checked.
    pub(super) fn resolve_group(&self, service: Option<&str>) -> Result<Option<String>> {
        if let Source::Queue(queue) = &self.source {
            return match &self.group {
                Membership::Named(group) => Err(Error::invalid(format!(
                    "the queue {queue} has no groups: all its consumers compete; leave the group `{group}` out"
                ))),
                Membership::Service | Membership::Alone => Ok(None),
            };
        }
        let group = match (&self.group, service) {
            (Membership::Alone, _) => return Ok(None),
            (Membership::Named(group), _) => group.clone(),
            (Membership::Service, Some(service)) => service.to_owned(),
            (Membership::Service, None) => {
                return Err(Error::config(format!(
                    "the handler {} of {} needs a group: name one with `group`, give the service a name, \
                     or say `alone` for a subscriber that gets only what comes while it is there",
                    self.name, self.source
                )));
            }
        };
        TopicName::new(&group)
            .map_err(|error| Error::invalid("the group's name is wrong").with_source(error))?;
        Ok(Some(group))
    }
}

/// The name of a function without its modules; of a closure, the function that it is in.
fn short(type_name: &str) -> &str {
    let path = type_name.split('<').next().unwrap_or(type_name);
    let mut parts = path.rsplit("::").filter(|part| !part.starts_with('{'));
    parts.next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn handlers_are_called_by_their_function() {
        assert_eq!(short("shop::mail::send_welcome"), "send_welcome");
        assert_eq!(short("shop::main::{{closure}}::{{closure}}"), "main");
        assert_eq!(short("shop::generic<alloc::string::String>"), "generic");
    }
}
