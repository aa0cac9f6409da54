//! Requests to the agent: one place, the token, time limits, and answers as errors.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::{Context, Error, Result, Retry};
use trunkline_http::{Body, Limits, Origin, Transport, TransportConfig};

use crate::config::ConsulConfig;
use crate::error::from_answer;
use crate::token::Token;

/// Longest answer that is read: ten thousand instances with much metadata.
const LONGEST_ANSWER: usize = 256 * 1024 * 1024;

/// Connections beside those that blocking queries hold.
const SHORT_CONNECTIONS: usize = 32;

/// What need not be escaped in a part of a path or in a query.
const PLAIN: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A part of a path or a value of a query, escaped.
pub(crate) fn escaped(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, &PLAIN)
}

/// The agent of Consul that is asked.
pub(crate) struct Agent {
    transport: Transport,
    origin: Origin,
    token: Token,
    /// Namespace and partition, which every request names.
    scope: String,
    request_timeout: Duration,
    closed: CancellationToken,
}

/// What the agent answered with success.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Agent {
    pub(crate) fn new(config: &ConsulConfig) -> Result<Self> {
        let mut settings = TransportConfig::default();
        let blocking = usize::try_from(config.max_blocking_queries).unwrap_or(usize::MAX);
        settings.max_connections = blocking.saturating_add(SHORT_CONNECTIONS);
        settings.max_keepalive_connections = settings.max_connections;
        settings.ca_file.clone_from(&config.ca_file);
        settings
            .client_certificate
            .clone_from(&config.client_certificate);
        settings.client_key.clone_from(&config.client_key);
        let origin = if config.tls {
            Origin::https(&config.host, config.port)
        } else {
            Origin::http(&config.host, config.port)
        };
        let mut scope = String::new();
        for (name, value) in [("ns", &config.namespace), ("partition", &config.partition)] {
            if let Some(value) = value {
                scope.push_str(&format!("&{name}={}", escaped(value)));
            }
        }
        Ok(Self {
            transport: Transport::new(&settings)?,
            origin: origin.map_err(|error| {
                Error::config(format!(
                    "service_discovery.connection.host: {}",
                    error.message()
                ))
            })?,
            token: Token::new(config.token.as_ref(), config.token_file.clone())?,
            scope,
            request_timeout: config.request_timeout,
            closed: CancellationToken::new(),
        })
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(ended());
        }
        Ok(())
    }

    pub(crate) async fn shutdown(&self, deadline: Instant) {
        self.closed.cancel();
        self.transport.shutdown(deadline).await;
    }

    /// Asks for something. `within` bounds it, and so does the caller's deadline.
    pub(crate) async fn get(&self, path: &str, within: Duration) -> Result<Answer> {
        self.ask(Method::GET, path, Bytes::new(), within).await
    }

    /// Tells something; a value as JSON goes with it.
    pub(crate) async fn put<T: Serialize + ?Sized>(&self, path: &str, value: &T) -> Result<()> {
        let body = serde_json::to_vec(value)
            .map_err(|error| Error::invalid("it cannot be written as JSON").with_source(error))?;
        self.ask(Method::PUT, path, body.into(), self.request_timeout)
            .await?;
        Ok(())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Answer> {
        let mark = if path.contains('?') { "" } else { "?" };
        let target = format!("{path}{mark}{}", self.scope);
        let latest = Instant::now() + within;
        let asked = Context::current().and_then(|context| context.deadline());
        let deadline = asked.map_or(latest, |asked| asked.min(latest));
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(ended()),
            answer = self.ask_until(&method, &target, &body, deadline) => answer,
        }
    }

    async fn ask_until(
        &self,
        method: &Method,
        target: &str,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Answer> {
        let token = self.token.current().await?;
        let (status, answer) = self
            .once(method, target, body, token.as_ref(), deadline)
            .await?;
        let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if refused && let Some(newer) = self.token.instead_of(token.as_ref()).await {
            let (status, answer) = self
                .once(method, target, body, Some(&newer), deadline)
                .await?;
            return judged(status, answer);
        }
        judged(status, answer)
    }

    async fn once(
        &self,
        method: &Method,
        target: &str,
        body: &Bytes,
        token: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<(StatusCode, Answer)> {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(token) = token {
            request = request.header("x-consul-token", token);
        }
        let request = request
            .body(Body::from(body.clone()))
            .map_err(|error| Error::invalid("no request to Consul").with_source(error))?;
        // A blocking query is silent for as long as it waits.
        let silence = deadline.saturating_duration_since(Instant::now());
        let limits = Limits::default().with_read(silence).with_deadline(deadline);
        let answer = self.transport.send(&self.origin, request, &limits).await;
        let answer = answer.map_err(repeatable)?;
        let (parts, body) = answer.into_parts();
        let body = body.bytes(LONGEST_ANSWER).await.map_err(repeatable)?;
        let headers = parts.headers;
        Ok((parts.status, Answer { headers, body }))
    }
}

/// Everything that is told to an agent may be told again.
fn repeatable(error: Error) -> Error {
    match error.retry() {
        Retry::IfIdempotent => error.with_retry(Retry::Safe),
        Retry::Never | Retry::Safe => error,
    }
}

fn judged(status: StatusCode, answer: Answer) -> Result<Answer> {
    // The health of a service is told by the status, with the service in the body.
    let told = answer.headers.contains_key("x-consul-reason");
    let tells_health = told
        && matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
    if status.is_success() || tells_health {
        Ok(answer)
    } else {
        Err(from_answer(status, &answer.body))
    }
}

fn ended() -> Error {
    Error::cancelled("the registry was shut down")
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::internal("the answer of Consul is not understood").with_source(error)
        })
    }

    /// Whether something is missing because the token may not see it; told by releases from 1.11 on, to those who have a
    /// token.
    pub(crate) fn is_filtered(&self) -> bool {
        let said = self.headers.get("x-consul-results-filtered-by-acls");
        said.is_some_and(|said| said == "true")
    }

    /// A number that Consul tells in a header.
    pub(crate) fn number(&self, header: &str) -> Option<u64> {
        self.headers.get(header)?.to_str().ok()?.trim().parse().ok()
    }
}
