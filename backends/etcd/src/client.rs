//! Requests to the members of a cluster: one after the other until one answers, logged in where that is needed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::{Context, Error, ErrorKind, Result};
use trunkline_http::{Body, Limits, Origin, Transport, TransportConfig};

use crate::config::{EtcdConfig, split};
use crate::error::{from_answer, is_of_member};
use crate::lines::Lines;
use crate::login::Login;

/// Longest answer that is read: ten thousand instances with much metadata.
const LONGEST_ANSWER: usize = 256 * 1024 * 1024;

/// For what is asked and answered: watches never take these, or leases would run out behind them.
const CONNECTIONS: usize = 64;

/// Where watches are opened.
const WATCH: &str = "/v3/watch";

/// By this the gateway asks its member to end a watch when it has no leader: what happens meanwhile elsewhere it does not know.
const NEEDS_LEADER: &str = "grpc-metadata-hasleader";

/// The least time that one member is given.
const LEAST_TIME: Duration = Duration::from_secs(1);

/// Longer than anything that is waited for: who opens a watch bounds its silence.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What a member says that is well.
const WELL: &str = "\"health\":\"true\"";

/// What members are asked.
enum Question<'a> {
    /// A message with one answer.
    Answered { path: &'a str, message: Bytes },
    /// A watch: the answer goes on.
    Streamed(Bytes),
    /// Whether the cluster works.
    Health,
}

/// A watch, and the member that it was opened at.
pub(crate) struct Opened {
    pub(crate) lines: Lines,
    pub(crate) member: usize,
}

pub(crate) struct Client {
    transport: Transport,
    /// The connections that watches hold, one each.
    watching: Transport,
    watches: Arc<Semaphore>,
    max_watches: usize,
    members: Vec<Origin>,
    /// The member that answered last.
    current: watch::Sender<usize>,
    login: Login,
    request_timeout: Duration,
    closed: CancellationToken,
}

impl Client {
    pub(crate) fn new(config: &EtcdConfig) -> Result<Self> {
        let mut settings = TransportConfig::default();
        settings.max_connections = CONNECTIONS;
        settings.ca_file.clone_from(&config.ca_file);
        settings
            .client_certificate
            .clone_from(&config.client_certificate);
        settings.client_key.clone_from(&config.client_key);
        let members = config.endpoints.iter().map(|endpoint| {
            let wrong = || Error::config(format!("`{endpoint}` is no `host:port` of etcd"));
            let (host, port) = split(endpoint, 2379).ok_or_else(wrong)?;
            let origin = if config.tls {
                Origin::https(host, port)
            } else {
                Origin::http(host, port)
            };
            origin.map_err(|_| wrong())
        });
        let members = members.collect::<Result<Vec<_>>>()?;
        if members.is_empty() {
            return Err(Error::config("etcd needs at least one endpoint"));
        }
        let transport = Transport::new(&settings)?;
        let max_watches = usize::try_from(config.max_watches).unwrap_or(usize::MAX);
        let max_watches = max_watches.min(Semaphore::MAX_PERMITS);
        settings.max_connections = max_watches;
        Ok(Self {
            transport,
            watching: Transport::new(&settings)?,
            watches: Arc::new(Semaphore::new(max_watches)),
            max_watches,
            members,
            current: watch::Sender::new(0),
            login: Login::new(config),
            request_timeout: config.request_timeout,
            closed: CancellationToken::new(),
        })
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(ended());
        }
        Ok(())
    }

    pub(crate) async fn shutdown(&self, deadline: Instant) {
        self.closed.cancel();
        tokio::join!(
            self.transport.shutdown(deadline),
            self.watching.shutdown(deadline)
        );
    }

    /// Leave to hold a watch open, also while it is opened anew.
    ///
    /// # Errors
    /// `Rejected` while there are as many as there may be.
    pub(crate) fn leave_to_watch(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.watches).try_acquire_owned().map_err(|_| {
            let text = format!(
                "{} services are watched, which is all that `max_watches` allows: this one is not kept current",
                self.max_watches
            );
            Error::new(ErrorKind::Rejected, text)
        })
    }

    /// Asks for something that may be asked again.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        message: &(impl Serialize + ?Sized),
    ) -> Result<T> {
        let message = written(message)?;
        let question = Question::Answered { path, message };
        let answer = self.through_members(&question);
        let (body, _) = self.unless_closed(answer).await?;
        let body = body.bytes(LONGEST_ANSWER).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Error::internal("the answer of etcd is not understood").with_source(error)
        })
    }

    /// Opens a watch: what is answered comes line by line, for as long as it is read.
    pub(crate) async fn watch(&self, message: &(impl Serialize + ?Sized)) -> Result<Opened> {
        let message = written(message)?;
        let question = Question::Streamed(message);
        let answer = self.through_members(&question);
        let (body, member) = self.unless_closed(answer).await?;
        Ok(Opened {
            lines: Lines::new(body.into_stream()),
            member,
        })
    }

    /// Waits until another member than this one is asked first: this one has failed somebody. Cancel safe.
    pub(crate) async fn moved_from(&self, member: usize) {
        let mut current = self.current.subscribe();
        let moved = current.wait_for(|current| *current != member).await;
        // Ends with the client, as who waits does.
        drop(moved);
    }

    /// Whether a member answers that the cluster works.
    pub(crate) async fn health(&self) -> Result<()> {
        let answer = self.through_members(&Question::Health);
        self.unless_closed(answer).await.map(drop)
    }

    /// Puts a question to one member. An answer that is not a stream has been read.
    async fn put_to(
        &self,
        member: &Origin,
        question: &Question<'_>,
        deadline: Instant,
    ) -> Result<Body> {
        match question {
            Question::Answered { path, message } => {
                let silence = self.request_timeout;
                let by = &self.transport;
                let sending = self.send_logged_in(by, member, path, message, deadline, silence);
                Ok(Body::from(sending.await?.bytes(LONGEST_ANSWER).await?))
            }
            Question::Streamed(message) => {
                let within = deadline.saturating_duration_since(Instant::now());
                // The deadline is that of the head; the body has none.
                let (by, end) = (&self.watching, Instant::now() + NEVER);
                let opening = self.send_logged_in(by, member, WATCH, message, end, NEVER);
                let answer = tokio::time::timeout(within, opening).await;
                answer.unwrap_or_else(|_| Err(late()))
            }
            Question::Health => {
                let request = Request::get("/health").body(Body::empty()).map_err(odd)?;
                let by = &self.transport;
                let sending = self.send(by, member, request, deadline, self.request_timeout);
                let (status, body) = sending.await?;
                let said = body.bytes(LONGEST_ANSWER).await?;
                let well = said.windows(WELL.len()).any(|part| part == WELL.as_bytes());
                if status.is_success() && well {
                    return Ok(Body::empty());
                }
                Err(Error::unavailable(
                    "a member of etcd says that the cluster does not work",
                ))
            }
        }
    }

    async fn unless_closed<T>(&self, asking: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(ended()),
            answer = asking => answer,
        }
    }

    /// Tries the members one after the other, beginning with the one that answered last; says which one answered.
    async fn through_members(&self, question: &Question<'_>) -> Result<(Body, usize)> {
        let latest = Instant::now() + self.request_timeout;
        let asked = Context::current().and_then(|context| context.deadline());
        let deadline = asked.map_or(latest, |asked| asked.min(latest));
        let first = *self.current.borrow();
        let count = self.members.len();
        let share = self.request_timeout / u32::try_from(count).unwrap_or(u32::MAX);
        let mut last = None;
        for (n, member) in self
            .members
            .iter()
            .cycle()
            .skip(first % count)
            .take(count)
            .enumerate()
        {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            let is_last = n + 1 == count;
            let until = if is_last {
                deadline
            } else {
                deadline.min(now + share.max(LEAST_TIME))
            };
            match self.put_to(member, question, until).await {
                Err(error) if is_of_member(&error) => {
                    if count > 1 {
                        tracing::debug!(
                            target: "trunkline::discovery",
                            member = %member.authority(), error = %error.report(),
                            "a member of etcd does not answer; the next one is asked"
                        );
                    }
                    last = Some(error);
                }
                outcome => {
                    let answered = (first + n) % count;
                    self.current.send_if_modified(|current| {
                        std::mem::replace(current, answered) != answered
                    });
                    return outcome.map(|body| (body, answered));
                }
            }
        }
        Err(last.unwrap_or_else(late))
    }

    /// Sends a message with the token of the login, and logs in again when that is no longer taken.
    async fn send_logged_in(
        &self,
        by: &Transport,
        member: &Origin,
        path: &str,
        asked: &Bytes,
        deadline: Instant,
        silence: Duration,
    ) -> Result<Body> {
        if !self.login.is_needed() {
            let sending = self.post(by, member, path, asked, None, deadline, silence);
            return sending.await;
        }
        let token = match self.login.token() {
            Some(token) => token,
            None => self.log_in(member, None, deadline).await?,
        };
        let known = Some(token.clone());
        let sending = self.post(by, member, path, asked, known, deadline, silence);
        match sending.await {
            Err(error) if error.kind() == ErrorKind::Unauthenticated => {
                let token = self.log_in(member, Some(&token), deadline).await?;
                let sending = self.post(by, member, path, asked, Some(token), deadline, silence);
                sending.await
            }
            outcome => outcome,
        }
    }

    /// Another token than the one that was refused.
    async fn log_in(
        &self,
        member: &Origin,
        refused: Option<&http::HeaderValue>,
        deadline: Instant,
    ) -> Result<http::HeaderValue> {
        let _turn = self.login.turn.lock().await;
        // Somebody else may have logged in meanwhile.
        if let Some(token) = self.login.token().filter(|token| Some(token) != refused) {
            return Ok(token);
        }
        let asked = written(&self.login.request())?;
        let path = "/v3/auth/authenticate";
        let deadline = deadline.min(Instant::now() + self.request_timeout);
        let (by, silence) = (&self.transport, self.request_timeout);
        let sending = self.post(by, member, path, &asked, None, deadline, silence);
        let answer = sending.await?;
        self.login.take(&read(answer).await?)?;
        self.login
            .token()
            .ok_or_else(|| Error::internal("no token after a login"))
    }

    #[expect(clippy::too_many_arguments, reason = "what a request is made of")]
    async fn post(
        &self,
        by: &Transport,
        member: &Origin,
        path: &str,
        asked: &Bytes,
        token: Option<http::HeaderValue>,
        deadline: Instant,
        silence: Duration,
    ) -> Result<Body> {
        let mut request = Request::post(path).header("content-type", "application/json");
        if path == WATCH {
            request = request.header(NEEDS_LEADER, "true");
        }
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.body(Body::from(asked.clone())).map_err(odd)?;
        let (status, body) = self.send(by, member, request, deadline, silence).await?;
        if status.is_success() {
            return Ok(body);
        }
        let said = body.bytes(LONGEST_ANSWER).await?;
        Err(from_answer(status, &said))
    }

    async fn send(
        &self,
        by: &Transport,
        member: &Origin,
        request: Request<Body>,
        deadline: Instant,
        silence: Duration,
    ) -> Result<(StatusCode, Body)> {
        let mut limits = Limits::default().with_read(silence).with_deadline(deadline);
        limits.connection = limits.connection.min(self.request_timeout);
        let answer = by.send(member, request, &limits).await?;
        let (parts, body) = answer.into_parts();
        Ok((parts.status, body))
    }
}

async fn read(body: Body) -> Result<Bytes> {
    body.bytes(LONGEST_ANSWER).await
}

fn written(message: &(impl Serialize + ?Sized)) -> Result<Bytes> {
    let body = serde_json::to_vec(message);
    body.map(Bytes::from)
        .map_err(|error| Error::invalid("it cannot be written as JSON").with_source(error))
}

fn odd(error: http::Error) -> Error {
    Error::invalid("no request to etcd").with_source(error)
}

fn late() -> Error {
    Error::timeout("no member of etcd answered in time")
}

fn ended() -> Error {
    Error::cancelled("the registry was shut down")
}
