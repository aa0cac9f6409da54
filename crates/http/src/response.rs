//! The answer to a call.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{StatusCode, Version};
use serde::de::DeserializeOwned;
use trunkline_core::{Error, Origin, Problem, Result};
use trunkline_resilience::RetryExhausted;

use crate::body::Body;
use crate::client::{Fallback, ServedVersion, is_retried};
use crate::error::{Attempts, ServiceError, StatusError};
use crate::interface::{decode_json, decode_msgpack, is_msgpack};
use crate::redirect::Redirected;
use crate::transport::Reply;

/// Bytes of an answer with an error status that are read to learn what is wrong.
const MOST_OF_A_PROBLEM: usize = 64 * 1024;

/// Characters of a text that stands in for a problem document.
const MOST_OF_A_TEXT: usize = 1024;

/// The answer to a call: its head is here, its body comes.
pub struct Response {
    pub(crate) inner: Reply,
    service: Arc<str>,
    /// Bytes of a body that are read into memory at most.
    limit: usize,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("service", &self.service)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// An answer made here, such as one that an implementation of an interface gives.
impl From<http::Response<Body>> for Response {
    fn from(inner: http::Response<Body>) -> Self {
        Self::new(inner, &Arc::from(""), 16 * 1024 * 1024)
    }
}

impl Response {
    pub(crate) fn new(inner: impl Into<Reply>, service: &Arc<str>, limit: usize) -> Self {
        Self {
            inner: inner.into(),
            service: Arc::clone(service),
            limit,
        }
    }

    /// Who answered.
    pub(crate) fn service(&self) -> &Arc<str> {
        &self.service
    }

    /// What goes along with the answer inside the process.
    pub(crate) fn extensions_mut(&mut self) -> &mut http::Extensions {
        self.inner.extensions_mut()
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// The headers, for a middleware to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.inner.headers_mut()
    }

    /// The first value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// The version of HTTP that was spoken.
    #[must_use]
    pub fn version(&self) -> Version {
        self.inner.version()
    }

    /// The URL that answered, where redirects were followed to it.
    #[must_use]
    pub fn redirected_to(&self) -> Option<&str> {
        let redirected = self.inner.extensions().get::<Redirected>();
        redirected.map(|redirected| redirected.url.as_str())
    }

    /// Whether a fallback answered, and which.
    #[must_use]
    pub fn fallback(&self) -> Option<Fallback> {
        self.inner.extensions().get().copied()
    }

    /// Which version of the service answered, where the request named one.
    #[must_use]
    pub fn service_version(&self) -> Option<&str> {
        let served = self.inner.extensions().get::<ServedVersion>();
        served.map(|served| &*served.0)
    }

    /// Every attempt of the call, where the answer is an error and not the first one.
    #[must_use]
    pub fn retry_exhausted(&self) -> Option<&RetryExhausted> {
        self.inner.extensions().get().map(Attempts::told)
    }

    /// The body, whole.
    ///
    /// # Errors
    /// `Other` when it is larger than the client's `max_response_size`; `ServiceTimeout` or `ServiceUnavailable` when
    /// it does not come to its end.
    ///
    /// # Cancel safety
    /// Dropping it gives up the body.
    pub async fn bytes(self) -> Result<Bytes, ServiceError> {
        self.read().await.map_err(ServiceError::from)
    }

    /// The body as text.
    ///
    /// # Errors
    /// As [`Response::bytes`]; `Validation` when it is not UTF-8.
    ///
    /// # Cancel safety
    /// Dropping it gives up the body.
    pub async fn text(self) -> Result<String, ServiceError> {
        let service = Arc::clone(&self.service);
        String::from_utf8(self.read().await?.into()).map_err(|error| {
            let text = format!("the answer of {service} is not UTF-8");
            Error::invalid(text)
                .with_origin(Origin::Remote)
                .with_source(error)
                .into()
        })
    }

    /// The body as a value, from JSON.
    ///
    /// # Errors
    /// As [`Response::bytes`]; `Validation` when it is not JSON or not of this form, with the place.
    ///
    /// # Cancel safety
    /// Dropping it gives up the body.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ServiceError> {
        let service = Arc::clone(&self.service);
        let bytes = self.read().await?;
        decode_json(&service, &bytes).map_err(ServiceError::from)
    }

    /// The body as a stream of pieces. Time limits apply; a limit of its size does not.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        self.inner.into_body().into_stream()
    }

    /// The answer as `http` knows it.
    #[must_use]
    pub fn into_inner(self) -> http::Response<Body> {
        *self.inner
    }

    /// The answer, unless its status is an error (4xx, 5xx): then what its body says is wrong.
    ///
    /// # Errors
    /// `Status`; the problem is read from a problem document (RFC 9457) or other JSON object, else made of the body's
    /// text.
    ///
    /// # Cancel safety
    /// Dropping it gives up the body.
    pub async fn error_for_status(self) -> Result<Self, ServiceError> {
        if !is_error(self.status()) {
            return Ok(self);
        }
        let status = self.status();
        let service = self.service.to_string();
        let retried = is_retried(self.headers());
        let attempts = self.inner.extensions().get::<Attempts>().cloned();
        let json = self.header(CONTENT_TYPE.as_str()).is_some_and(is_json);
        let bytes = self.inner.into_body().bytes(MOST_OF_A_PROBLEM).await;
        let problem = problem(status, json, bytes.ok().as_deref());
        let error = StatusError::new(service, status, problem);
        let error = error.retried(retried).after(attempts);
        Err(ServiceError::Status(Box::new(error)))
    }

    /// Like [`Response::error_for_status`], with one's own type of what the body says.
    ///
    /// # Errors
    /// `Status`. When the body is not of this form, such as a page of a proxy: what the status says (`ServiceUnavailable` of
    /// 502 and 503, `ServiceTimeout` of 504, `Validation` of 400, else mostly `Other`), and
    /// [`ServiceError::status_code`], [`ServiceError::mismatch`] with it.
    ///
    /// # Cancel safety
    /// Dropping it gives up the body.
    pub async fn error_for_status_as<B>(self) -> Result<Self, ServiceError<B>>
    where
        B: DeserializeOwned + fmt::Debug + fmt::Display + Clone + Send + Sync + 'static,
    {
        if !is_error(self.status()) {
            return Ok(self);
        }
        let (status, service) = (self.status(), self.service.to_string());
        let retried = is_retried(self.headers());
        let attempts = self.inner.extensions().get::<Attempts>().cloned();
        let json = self.header(CONTENT_TYPE.as_str()).is_some_and(is_json);
        let packed = is_msgpack(&self);
        let bytes = self.inner.into_body().bytes(MOST_OF_A_PROBLEM).await;
        let read = match &bytes {
            Ok(bytes) if packed => {
                decode_msgpack(&service, bytes).map_err(|error| error.find().cloned())
            }
            Ok(bytes) => decode_json(&service, bytes).map_err(|error| error.find().cloned()),
            Err(_) => Err(None),
        };
        match read {
            Ok(problem) => {
                let error = StatusError::new(service, status, problem);
                let error = error.retried(retried).after(attempts);
                Err(ServiceError::Status(Box::new(error)))
            }
            // The status is known, whatever the body says.
            Err(mismatch) => {
                let problem = problem(status, json, bytes.ok().as_deref());
                let error = StatusError::new(service, status, problem);
                let error = error.retried(retried).after(attempts).unread(mismatch);
                let known: ServiceError = ServiceError::Status(Box::new(error));
                Err(Error::from(known).into())
            }
        }
    }

    async fn read(self) -> Result<Bytes> {
        let Self {
            inner,
            service,
            limit,
        } = self;
        let read = inner.into_body().bytes(limit).await;
        read.map_err(|error| error.with_component(service.to_string()))
    }
}

/// What the body of an error says. One that cannot be read leaves the status, which is known.
fn problem(status: StatusCode, json: bool, bytes: Option<&[u8]>) -> Problem {
    let title = status.canonical_reason().unwrap_or("unknown status");
    let plain = Problem::new(status.as_u16(), title);
    let Some(bytes) = bytes else { return plain };
    if json && let Ok(problem) = serde_json::from_slice::<Problem>(bytes) {
        return filled(problem, plain);
    }
    match String::from_utf8_lossy(bytes).trim() {
        "" => plain,
        text => plain.with_detail(text.chars().take(MOST_OF_A_TEXT).collect::<String>()),
    }
}

/// A document that leaves out title or status has them from the answer.
fn filled(mut problem: Problem, plain: Problem) -> Problem {
    if problem.title.is_empty() {
        problem.title = plain.title;
    }
    problem.status = problem.status.or(plain.status);
    problem
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.ends_with("+json")
}
