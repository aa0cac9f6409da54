//! The event bus of seed 003: events by name, one group for each service.

use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use trunkline_core::{Result, Timestamp};

use crate::codec::AnyCodec;
use crate::message::{Message, Receipt};
use crate::publisher::Publisher;
use crate::router::{
    Handled, Handler, HandlerError, Incoming, IntoOutcome, Listening, Middleware, Next, Router,
};
use crate::topic::TopicName;
use crate::typed::{To, Untyped};

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    /// The data itself, with CloudEvents headers.
    #[default]
    Plain,
    /// `{"eventName": …, "data": …, "timestamp": …}`, as services of seed 003 write it.
    Wrapped,
}

/// Publishes events by name and brings them to handlers. Both envelopes are understood when reading.
///
/// Handlers of one service share the group `<service>-events`; each pattern is subscribed to by itself, so that an
/// event nobody handles is not fetched, and a handler that fails repeats nothing for the others.
///
/// ```
/// use trunkline_messaging::memory::MemoryBroker;
/// use trunkline_messaging::{HandlerError, MessageBroker, Messaging};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let broker = MemoryBroker::default().erase();
/// broker.connect().await?;
/// let bus = Messaging::builder(broker).service("order-service").build().event_bus();
/// bus.on("user.*", |user: serde_json::Value| async move { Ok::<_, HandlerError>(println!("{user}")) }).await?;
/// bus.emit("user.created", &serde_json::json!({ "id": 7 })).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EventBus {
    publisher: Publisher,
    router: Router,
    envelope: Envelope,
}

impl EventBus {
    pub(crate) fn new(publisher: Publisher, router: Router) -> Self {
        Self {
            publisher,
            router,
            envelope: Envelope::default(),
        }
    }

    /// Chooses how events are written.
    #[must_use]
    pub fn with_envelope(mut self, envelope: Envelope) -> Self {
        self.envelope = envelope;
        self
    }

    /// Publishes an event.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// As [`Publisher::publish`].
    #[doc(alias = "publish")]
    pub fn emit<'a, T: Serialize + ?Sized>(
        &'a self,
        name: &str,
        data: &T,
    ) -> impl Future<Output = Result<Receipt>> + Send + use<'a, T> {
        let destination = To::<T>::destination(name);
        let at = self.publisher.around().clock.now();
        let written = match self.envelope {
            Envelope::Plain => serde_json::to_vec(data),
            Envelope::Wrapped => serde_json::to_vec(&Wrapped {
                event_name: name,
                data,
                timestamp: at,
            }),
        };
        async move {
            let written = written.map_err(|error| {
                trunkline_core::Error::invalid("the event cannot be written as JSON")
                    .with_source(error)
            })?;
            let outgoing = self.publisher.to::<(), _>(destination?);
            outgoing
                .send_bytes(written.into(), Some("application/json"))
                .await
        }
    }

    /// Handles the events under a pattern.
    ///
    /// # Errors
    /// As [`Subscribing::handle`](crate::Subscribing::handle). A second handler of the same pattern needs a name:
    /// [`EventBus::on_as`].
    ///
    /// # Cancel safety
    /// When dropped, nothing is handled.
    #[doc(alias = "subscribe")]
    pub async fn on<Args, H>(&self, pattern: &str, handler: H) -> Result<Listening>
    where
        Args: 'static,
        H: Handler<Untyped, Args>,
        H::Output: IntoOutcome,
    {
        self.begin(pattern, self.group(), handler).await
    }

    /// Handles the events under a pattern beside other handlers of it, with a copy of its own.
    ///
    /// # Errors
    /// As [`EventBus::on`].
    ///
    /// # Cancel safety
    /// As [`EventBus::on`].
    pub async fn on_as<Args, H>(&self, name: &str, pattern: &str, handler: H) -> Result<Listening>
    where
        Args: 'static,
        H: Handler<Untyped, Args>,
        H::Output: IntoOutcome,
    {
        let group = format!("{}.{name}", self.group());
        self.begin(pattern, group, handler).await
    }

    async fn begin<Args, H>(&self, pattern: &str, group: String, handler: H) -> Result<Listening>
    where
        Args: 'static,
        H: Handler<Untyped, Args>,
        H::Output: IntoOutcome,
    {
        let subscribing = self.router.subscribe(pattern).group(group);
        subscribing.middleware(Unwrap).handle(handler).await
    }

    fn group(&self) -> String {
        format!("{}-events", self.publisher.around().sender())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wrapped<'a, T: ?Sized> {
    event_name: &'a str,
    data: &'a T,
    timestamp: Timestamp,
}

/// What a wrapped event must consist of to be taken for one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Unwrapped<'a> {
    event_name: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(rename = "timestamp")]
    _timestamp: serde::de::IgnoredAny,
}

/// Gives handlers the data of a wrapped event.
struct Unwrap;

impl Middleware for Unwrap {
    async fn handle(&self, incoming: Incoming, next: Next<'_>) -> Result<Handled, HandlerError> {
        let incoming = match unwrapped(&incoming) {
            Some(message) => incoming.with_message(Arc::new(message)),
            None => incoming,
        };
        next.run(incoming).await
    }
}

fn unwrapped(incoming: &Incoming) -> Option<Message> {
    let message = incoming.message();
    let codec = AnyCodec::of(message.content_type.as_deref()).ok()?;
    if codec != AnyCodec::Json {
        return None;
    }
    let event: Unwrapped<'_> = serde_json::from_slice(&message.payload).ok()?;
    TopicName::new(&*event.event_name).ok()?;
    let data = event.data.get().to_owned();
    let mut plain = message.clone();
    plain.payload = data.into();
    Some(plain)
}
