//! Whether the servers are reached. The driver reconnects by itself; this watches it, and asks where it says nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::statistics::Statistics;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::{Context, Error, ErrorKind, Result, Retry};

use crate::config::KafkaConfig;
use crate::error::{closed, kind_of, of_question};

/// One question may take so long.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// The pause between two questions while nobody answers.
const PAUSE: Duration = Duration::from_millis(300);
/// The pause between two questions while all is well.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// So much of what the driver has to report is read at a time.
const REPORTS: usize = 64;
/// A topic that is asked for and not made, so that the answer is short.
const NO_TOPIC: &str = "trunkline.no-topic";

/// Whether the servers answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// They do.
    Up,
    /// They do not, and why.
    Down(ErrorKind, String),
    /// The broker was disconnected.
    Closed,
}

/// What all parts share.
#[derive(Debug)]
pub(crate) struct Link {
    config: KafkaConfig,
    state: watch::Sender<State>,
    doubt: Arc<Doubt>,
    /// One question after the other: what the driver reports belongs to the question that it answers.
    asking: tokio::sync::Mutex<()>,
}

/// What the driver has reported.
#[derive(Debug, Default)]
struct Doubt {
    /// Something went wrong: ask.
    ask: Notify,
    /// The servers do not let us in; what they say. The driver answers questions as if nobody was there, and reports the
    /// same refusal once in 30 seconds: it stands until the servers answer, or until something else is wrong.
    refused: Mutex<Option<String>>,
}

/// What a client of the driver reports to.
#[derive(Clone, Debug)]
pub(crate) struct Reports(Arc<Doubt>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, part: &str, text: &str) {
        log(level, part, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "trunkline", broker = "kafka", %error, reason, "the driver reports an error");
        match error.rdkafka_error_code() {
            Some(code) if is_login(code) => *self.0.refused() = Some(reason.to_owned()),
            Some(Code::BrokerTransportFailure | Code::Resolve) => *self.0.refused() = None,
            _ => {}
        }
        self.0.ask.notify_one();
    }
}

impl ConsumerContext for Reports {}

impl Doubt {
    fn refused(&self) -> MutexGuard<'_, Option<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes on what the driver logs.
pub(crate) fn log(level: RDKafkaLogLevel, part: &str, text: &str) {
    // An outage is reported once, by us, and not by each connection.
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(target: "trunkline", broker = "kafka", part, "{text}");
        }
        _ => tracing::debug!(target: "trunkline", broker = "kafka", part, "{text}"),
    }
}

/// A client that only asks; it creates nothing.
pub(crate) type Scout = BaseConsumer<Reports>;

impl Link {
    pub(crate) fn new(config: KafkaConfig) -> Arc<Self> {
        let reason = "not connected yet".to_owned();
        Arc::new(Self {
            config,
            state: watch::Sender::new(State::Down(ErrorKind::Unavailable, reason)),
            doubt: Arc::default(),
            asking: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(crate) fn now(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.state.borrow() == State::Closed
    }

    pub(crate) fn close(&self) {
        self.state.send_replace(State::Closed);
    }

    pub(crate) fn reports(&self) -> Reports {
        Reports(Arc::clone(&self.doubt))
    }

    /// Somebody has seen an error: it is looked after.
    pub(crate) fn doubt(&self) {
        self.doubt.ask.notify_one();
    }

    /// A client for questions. Dropping it may block: see [`retire`].
    pub(crate) fn scout(&self) -> Result<Scout> {
        let config = self.config.quick();
        BaseConsumer::from_config_and_context(&config, self.reports())
            .map_err(|error| of_client(&error))
    }

    /// By when a call must be done: at the deadline of the running context or, without one, after the configured time.
    pub(crate) fn deadline(&self) -> Instant {
        let asked = Context::current().and_then(|context| context.deadline());
        asked.unwrap_or_else(|| Instant::now() + self.config.request_timeout)
    }

    /// Waits until the servers answer.
    pub(crate) async fn ready(&self, deadline: Instant) -> Result<()> {
        let mut state = self.watch();
        let there = state.wait_for(|state| !matches!(state, State::Down(..)));
        match tokio::time::timeout_at(deadline, there).await {
            Ok(Ok(state)) if *state == State::Up => Ok(()),
            Ok(_) => Err(closed()),
            Err(_) => Err(self.unreachable()),
        }
    }

    /// Nothing was sent: whoever repeats it does no harm.
    fn unreachable(&self) -> Error {
        match self.now() {
            State::Down(_, reason) => Error::unavailable(format!("Kafka is not reached: {reason}")),
            State::Closed => closed(),
            State::Up => Error::unavailable("Kafka was not reached in time"),
        }
        .with_retry(Retry::Safe)
    }

    /// Asks whether the servers answer, and writes down what comes of it.
    pub(crate) async fn ask(self: &Arc<Self>, scout: &Arc<Scout>) -> Result<()> {
        let _turn = self.asking.lock().await;
        let asked = ask(scout, |scout| {
            scout
                .fetch_metadata(Some(NO_TOPIC), ANSWER_WITHIN)
                .map(drop)
        });
        let outcome = asked.await?;
        let refused = {
            let mut refused = self.doubt.refused();
            if outcome.is_ok() {
                *refused = None;
            }
            refused.clone()
        };
        let outcome = outcome.map_err(|error| match refused {
            Some(reason) => Error::new(
                ErrorKind::Unauthenticated,
                format!("Kafka refuses the login: {reason}"),
            )
            .with_retry(Retry::Safe)
            .with_source(error),
            None => of_question("Kafka does not answer", &error),
        });
        self.state.send_if_modified(|state| {
            let new = match &outcome {
                _ if *state == State::Closed => return false,
                Ok(()) => State::Up,
                Err(error) => State::Down(error.kind(), error.message().to_owned()),
            };
            match (&*state, &new) {
                (State::Up, State::Down(_, reason)) => {
                    tracing::warn!(target: "trunkline", broker = "kafka", reason, "Kafka is not reached");
                }
                (State::Down(..), State::Up) => {
                    tracing::info!(target: "trunkline", broker = "kafka", "Kafka is reached");
                }
                _ => {}
            }
            let changed = *state != new;
            *state = new;
            changed
        });
        if self.is_closed() {
            return Err(closed());
        }
        outcome
    }

    /// Keeps asking until it is told to stop.
    pub(crate) async fn keep(self: Arc<Self>, scout: Arc<Scout>, stop: CancellationToken) {
        let asking = async {
            loop {
                let answered = self.ask(&scout).await.is_ok();
                if answered {
                    tokio::select! {
                        () = self.doubt.ask.notified() => {}
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                    // Errors come in swarms.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                } else {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = asking => {}
        }
        retire(scout).await;
    }
}

/// Asks on a thread that may block.
pub(crate) async fn ask<T: Send + 'static>(
    scout: &Arc<Scout>,
    question: impl FnOnce(&Scout) -> std::result::Result<T, KafkaError> + Send + 'static,
) -> Result<std::result::Result<T, KafkaError>> {
    let scout = Arc::clone(scout);
    let asked = tokio::task::spawn_blocking(move || {
        let answer = question(&scout);
        // What the driver has to report waits in its queue until somebody looks; each look takes one.
        for _ in 0..REPORTS {
            drop(scout.poll(Duration::ZERO));
        }
        answer
    });
    asked
        .await
        .map_err(|join| Error::internal("asking Kafka panicked").with_source(join))
}

/// Drops a client of the driver on a thread that may block.
pub(crate) async fn retire<T: Send + 'static>(client: T) {
    let ended = tokio::task::spawn_blocking(move || drop(client)).await;
    if let Err(error) = ended {
        tracing::warn!(target: "trunkline", broker = "kafka", %error, "a client did not end well");
    }
}

/// A client of the driver could not be made.
pub(crate) fn of_client(error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => {
            Error::config(format!("Kafka cannot be set up: {error}")).with_source(error.clone())
        }
        other => of_question("Kafka cannot be set up", other),
    }
}

/// Whether the driver says that it must be replaced, or that the login is wrong.
pub(crate) fn is_login(code: Code) -> bool {
    kind_of(code) == ErrorKind::Unauthenticated
}
