//! Handlers of messages, with everything that surrounds them done once for every broker.
//!
//! Of each message, from outside to inside: context and span → attempts counted → [inbox](crate::inbox) → circuit
//! breaker → timeout, while the lease is renewed → a panic caught → [middleware](Middleware) → decoding → handler. What
//! fails is tried again with growing waits; what keeps failing, or cannot be read, becomes a dead letter in the queue
//! `<group>.dlq`, which [`DeadLetters`](crate::DeadLetters) shows and replays.
//!
//! Each handler has a group, and so a copy of each message, of its own: one that fails repeats nothing for the others.

mod attempt;
mod consumer;
mod decide;
mod error;
mod extract;
mod give_up;
mod handler;
mod incoming;
mod intake;
mod lag;
mod listening;
mod middleware;
mod once;
mod subscribing;
mod upgrades;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_core::{Error, Lifecycle, Result};
use trunkline_resilience::breaker::Breaker;

use consumer::Consumer;
pub use error::HandlerError;
#[cfg(feature = "protobuf")]
pub use extract::ViaProtobuf;
pub use extract::{Attempt, Extract, Headers, MessageKey, ViaPart, ViaPayload};
pub use handler::{Handled, Handler, IntoAnswer, IntoOutcome};
pub use incoming::Incoming;
use intake::Intake;
use lag::LagWatch;
pub use listening::Listening;
pub use middleware::{AnyMiddleware, Middleware, Next};
use subscribing::Plan;
pub use subscribing::Subscribing;
pub use upgrades::Upgrades;

use crate::broker::MessageBroker;
use crate::capabilities::OrderingGuarantee;
use crate::dead_letters::names::{dead_letter_queue, retry_queue};
use crate::erased::AnyBroker;
use crate::publisher::Publisher;
use crate::subscription::Subscribe;
use crate::surroundings::Surroundings;
use crate::topic::{Destination, Source};
use crate::typed::Listen;

/// Brings messages to handlers. Clones are the same router; when the last one is dropped, its handlers finish what they
/// have and take nothing new.
///
/// ```
/// use trunkline_core::Context;
/// use trunkline_messaging::memory::MemoryBroker;
/// use trunkline_messaging::{HandlerError, MessageBroker, Publisher, Router, Topic};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct UserCreated { id: u64 }
/// const USER_CREATED: Topic<UserCreated> = Topic::new("user.created");
///
/// async fn send_welcome(event: UserCreated, context: Context) -> Result<(), HandlerError> {
///     println!("welcome {} ({})", event.id, context.correlation_id());
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let broker = MemoryBroker::default().erase();
/// broker.connect().await?;
/// let router = Router::new(broker.clone());
/// router.subscribe(USER_CREATED).group("mailer").max_attempts(5).handle(send_welcome).await?;
///
/// Publisher::new(broker).publish(USER_CREATED, &UserCreated { id: 7 }).await?;
/// # tokio::task::yield_now().await;
/// router.drain_all(tokio::time::Instant::now() + std::time::Duration::from_secs(5)).await;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Router(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    publisher: Publisher,
    handlers: Mutex<Handlers>,
}

impl Drop for Inner {
    /// Nobody is left who could drain it: handlers finish what they have and take nothing new.
    fn drop(&mut self) {
        for listening in &self.lock().listening {
            listening.scope().stop();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Handlers> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Handlers {
    listening: Vec<Listening>,
    drained: bool,
}

impl Router {
    /// A router with default settings; [`Messaging::builder`](crate::Messaging::builder) makes others.
    #[must_use]
    pub fn new(broker: AnyBroker) -> Self {
        Self::with_publisher(Publisher::in_surroundings(Surroundings::new(broker)))
    }

    pub(crate) fn with_publisher(publisher: Publisher) -> Self {
        let handlers = Mutex::default();
        Self(Arc::new(Inner {
            publisher,
            handlers,
        }))
    }

    fn around(&self) -> &Surroundings {
        self.0.publisher.around()
    }

    /// Begins a subscription: to a typed [`Topic`](crate::Topic) or [`Queue`](crate::Queue), a pattern, or text that is
    /// one.
    pub fn subscribe<S: Listen>(&self, source: S) -> Subscribing<'_, S::Payload> {
        Subscribing::new(self, source)
    }

    /// Every handler that was begun and not stopped.
    #[must_use]
    pub fn handlers(&self) -> Vec<Listening> {
        let mut handlers = self.0.lock();
        handlers.listening.retain(|one| !one.is_stopped());
        handlers.listening.clone()
    }

    /// Takes no new messages, lets running handlers finish until the deadline, and gives everything else back. Says how
    /// many tasks had to be ended by force. Publishing works on.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn drain_all(&self, deadline: Instant) -> usize {
        let listening = {
            let mut handlers = self.0.lock();
            handlers.drained = true;
            handlers.listening.clone()
        };
        let stopped = listening.iter().map(|one| one.stop(deadline));
        join_all(stopped).await.into_iter().sum()
    }

    async fn begin(&self, plan: Plan) -> Result<Listening> {
        let around = self.around();
        let group = plan.resolve_group(around.service.as_deref())?;
        check_capabilities(&plan, group.as_deref(), around)?;
        let listening = Listening::new(&plan, group.clone(), Scope::new());
        self.admit(&listening)?;
        let mut unfinished = Unfinished(Some(listening.clone()));
        self.attach(plan, group, &listening).await?;
        unfinished.0 = None;
        Ok(listening)
    }

    /// Makes sure that no other handler takes messages away from this one.
    fn admit(&self, new: &Listening) -> Result<()> {
        let mut handlers = self.0.lock();
        if handlers.drained {
            return Err(Error::cancelled("the router was drained"));
        }
        handlers.listening.retain(|one| !one.is_stopped());
        let rival = handlers.listening.iter().find(|one| one.competes_with(new));
        if let Some(rival) = rival {
            let (ours, theirs, source) = (new.name(), rival.name(), new.source());
            return Err(Error::config(match new.group() {
                Some(group) => format!(
                    "the handlers {theirs} and {ours} both subscribe to {source} as the group {group}, and would take \
                     messages away from each other; give each a group of its own"
                ),
                None => format!(
                    "the handlers {theirs} and {ours} both consume the {source}, and would take messages away from each \
                     other; for several at once set the concurrency of one"
                ),
            }));
        }
        handlers.listening.push(new.clone());
        Ok(())
    }

    async fn attach(&self, plan: Plan, group: Option<String>, listening: &Listening) -> Result<()> {
        let around = self.around().clone();
        let (capabilities, settings) = (&around.capabilities, &plan.settings);
        let owner = match (&plan.source, &group) {
            (Source::Queue(queue), _) => Some(queue.as_str().to_owned()),
            (Source::Topics(_), group) => group.clone(),
        };
        let dead_letters = match owner.as_deref().filter(|_| settings.dead_letters) {
            Some(owner) => Some(dead_letter_destination(owner, capabilities.queues)?),
            None => None,
        };
        let own_queue = match owner.as_deref().filter(|_| capabilities.queues) {
            Some(owner) => Some(retry_queue(owner, &plan.source)?),
            None => None,
        };
        let prefetch = u32::try_from(settings.concurrency).unwrap_or(u32::MAX);
        let prefetch = prefetch.max(settings.prefetch);
        let mut subscribe = Subscribe::source(plan.source.clone())
            .with_start(plan.start)
            .with_prefetch(prefetch)
            .with_lease(settings.lease);
        subscribe.group = group.clone();
        let main = around.broker.subscribe(subscribe.clone()).await?;
        let retries = match own_queue.clone().filter(|_| group.is_some()) {
            Some(queue) => {
                let subscribe = Subscribe::queue(queue)
                    .with_prefetch(prefetch)
                    .with_lease(settings.lease);
                Some(around.broker.subscribe(subscribe).await?)
            }
            None => None,
        };
        let label = listening.source().name();
        let metrics = around
            .metrics
            .group(label, group.as_deref().unwrap_or_default());
        let scope = listening.scope();
        scope.spawn(
            "subscription-state",
            listening.watch(main.state(), &around, metrics.clone()),
        );
        let waiting = LagWatch::of(listening, subscribe, &around, main.state(), metrics.clone());
        if let Some(waiting) = waiting {
            scope.spawn("subscription-lag", waiting.run());
        }
        if let Some(queue) = dead_letters.clone() {
            let declare = declare_patiently(around.broker.clone(), queue, scope.token());
            scope.spawn("declare-dead-letters", declare);
        }
        let lanes = capabilities.ordering == OrderingGuarantee::None && settings.concurrency > 1;
        let intake = Arc::new(Intake::new(main, retries, lanes));
        let workers = settings.concurrency;
        let consumer = Arc::new(Consumer {
            publisher: self.0.publisher.clone(),
            breaker: settings
                .circuit_breaker
                .map(|settings| Breaker::new(&*plan.name, settings)),
            settings: plan.settings,
            source: plan.source,
            group,
            name: plan.name,
            handler: plan.handler,
            middleware: plan.middleware,
            inbox: plan.inbox,
            dead_letters,
            retry_queue: own_queue,
            metrics,
            stop: scope.token(),
            around,
        });
        for _ in 0..workers {
            let work = Arc::clone(&consumer).work(Arc::clone(&intake));
            scope.spawn("message-worker", work);
        }
        Ok(())
    }
}

/// A subscription that began and is not attached yet. Dropped, because that failed or nobody waits for it any more, it
/// stands in nobody's way.
struct Unfinished(Option<Listening>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(listening) = &self.0 {
            listening.abandon();
        }
    }
}

impl Lifecycle for Router {
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    /// Waits until every subscription is attached.
    async fn ready(&self) -> Result<()> {
        for listening in self.handlers() {
            listening.attached().await?;
        }
        Ok(())
    }

    async fn drain(&self, deadline: Instant) -> Result<()> {
        let forced = self.drain_all(deadline).await;
        if forced > 0 {
            return Err(Error::timeout(format!(
                "{forced} handlers had not finished by the deadline; their messages were given back"
            )));
        }
        Ok(())
    }

    async fn shutdown(&self, deadline: Instant) -> Result<()> {
        self.drain(deadline).await
    }
}

fn dead_letter_destination(owner: &str, queues: bool) -> Result<Destination> {
    let name = dead_letter_queue(owner)?;
    Ok(match queues {
        true => Destination::Queue(name),
        false => Destination::Topic(name),
    })
}

fn check_capabilities(plan: &Plan, group: Option<&str>, around: &Surroundings) -> Result<()> {
    let (capabilities, kind) = (&around.capabilities, around.broker.kind());
    let (is_queue, is_wild) = match &plan.source {
        Source::Queue(_) => (true, false),
        Source::Topics(pattern) => (false, !pattern.is_exact()),
    };
    let is_new_start = plan.start != crate::subscription::Start::Latest;
    for (needed, has, what) in [
        (group.is_some(), capabilities.groups, "groups of consumers"),
        (is_queue, capabilities.queues, "queues"),
        (
            is_wild,
            capabilities.wildcards,
            "wildcards in subscriptions",
        ),
        (
            is_new_start,
            capabilities.replay,
            "starting at earlier messages",
        ),
    ] {
        if needed {
            capabilities.require(has, kind, what)?;
        }
    }
    Ok(())
}

/// Declares a queue, however long the broker is away.
async fn declare_patiently(
    broker: AnyBroker,
    queue: Destination,
    stop: tokio_util::sync::CancellationToken,
) {
    use trunkline_core::ErrorKind::{Cancelled, Invalid, Unsupported};
    let mut pause = std::time::Duration::from_millis(100);
    loop {
        let declared = tokio::select! {
            () = stop.cancelled() => return,
            declared = broker.declare(queue.clone()) => declared,
        };
        match declared {
            Ok(()) => return,
            Err(error) if matches!(error.kind(), Cancelled | Invalid | Unsupported) => {
                tracing::error!(
                    target: "trunkline",
                    queue = %queue,
                    error = %error.report(),
                    "the queue of dead letters cannot be declared"
                );
                return;
            }
            Err(error) => tracing::warn!(
                target: "trunkline",
                queue = %queue,
                error = %error.report(),
                "the queue of dead letters is not declared yet"
            ),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(std::time::Duration::from_secs(10));
    }
}
