//! Asking over messages and waiting for the answer.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, oneshot, watch};
use tokio::time::Instant;
use trunkline_core::names::message_header as header;
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, ErrorKind, Id, Origin, Result, Retry};

use crate::broker::MessageBroker;
use crate::codec::{AnyCodec, Codec};
use crate::message::{Message, Receipt, Routed};
use crate::publisher::{Outgoing, Publisher, duplicate};
use crate::subscription::{Subscribe, Subscription, SubscriptionState};
use crate::topic::{Destination, TopicName};
use crate::typed::To;
use crate::wire::Wire;

/// Requests under way at most.
const MOST_WAITING: usize = 10_000;

/// Asks over messages. Each requester has one address for answers, made when it first asks; clones share it.
///
/// A question goes to a [`Queue`](crate::Queue) or a topic whose handler was begun with
/// [`respond`](crate::Subscribing::respond). An answer that comes too late, or a second one, is counted and dropped.
///
/// ```
/// use trunkline_messaging::memory::MemoryBroker;
/// use trunkline_messaging::{HandlerError, MessageBroker, Messaging, Queue};
///
/// const DOUBLE: Queue<u64> = Queue::new("double");
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let broker = MemoryBroker::default().erase();
/// broker.connect().await?;
/// let messaging = Messaging::new(broker);
/// messaging.subscribe(DOUBLE).respond(|n: u64| async move { Ok::<_, HandlerError>(n * 2) }).await?;
/// let answer: u64 = messaging.request(DOUBLE, &21).await?;
/// assert_eq!(answer, 42);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Requester(Arc<Inner>);

struct Inner {
    publisher: Publisher,
    timeout: Duration,
    address: OnceCell<Address>,
    waiting: Arc<Waiting>,
    scope: Scope,
}

impl Drop for Inner {
    /// Nobody can ask any more, so nobody waits for answers.
    fn drop(&mut self) {
        self.scope.stop();
    }
}

/// Where answers come in.
struct Address {
    topic: TopicName,
    state: watch::Receiver<SubscriptionState>,
}

/// Who waits for which answer.
#[derive(Default)]
struct Waiting {
    by_id: Mutex<HashMap<String, oneshot::Sender<Arc<Message>>>>,
    /// Answers that nobody waited for.
    dropped: AtomicU64,
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requester")
            .field("waiting", &self.0.waiting.lock().len())
            .field("dropped_answers", &self.dropped_answers())
            .finish_non_exhaustive()
    }
}

impl Requester {
    /// A requester that waits 30 s for answers, or until the deadline of the running context if that is earlier.
    #[must_use]
    pub fn new(publisher: Publisher) -> Self {
        Self::with_timeout(publisher, Duration::from_secs(30))
    }

    /// The same with another limit.
    #[must_use]
    pub fn with_timeout(publisher: Publisher, timeout: Duration) -> Self {
        Self(Arc::new(Inner {
            publisher,
            timeout,
            address: OnceCell::new(),
            waiting: Arc::default(),
            scope: Scope::new(),
        }))
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// `Timeout` when no answer came in time; `NotFound` when nobody listens; what the responder says, with origin
    /// remote; `Invalid` when the answer cannot be read; `Exhausted` with too many requests under way; `Cancelled` after
    /// shutdown; those of publishing.
    ///
    /// # Cancel safety
    /// When dropped, the question may or may not be answered; an answer is dropped.
    pub fn request<'a, Q, A, D>(
        &'a self,
        to: D,
        question: &Q,
    ) -> impl Future<Output = Result<A>> + Send + use<'a, Q, A, D>
    where
        Q: Serialize + ?Sized,
        A: DeserializeOwned,
        D: To<Q>,
    {
        let codec = self.0.publisher.around().codec;
        let to = to.destination();
        // An answer is to be no less protected than a question from there would have to be.
        let wire = &self.0.publisher.around().wire;
        let demands = to
            .as_ref()
            .map(|to| wire.keys.demands(Some(to)))
            .map_err(duplicate);
        let outgoing = self.0.publisher.to::<(), _>(Forgotten(to));
        let written = codec.encode(question);
        async move {
            let context = self.0.publisher.around().propagation.current_or_new();
            let context = context.with_timeout(self.0.timeout);
            let outgoing = outgoing.context(context.clone());
            let answer = self.ask(outgoing, written, codec, &context).await?;
            let wire = &self.0.publisher.around().wire;
            let answer = wire
                .open(Wire::unfold(&answer), demands?, &self.meant_for()?)
                .await?;
            read(&answer)
        }
    }

    /// Where answers are published to.
    fn meant_for(&self) -> Result<Destination> {
        let address = self.0.address.get();
        let address =
            address.ok_or_else(|| Error::internal("an answer came without an address"))?;
        Ok(Destination::Topic(address.topic.clone()))
    }

    /// How many answers came too late, or a second time.
    #[must_use]
    pub fn dropped_answers(&self) -> u64 {
        self.0.waiting.dropped.load(Ordering::Relaxed)
    }

    /// Ends the reception of answers; requests under way fail with `Cancelled`.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn shutdown(&self, deadline: Instant) {
        self.0.scope.shutdown(deadline).await;
        self.0.waiting.lock().clear();
    }

    async fn ask(
        &self,
        outgoing: Outgoing<'_, ()>,
        written: Result<bytes::Bytes>,
        codec: AnyCodec,
        context: &Context,
    ) -> Result<Arc<Message>> {
        let deadline = context
            .deadline()
            .unwrap_or_else(|| Instant::now() + self.0.timeout);
        let address = self.address(deadline).await?;
        let id = Id::new().to_string();
        let (mut guard, answer) = self.0.waiting.expect(&id)?;
        let capabilities = &self.0.publisher.around().capabilities;
        let mut outgoing = outgoing.id(&id).header(header::REPLY_TO, address.as_str());
        if capabilities.mandatory {
            outgoing = outgoing.mandatory();
        }
        if capabilities.expiry {
            let left = deadline.saturating_duration_since(Instant::now());
            outgoing = outgoing.expires_in(left);
        }
        let payload = written?;
        let receipt = outgoing
            .send_bytes(payload, Some(codec.content_type()))
            .await?;
        check_routed(&receipt)?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => {
                guard.answered = true;
                Ok(answer)
            }
            Ok(Err(_)) => Err(Error::cancelled("requests were shut down")),
            Err(_) => {
                Err(Error::timeout("no answer came before the deadline")
                    .with_context("request", &id))
            }
        }
    }

    /// The topic that answers come in at, once it is attached.
    async fn address(&self, deadline: Instant) -> Result<&TopicName> {
        if self.0.scope.is_stopping() {
            return Err(Error::cancelled("requests were shut down"));
        }
        let address = self.0.address.get_or_try_init(|| self.open()).await?;
        let mut state = address.state.clone();
        let there = state.wait_for(|state| !matches!(state, SubscriptionState::Detached { .. }));
        match tokio::time::timeout_at(deadline, there).await {
            Ok(Ok(state)) if *state == SubscriptionState::Attached => Ok(&address.topic),
            Ok(_) => Err(Error::cancelled("the broker was disconnected")),
            Err(_) => {
                let why = Error::unavailable("answers cannot come in: the broker is away");
                Err(why.with_retry(Retry::Safe))
            }
        }
    }

    async fn open(&self) -> Result<Address> {
        let around = self.0.publisher.around();
        let id = Id::new().to_string().replace('-', "");
        // A service's name may hold what a topic's may not.
        let sender: String = around
            .sender()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(100)
            .collect();
        let topic = TopicName::new(format!("reply.{sender}.{id}"))?;
        let subscribe = Subscribe::topics(topic.clone()).with_prefetch(1_000);
        let subscription = around.broker.subscribe(subscribe).await?;
        let state = subscription.state();
        let receive = receive(
            subscription,
            Arc::clone(&self.0.waiting),
            self.0.scope.token(),
        );
        self.0.scope.spawn("answers", receive);
        Ok(Address { topic, state })
    }
}

/// Gives answers to those who wait for them.
async fn receive(
    mut answers: Subscription,
    waiting: Arc<Waiting>,
    stop: tokio_util::sync::CancellationToken,
) {
    loop {
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            answer = answers.next() => answer,
        };
        let Some(answer) = answer else {
            return;
        };
        waiting.give(answer.shared_message());
        if let Err(error) = answer.ack().await {
            tracing::debug!(target: "trunkline", error = %error.report(), "an answer was not acknowledged");
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Arc<Message>>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(self: &Arc<Self>, id: &str) -> Result<(Expecting, oneshot::Receiver<Arc<Message>>)> {
        let (sender, receiver) = oneshot::channel();
        let mut by_id = self.lock();
        if by_id.len() >= MOST_WAITING {
            return Err(Error::exhausted(format!(
                "{MOST_WAITING} requests wait for answers already"
            )));
        }
        by_id.insert(id.to_owned(), sender);
        let guard = Expecting {
            waiting: Arc::clone(self),
            id: id.to_owned(),
            answered: false,
        };
        Ok((guard, receiver))
    }

    fn give(&self, answer: Arc<Message>) {
        let asked = answer.headers.get(header::IN_REPLY_TO).unwrap_or_default();
        let waiting = self.lock().remove(asked);
        let late = match waiting {
            Some(waiting) => waiting.send(answer).is_err(),
            None => true,
        };
        if late {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(target: "trunkline", "an answer came that nobody waits for");
        }
    }
}

/// Forgets a question whose answer nobody waits for any more.
struct Expecting {
    waiting: Arc<Waiting>,
    id: String,
    answered: bool,
}

impl Drop for Expecting {
    fn drop(&mut self) {
        if !self.answered {
            self.waiting.lock().remove(&self.id);
        }
    }
}

fn check_routed(receipt: &Receipt) -> Result<()> {
    if receipt.routed == Routed::No {
        return Err(Error::not_found("nobody answers requests there"));
    }
    Ok(())
}

fn read<A: DeserializeOwned>(answer: &Message) -> Result<A> {
    let Some(kind) = answer.headers.get(header::REPLY_ERROR) else {
        return AnyCodec::of(answer.content_type.as_deref())?.decode(&answer.payload);
    };
    let kind = match kind {
        "invalid" => ErrorKind::Invalid,
        "unavailable" => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let text = String::from_utf8_lossy(&answer.payload).into_owned();
    Err(Error::new(kind, text)
        .with_origin(Origin::Remote)
        .with_operation("request"))
}

/// A destination whose payload type was settled before.
struct Forgotten(Result<Destination>);

impl To<()> for Forgotten {
    fn destination(self) -> Result<Destination> {
        self.0
    }
}
