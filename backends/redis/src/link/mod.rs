//! A connection to Redis: made here, watched here, never repaired by the driver.
//!
//! One connection carries the commands of everybody, pipelined, and what the server says unasked. Nothing on it blocks.

mod address;
mod push;
mod tls;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, Result, Retry};
use trunkline_messaging::supervisor::{Connect, Reconnect, Supervisor, in_flight};

use crate::config::{Mode, RedisConfig};
use crate::error::{is_elsewhere, is_no_script, mapped};
use crate::script::Script;

pub(crate) use push::{Channel, Listener, Listeners};

/// Connections to one server, one after the other.
pub(crate) type Line = Supervisor<Connector>;

/// Begins nothing before it is started.
pub(crate) fn line(config: &RedisConfig, listeners: Arc<Listeners>) -> Line {
    let reconnect = Reconnect::default()
        .with_attempt_timeout(config.connection_timeout)
        .with_wait(config.request_timeout);
    let connector = Connector {
        config: config.clone(),
        listeners,
    };
    Supervisor::new(connector, reconnect)
}

/// When an operation has to be over: at the caller's deadline, at the latest after the time configured.
pub(crate) fn deadline(limit: Duration) -> Instant {
    let latest = Instant::now() + limit;
    let asked = Context::current().and_then(|context| context.deadline());
    asked.map_or(latest, |asked| asked.min(latest))
}

/// How long to leave the supervisor to notice that a connection is lost, before looking again.
pub(crate) const NOTICE: Duration = Duration::from_millis(5);

/// The connection, for a caller that waits until a deadline.
pub(crate) async fn live(line: &Line, deadline: Instant) -> Result<Link> {
    loop {
        let (link, _) = line.connection().await?;
        if !link.is_gone() {
            return Ok(link);
        }
        // Lost a moment ago, and the supervisor has not noticed yet.
        if Instant::now() >= deadline {
            let error = Error::unavailable("the connection to Redis was lost");
            return Err(error.with_retry(Retry::Safe));
        }
        tokio::time::sleep(NOTICE).await;
    }
}

/// Whole milliseconds, rounded up: nothing comes too early.
pub(crate) fn millis(span: Duration) -> u64 {
    let whole = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    // Redis counts in numbers that are exact up to 2^53.
    let rounded = whole.saturating_add(u64::from(!span.subsec_nanos().is_multiple_of(1_000_000)));
    rounded.min(1 << 45)
}

/// Makes connections.
pub(crate) struct Connector {
    config: RedisConfig,
    listeners: Arc<Listeners>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// A connection. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Link(Arc<Inner>);

struct Inner {
    connection: MultiplexedConnection,
    /// Owns the task that reads and writes.
    scope: Scope,
    gone: CancellationToken,
    /// What the server calls the scripts.
    scripts: Mutex<Vec<String>>,
    since: Instant,
    /// Why the server has to be left although it answers.
    elsewhere: CancellationToken,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("gone", &self.0.gone.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl Connect for Connector {
    type Connection = Link;

    async fn connect(&self) -> Result<Link> {
        let config = &self.config;
        let address = address::find(config).await?;
        let stream = address::open(&address, config).await?;
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(config.database()?)
            .set_lib_name("trunkline", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &config.connection.username {
            login = login.set_username(user);
        }
        if let Some(password) = &config.connection.password {
            login = login.set_password(password.expose());
        }
        let link = Link::over(stream, &login, Arc::clone(&self.listeners)).await?;
        match link.prepare(config).await {
            Ok(()) => Ok(link),
            Err(error) => {
                link.end(Instant::now() + Duration::from_secs(1)).await;
                Err(error)
            }
        }
    }

    async fn lost(&self, link: &Link) -> Error {
        let pause = self.config.heartbeat;
        let ping = redis::cmd("PING");
        loop {
            tokio::select! {
                () = link.gone() => return Error::unavailable("Redis has closed the connection"),
                () = link.0.elsewhere.cancelled() => {
                    return Error::unavailable("this server is no master any more");
                }
                () = tokio::time::sleep(pause) => {}
            }
            let asked = link.ask(&ping, Instant::now() + pause);
            if let Err(Failure::Lost(error)) = asked.await {
                return error;
            }
        }
    }

    async fn close(&self, link: Link, deadline: Instant) -> Result<()> {
        link.end(deadline).await;
        Ok(())
    }
}

/// Why a command has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server has answered with an error.
    Answer(RedisError),
    /// There is no answer: the connection is lost, or it takes too long.
    Lost(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Answer(error) => mapped(error),
            Failure::Lost(error) => error,
        }
    }
}

impl Link {
    async fn over<S>(
        stream: S,
        login: &RedisConnectionInfo,
        listeners: Arc<Listeners>,
    ) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let hear = move |info| {
            listeners.push(info);
            Ok::<(), std::convert::Infallible>(())
        };
        let settings = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_push_sender(hear);
        let (connection, driver) = MultiplexedConnection::new_with_config(login, stream, settings)
            .await
            .map_err(mapped)?;
        let (scope, gone) = (Scope::new(), CancellationToken::new());
        let (stop, told) = (scope.token(), gone.clone().drop_guard());
        scope.spawn("redis connection", async move {
            // Whatever ends it, it is told.
            let _told = told;
            tokio::select! {
                () = driver => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Self(Arc::new(Inner {
            connection,
            scope,
            gone,
            scripts: Mutex::default(),
            since: Instant::now(),
            elsewhere: CancellationToken::new(),
        })))
    }

    /// Makes sure that it is a server to work with, and teaches it the scripts.
    async fn prepare(&self, config: &RedisConfig) -> Result<()> {
        if config.mode == Mode::PubSub {
            // Nothing is kept and no script is run, which the user may not be allowed to.
            return Ok(());
        }
        let deadline = Instant::now() + config.connection_timeout;
        self.teach(deadline).await?;
        // Whether it may be asked depends on the user.
        let facts = redis::cmd("INFO").arg("persistence").clone();
        if let Ok(Value::BulkString(text)) = self.ask(&facts, deadline).await
            && String::from_utf8_lossy(&text).contains("aof_enabled:0")
        {
            tracing::warn!(
                target: "trunkline",
                "Redis runs without an append-only file: what it has confirmed is lost when it is restarted"
            );
        }
        Ok(())
    }

    async fn teach(&self, deadline: Instant) -> Result<()> {
        let mut names = Vec::new();
        for script in Script::all() {
            let load = redis::cmd("SCRIPT")
                .arg("LOAD")
                .arg(script.source())
                .clone();
            match self.ask(&load, deadline).await? {
                Value::BulkString(name) => {
                    names.push(String::from_utf8_lossy(&name).into_owned());
                }
                Value::SimpleString(name) => names.push(name),
                _ => return Err(crate::error::unexpected("SCRIPT LOAD")),
            }
        }
        *self.scripts() = names;
        Ok(())
    }

    fn scripts(&self) -> MutexGuard<'_, Vec<String>> {
        self.0
            .scripts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the connection is lost. Cancel safe.
    pub(crate) async fn gone(&self) {
        self.0.gone.cancelled().await;
    }

    /// Whether the connection is lost.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.gone.is_cancelled()
    }

    /// How long there is this connection.
    pub(crate) fn age(&self) -> Duration {
        self.0.since.elapsed()
    }

    async fn end(&self, deadline: Instant) {
        self.0.scope.shutdown(deadline).await;
    }

    /// Sends a command and waits for the answer.
    pub(crate) async fn ask(&self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        if self.0.gone.is_cancelled() {
            let error = Error::unavailable("the connection to Redis was lost before");
            return Err(Failure::Lost(error.with_retry(Retry::Safe)));
        }
        let mut connection = self.0.connection.clone();
        let asking = connection.send_packed_command(command);
        let answer = tokio::select! {
            answer = timeout_at(deadline, asking) => answer,
            // The driver's own error may come later or not at all when its task is stopped.
            () = self.gone() => {
                let error = Error::unavailable("Redis has closed the connection");
                return Err(Failure::Lost(in_flight(error)));
            }
        };
        match answer {
            Ok(Ok(Value::ServerError(error))) => Err(self.answered(error.into())),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.is_unrecoverable_error() || error.is_io_error() => {
                Err(Failure::Lost(in_flight(mapped(error))))
            }
            Ok(Err(error)) => Err(self.answered(error)),
            Err(_) => {
                let error = Error::timeout("Redis has not answered in time; it may have been done");
                Err(Failure::Lost(error.with_retry(Retry::IfIdempotent)))
            }
        }
    }

    /// Sends several commands, one behind the other and nothing between them, and waits for all answers: as many, in their
    /// order.
    pub(crate) async fn ask_all(
        &self,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Result<Value, Failure>>, Failure> {
        if self.0.gone.is_cancelled() {
            let error = Error::unavailable("the connection to Redis was lost before");
            return Err(Failure::Lost(error.with_retry(Retry::Safe)));
        }
        let mut connection = self.0.connection.clone();
        let asking = connection.send_packed_commands(commands, 0, commands.len());
        let answers = tokio::select! {
            answers = timeout_at(deadline, asking) => answers,
            () = self.gone() => {
                let error = Error::unavailable("Redis has closed the connection");
                return Err(Failure::Lost(in_flight(error)));
            }
        };
        match answers {
            Ok(Ok(values)) if values.len() == commands.len() => {
                let each = values.into_iter().map(|value| match value {
                    Value::ServerError(error) => Err(self.answered(error.into())),
                    value => Ok(value),
                });
                Ok(each.collect())
            }
            Ok(Ok(_)) => Err(Failure::Lost(
                crate::error::unexpected("the answers to several commands")
                    .with_retry(Retry::IfIdempotent),
            )),
            Ok(Err(error)) if error.is_unrecoverable_error() || error.is_io_error() => {
                Err(Failure::Lost(in_flight(mapped(error))))
            }
            Ok(Err(error)) => Err(self.answered(error)),
            Err(_) => {
                let error = Error::timeout("Redis has not answered in time; it may have been done");
                Err(Failure::Lost(error.with_retry(Retry::IfIdempotent)))
            }
        }
    }

    /// What an error of the server means for this connection.
    pub(crate) fn answered(&self, error: RedisError) -> Failure {
        if is_elsewhere(&error) {
            self.0.elsewhere.cancel();
        }
        Failure::Answer(error)
    }

    /// Runs a script. `fill` adds its arguments behind the prefix of the keys.
    pub(crate) async fn run(
        &self,
        script: Script,
        prefix: &str,
        deadline: Instant,
        fill: impl Fn(&mut Cmd),
    ) -> Result<Value, Failure> {
        for taught in [false, true] {
            let name = self.scripts().get(script.index()).cloned();
            let mut command = redis::cmd("EVALSHA");
            command
                .arg(name.unwrap_or_default())
                .arg(1)
                .arg(format!("{prefix}clock"))
                .arg(prefix);
            fill(&mut command);
            match self.ask(&command, deadline).await {
                // Somebody has flushed the scripts: nothing was done.
                Err(Failure::Answer(error)) if !taught && is_no_script(&error) => {
                    self.teach(deadline).await.map_err(Failure::Lost)?;
                }
                outcome => return outcome,
            }
        }
        let error = Error::internal("Redis forgets scripts at once").with_retry(Retry::Safe);
        Err(Failure::Lost(error))
    }

    pub(crate) async fn subscribe(&self, channel: &Channel, deadline: Instant) -> Result<()> {
        let mut connection = self.0.connection.clone();
        let subscribing = async {
            match channel {
                Channel::Exact(name) => connection.subscribe(name).await,
                Channel::Pattern(name) => connection.psubscribe(name).await,
            }
        };
        self.listening(subscribing, deadline).await
    }

    pub(crate) async fn unsubscribe(&self, channel: &Channel, deadline: Instant) -> Result<()> {
        let mut connection = self.0.connection.clone();
        let name = channel.name().to_owned();
        let leaving = async {
            match channel {
                Channel::Exact(_) => connection.unsubscribe(name).await,
                Channel::Pattern(_) => connection.punsubscribe(name).await,
            }
        };
        self.listening(leaving, deadline).await
    }

    async fn listening(
        &self,
        change: impl Future<Output = redis::RedisResult<()>>,
        deadline: Instant,
    ) -> Result<()> {
        let lost = || Error::unavailable("the connection to Redis was lost");
        tokio::select! {
            done = timeout_at(deadline, change) => match done {
                Ok(done) => done.map_err(mapped),
                Err(_) => Err(Error::timeout("Redis has not answered in time")),
            },
            () = self.gone() => Err(lost().with_retry(Retry::Safe)),
        }
    }
}
