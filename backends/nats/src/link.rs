//! The connection, and who keeps it.
//!
//! The driver cannot be told not to reconnect, so it reconnects, a few times; this module watches it. Every connection that the
//! driver has made is a new generation: what was under way on the one before fails, what lives on the server is looked
//! after again. When the driver has given up, its client is gone, and a new one is made here, with credentials and
//! certificates read anew, for as long as it takes. At any moment there is one client.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{
    Client, ClientError, ConnectOptions, Event, Message as Raw, ServerError, Subscriber,
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, ErrorKind, Result, Retry};

use crate::config::NatsConfig;
use crate::error::{closed, lost, of_connect};
use crate::replies::{Answer, Replies};
use crate::tls;

/// Attempts of the driver before it gives up. More than there are servers in most clusters, so that it moves to another one
/// by itself.
const DRIVER_ATTEMPTS: usize = 6;
/// First wait between two attempts.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// How often the driver is looked at where it said nothing: its events may be dropped.
const LOOK: Duration = Duration::from_secs(1);

/// Whether there is a connection.
#[derive(Clone, Debug)]
pub(crate) enum LinkState {
    /// Not asked for yet.
    Idle,
    /// There is one.
    Up(Up),
    /// There is none; why.
    Down(Arc<Error>),
    /// Not any more.
    Closed,
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Up {
    pub(crate) client: Client,
    pub(crate) replies: Arc<Replies>,
    /// Which one it is, from 1.
    pub(crate) generation: u64,
}

/// Keeps one connection.
#[derive(Debug)]
pub(crate) struct Link {
    config: NatsConfig,
    state: watch::Sender<LinkState>,
    /// Attempts that have failed so far; for who waits for the outcome of one.
    failures: watch::Sender<u64>,
    hurry: Notify,
    scope: Scope,
    begun: Mutex<bool>,
}

impl Link {
    pub(crate) fn new(config: NatsConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            state: watch::Sender::new(LinkState::Idle),
            failures: watch::Sender::new(0),
            hurry: Notify::new(),
            scope: Scope::new(),
            begun: Mutex::new(false),
        })
    }

    pub(crate) fn config(&self) -> &NatsConfig {
        &self.config
    }

    pub(crate) fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(&*self.state.borrow(), LinkState::Closed)
    }

    /// The connection if there is one now.
    pub(crate) fn now(&self) -> Option<Up> {
        match &*self.state.borrow() {
            LinkState::Up(up) => Some(up.clone()),
            LinkState::Idle | LinkState::Down(_) | LinkState::Closed => None,
        }
    }

    /// Begins to connect, and waits for the outcome of the next attempt. Attempts go on whatever it is.
    pub(crate) async fn connect(self: &Arc<Self>) -> Result<()> {
        if self.is_closed() {
            return Err(closed());
        }
        let mut failures = self.failures.subscribe();
        failures.mark_unchanged();
        let mut state = self.state.subscribe();
        self.begin();
        self.hurry.notify_one();
        tokio::select! {
            biased;
            settled = state.wait_for(|state| matches!(state, LinkState::Up(_) | LinkState::Closed)) => {
                match settled.as_deref() {
                    Ok(LinkState::Up(_)) => Ok(()),
                    _ => Err(closed()),
                }
            }
            _ = failures.changed() => Err(self.down()),
        }
    }

    fn begin(self: &Arc<Self>) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut begun, true) {
            let (link, stop) = (Arc::downgrade(self), self.scope.token());
            let config = self.config.clone();
            self.scope
                .spawn("nats connection", keep(link, config, stop));
        }
    }

    /// The connection, waited for until then.
    pub(crate) async fn ready(&self, deadline: Instant) -> Result<Up> {
        if let Some(up) = self.now() {
            return Ok(up);
        }
        let mut state = self.state.subscribe();
        let there = state.wait_for(|state| matches!(state, LinkState::Up(_) | LinkState::Closed));
        match tokio::time::timeout_at(deadline, there).await {
            Ok(Ok(state)) => match &*state {
                LinkState::Up(up) => Ok(up.clone()),
                LinkState::Idle | LinkState::Down(_) | LinkState::Closed => Err(closed()),
            },
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(self.down()),
        }
    }

    /// Why there is no connection.
    pub(crate) fn down(&self) -> Error {
        match &*self.state.borrow() {
            LinkState::Closed => closed(),
            LinkState::Down(why) => {
                let kind = match why.kind() {
                    kind @ (ErrorKind::Unauthenticated | ErrorKind::Config) => kind,
                    _ => ErrorKind::Unavailable,
                };
                Error::new(kind, why.message().to_owned())
                    .with_retry(Retry::Safe)
                    .with_source(Shared(Arc::clone(why)))
            }
            LinkState::Idle | LinkState::Up(_) => {
                Error::unavailable("not connected to NATS").with_retry(Retry::Safe)
            }
        }
    }

    /// Resolves when the connection is not the given one any more.
    pub(crate) async fn lost(&self, generation: u64) {
        let mut state = self.state.subscribe();
        let other =
            |state: &LinkState| !matches!(state, LinkState::Up(up) if up.generation == generation);
        // An error means that the link is gone, and the connection with it.
        drop(state.wait_for(other).await);
    }

    /// Waits for an answer, no longer than its connection and the deadline.
    pub(crate) async fn answer(
        &self,
        generation: u64,
        deadline: Instant,
        mut answer: Answer,
    ) -> Result<Raw> {
        if answer.is_late(generation) {
            // It was asked when the connection was gone already; or it has come before that went.
            return answer.get().now_or_never().unwrap_or_else(|| Err(lost()));
        }
        // When the connection goes, so does the question.
        tokio::select! {
            biased;
            outcome = answer.get() => outcome,
            () = tokio::time::sleep_until(deadline) => Err(Error::timeout("NATS did not answer in time")
                .with_retry(Retry::IfIdempotent)),
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn request(
        &self,
        up: &Up,
        deadline: Instant,
        subject: String,
        payload: Bytes,
    ) -> Result<Raw> {
        let answer = up.replies.send(&up.client, subject, None, payload).await?;
        self.answer(up.generation, deadline, answer).await
    }

    /// When to give up: at the caller's deadline, or after the configured time.
    pub(crate) fn deadline(&self) -> Instant {
        let latest = Instant::now() + self.config.request_timeout;
        let asked = Context::current().and_then(|context| context.deadline());
        asked.map_or(latest, |asked| asked.min(latest))
    }

    /// No call begins after this.
    pub(crate) fn forbid(&self) -> Option<Up> {
        match self.state.send_replace(LinkState::Closed) {
            LinkState::Up(up) => {
                up.replies.renew(0);
                Some(up)
            }
            LinkState::Idle | LinkState::Down(_) | LinkState::Closed => None,
        }
    }

    /// Ends the task that keeps the connection; the client ends with its last clone.
    pub(crate) async fn close(&self, deadline: Instant) -> usize {
        self.forbid();
        self.scope.shutdown(deadline).await
    }

    /// Tells a state, unless it is closed.
    fn tell(&self, next: LinkState) -> bool {
        self.state.send_if_modified(|state| {
            let open = !matches!(state, LinkState::Closed);
            if open {
                *state = next;
            }
            open
        })
    }

    fn failed(&self, error: Error) {
        self.tell(LinkState::Down(Arc::new(error)));
        self.failures.send_modify(|count| *count += 1);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.scope.stop();
    }
}

/// An error that is the cause of several.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Shared(Arc<Error>);

/// What the driver's events leave behind.
#[derive(Debug, Default)]
struct Seen {
    news: Notify,
    /// The last failed attempt, in the driver's words.
    trouble: Mutex<Option<String>>,
    /// The driver has ended, and its client with it.
    over: CancellationToken,
}

/// Held by the driver for as long as it lives.
struct Alive(Arc<Seen>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.over.cancel();
    }
}

impl Seen {
    fn note(&self, event: &Event) {
        match event {
            Event::ClientError(ClientError::Other(text)) => {
                *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.clone());
            }
            Event::ServerError(ServerError::AuthorizationViolation) => {
                let text = "authorization violation".to_owned();
                *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
            }
            Event::SlowConsumer(_) => {
                tracing::warn!(target: "trunkline", broker = "nats", "messages were dropped: a subscriber did not keep up");
            }
            Event::ServerError(ServerError::Other(text)) => {
                // A denied subject, among others.
                tracing::warn!(target: "trunkline", broker = "nats", error = text, "the server complains");
            }
            Event::Connected
            | Event::Disconnected
            | Event::LameDuckMode
            | Event::Draining
            | Event::Closed
            | Event::ServerError(_)
            | Event::ClientError(_) => {}
        }
        self.news.notify_one();
    }

    fn why(&self) -> Error {
        let trouble = self
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match trouble {
            Some(text) if text.contains("authorization") => Error::new(
                ErrorKind::Unauthenticated,
                format!("no connection to NATS: {text}"),
            ),
            Some(text) => Error::unavailable(format!("the connection to NATS was lost: {text}")),
            None => Error::unavailable("the connection to NATS was lost"),
        }
        .with_retry(Retry::Safe)
    }
}

/// Connects, watches, and connects again, until it is told to stop or nobody wants the link any more.
async fn keep(link: std::sync::Weak<Link>, config: NatsConfig, stop: CancellationToken) {
    let mut generation = 0;
    let mut delay = FIRST_DELAY;
    loop {
        let seen = Arc::new(Seen::default());
        let attempt = tokio::select! {
            () = stop.cancelled() => return,
            attempt = open(&config, &seen) => attempt,
        };
        let Some(strong) = link.upgrade() else { return };
        match attempt {
            Ok((client, replies, answers)) => {
                delay = FIRST_DELAY;
                let hand_on = Arc::clone(&replies).hand_on(answers, stop.clone());
                strong.scope.spawn("nats answers", hand_on);
                drop(strong);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = watch_over(&link, &client, &replies, &seen, &mut generation) => {}
                }
            }
            Err(error) => {
                tracing::debug!(target: "trunkline", broker = "nats", error = %error.report(), "no connection");
                strong.failed(error);
                let pause = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
                delay = (delay * 2).min(config.reconnect_delay_max);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = strong.hurry.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

/// Tells what becomes of a client until it is gone.
async fn watch_over(
    link: &std::sync::Weak<Link>,
    client: &Client,
    replies: &Arc<Replies>,
    seen: &Seen,
    generation: &mut u64,
) {
    use std::sync::atomic::Ordering;
    let mut connects = 0;
    loop {
        let made = client.statistics().connects.load(Ordering::Relaxed);
        let up = client.connection_state() == State::Connected && !seen.over.is_cancelled();
        let Some(link) = link.upgrade() else { return };
        if up && made != connects {
            connects = made;
            *generation += 1;
            replies.renew(*generation);
            let told = link.tell(LinkState::Up(Up {
                client: client.clone(),
                replies: Arc::clone(replies),
                generation: *generation,
            }));
            if !told {
                replies.renew(0);
            }
        } else if !up && matches!(&*link.state.borrow(), LinkState::Up(_)) {
            tracing::warn!(target: "trunkline", broker = "nats", "the connection was lost");
        }
        if !up {
            replies.renew(0);
            link.failed(seen.why());
        }
        drop(link);
        tokio::select! {
            () = seen.over.cancelled() => {
                // Said once more, so that nobody works with a client that is gone.
                if up {
                    continue;
                }
                return;
            }
            () = seen.news.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// One attempt at a client.
async fn open(config: &NatsConfig, seen: &Arc<Seen>) -> Result<(Client, Arc<Replies>, Subscriber)> {
    let options = options(config, seen).await?;
    let client = async_nats::connect_with_options(config.servers(), options)
        .await
        .map_err(|error| of_connect(error.kind(), error))?;
    let (replies, answers) = Replies::open(&client).await?;
    Ok((client, replies, answers))
}

async fn options(config: &NatsConfig, seen: &Arc<Seen>) -> Result<ConnectOptions> {
    let servers = config.servers().len();
    let longest = config.reconnect_delay_max.min(Duration::from_secs(1));
    let alive = Arc::new(Alive(Arc::clone(seen)));
    let mut options = ConnectOptions::new()
        .name("trunkline")
        .connection_timeout(config.connection_timeout)
        .request_timeout(None)
        .ping_interval(config.heartbeat)
        .max_reconnects(DRIVER_ATTEMPTS.max(2 * servers))
        .reconnect_delay_callback(move |attempt| {
            // The first attempt at all does not wait.
            let doubled = u32::try_from(attempt.saturating_sub(1))
                .unwrap_or(u32::MAX)
                .min(10);
            match attempt {
                0 | 1 => Duration::ZERO,
                _ => (FIRST_DELAY * 2_u32.pow(doubled)).min(longest),
            }
        })
        .event_callback(move |event| {
            let alive = Arc::clone(&alive);
            async move { alive.0.note(&event) }
        });
    if config.connection.ssl_enabled {
        options = options.require_tls(true);
    }
    if let Some(settings) = tls::settings(config).await? {
        options = options.tls_client_config(settings);
    }
    let connection = &config.connection;
    if let Some(token) = &config.token {
        options = options.token(token.expose().clone());
    } else if let Some(seed) = &config.nkey_seed {
        options = options.nkey(seed.expose().clone());
    } else if let Some(path) = &config.credentials_file {
        let unreadable = |error: std::io::Error| {
            Error::config(format!("credentials_file {}: {error}", path.display()))
                .with_retry(Retry::Safe)
        };
        let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
        options = options.credentials(&text).map_err(unreadable)?;
    } else if connection.username.is_some() || connection.password.is_some() {
        let user = connection.username.clone().unwrap_or_default();
        let password = connection.password.as_ref();
        let password = password
            .map(|secret| secret.expose().clone())
            .unwrap_or_default();
        options = options.user_and_password(user, password);
    }
    Ok(options)
}
