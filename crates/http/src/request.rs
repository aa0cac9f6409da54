//! Puts a request together and sends it.

use std::fmt;
use std::future::IntoFuture;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use trunkline_core::{BoxFuture, Context, Error, Result};

use crate::body::{Body, Progress};
use crate::client::{Handle, IDEMPOTENCY_KEY};
use crate::coding::ContentCoding;
use crate::error::ServiceError;
use crate::events::EventStream;
use crate::multipart::Multipart;
use crate::options::{CallOptions, Draft};
use crate::query;
use crate::response::Response;

/// What has to be encoded in a path and query that are otherwise taken as they are.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'\\')
    .add(b'^')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A request to be sent. What is wrong with one of its parts is said when it is sent.
///
/// ```no_run
/// # use std::time::Duration;
/// # use trunkline_http::EnhancedHttpClient;
/// # async fn order(client: EnhancedHttpClient) -> Result<(), trunkline_http::ServiceError> {
/// let orders: serde_json::Value = client
///     .get("/orders")
///     .param("limit", 50)
///     .param("active", true)
///     .timeout(Duration::from_secs(2))
///     .await?
///     .json()
///     .await?;
/// let placed = client
///     .post("/orders")
///     .json(&serde_json::json!({ "user_id": 123 }))
///     .idempotency_key("order-123-1")
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a request is sent by `send` or `.await`"]
pub struct RequestBuilder<'a> {
    handle: Held<'a>,
    draft: Box<Draft>,
    path: String,
    body: Body,
    wrong: Option<Error>,
}

/// The client that a request goes through.
#[derive(Clone)]
enum Held<'a> {
    Borrowed(&'a Handle),
    Owned(Arc<Handle>),
}

impl Deref for Held<'_> {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        match self {
            Self::Borrowed(handle) => handle,
            Self::Owned(handle) => handle,
        }
    }
}

impl fmt::Debug for RequestBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder")
            .field("method", &self.draft.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl<'a> RequestBuilder<'a> {
    pub(crate) fn new(handle: &'a Handle, method: Method, path: &str) -> Self {
        Self::held(Held::Borrowed(handle), method, path)
    }

    /// One that keeps the client it goes through.
    pub(crate) fn owned(handle: Handle, method: Method, path: &str) -> RequestBuilder<'static> {
        RequestBuilder::held(Held::Owned(Arc::new(handle)), method, path)
    }

    fn held(handle: Held<'a>, method: Method, path: &str) -> Self {
        Self {
            handle,
            draft: Draft::new(method),
            path: path.to_owned(),
            body: Body::empty(),
            wrong: None,
        }
    }

    /// Adds a parameter to the query. Booleans are written as `true` and `false`.
    pub fn param(mut self, name: &str, value: impl fmt::Display) -> Self {
        query::append(&mut self.path, name, &value.to_string());
        self
    }

    /// Adds the fields of a value to the query: lists repeat the name, what is absent is left out.
    #[doc(alias = "query")]
    pub fn params<T: Serialize + ?Sized>(mut self, params: &T) -> Self {
        if let Err(error) = query::append_all(&mut self.path, params) {
            self.wrong.get_or_insert(error);
        }
        self
    }

    /// Sets a header, in place of the client's own of that name.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: Into<http::Error>,
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        let pair = name
            .try_into()
            .map_err(Into::into)
            .and_then(|name| Ok((name, value.try_into().map_err(Into::into)?)));
        match pair {
            Ok((name, value)) => drop(self.draft.headers.insert(name, value)),
            Err(error) => self.refuse("a header cannot be sent", error),
        }
        self
    }

    /// Sets several headers.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.draft.headers.extend(headers);
        self
    }

    /// Sends a token: `Authorization: Bearer …`, kept out of every log.
    pub fn bearer(mut self, token: impl AsRef<str>) -> Self {
        match HeaderValue::try_from(format!("Bearer {}", token.as_ref())) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.draft.headers.insert(AUTHORIZATION, value);
            }
            Err(error) => self.refuse("the token cannot be sent in a header", error),
        }
        self
    }

    /// Sends a value as JSON, with its content type.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match Body::json(value) {
            Ok(body) => {
                self.body = body;
                let json = HeaderValue::from_static("application/json");
                self.draft.headers.entry(CONTENT_TYPE).or_insert(json);
            }
            Err(error) => drop(self.wrong.get_or_insert(error)),
        }
        self
    }

    /// Sends a form with texts and files, with its content type.
    ///
    /// ```no_run
    /// # use trunkline_http::{EnhancedHttpClient, Multipart};
    /// # async fn send(client: EnhancedHttpClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let form = Multipart::new().text("title", "Report").file("report", "text/csv", "report.csv").await?;
    /// let stored = client.post("/reports").multipart(form).await?;
    /// # Ok(()) }
    /// ```
    pub fn multipart(mut self, form: Multipart) -> Self {
        let content_type = HeaderValue::try_from(form.content_type());
        match (content_type, form.into_body()) {
            (Ok(content_type), Ok(body)) => {
                self.body = body;
                self.draft.headers.insert(CONTENT_TYPE, content_type);
            }
            (Err(error), _) => self.refuse("the content type cannot be sent", error),
            (_, Err(error)) => drop(self.wrong.get_or_insert(error)),
        }
        self
    }

    /// Is told how much of the body has passed, whenever a piece of it is handed to the connection. To be called after the
    /// body is set; see [`Body::with_progress`].
    pub fn on_progress(mut self, tell: impl FnMut(Progress) + Send + Unpin + 'static) -> Self {
        self.body = self.body.with_progress(tell);
        self
    }

    /// Sends a body as it is, without a content type.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Compresses the body on its way, whatever its size; the service has to understand it. Takes the feature `compression`.
    pub fn compress(self, coding: ContentCoding) -> Self {
        self.option(|options| options.with_compress(coding))
    }

    /// Sends an `Idempotency-Key`, which is what makes a repetition of POST and PATCH safe.
    pub fn idempotency_key(self, key: impl AsRef<str>) -> Self {
        self.header(IDEMPOTENCY_KEY, key.as_ref())
    }

    /// Limits the whole call.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.option(|options| options.with_timeout(timeout))
    }

    /// Limits each attempt.
    pub fn request_timeout(self, timeout: Duration) -> Self {
        self.option(|options| options.with_request_timeout(timeout))
    }

    /// Makes one attempt only.
    pub fn no_retry(self) -> Self {
        self.option(CallOptions::without_retry)
    }

    /// Sets the number of attempts, the first one included.
    #[doc(alias = "retry_attempts")]
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.option(|options| options.with_max_attempts(attempts))
    }

    /// Says whether a second time does no harm, whatever the method says.
    pub fn idempotent(self, idempotent: bool) -> Self {
        self.option(|options| options.with_idempotent(idempotent))
    }

    /// Asks for one version of the service and no other, named where `versions.by` of the settings says.
    pub fn version(self, version: impl Into<Arc<str>>) -> Self {
        self.option(|options| options.with_version(version))
    }

    /// Asks for these versions of the service, the preferred one first, in place of those of the settings.
    pub fn versions<V: Into<Arc<str>>>(self, versions: impl IntoIterator<Item = V>) -> Self {
        self.option(|options| options.with_versions(versions))
    }

    /// Says whom the call is about, such as a user or a session: where the service is balanced by `consistent_hash`, calls
    /// with the same key go to the same instance.
    pub fn affinity(self, key: impl Into<Arc<str>>) -> Self {
        self.option(|options| options.with_affinity(key))
    }

    /// Names the endpoint whose policy, circuit and measures apply.
    pub fn endpoint(self, endpoint: impl Into<Arc<str>>) -> Self {
        self.option(|options| options.with_endpoint(endpoint))
    }

    /// Uses a context in place of that of the running scope.
    pub fn context(self, context: Context) -> Self {
        self.option(|options| options.with_context(context))
    }

    /// Sends the request and reads the answer as JSON; an answer of 400 or more is an error.
    ///
    /// # Errors
    /// As [`RequestBuilder::send`], [`Response::error_for_status`] and [`Response::json`].
    ///
    /// # Cancel safety
    /// As [`RequestBuilder::send`].
    pub async fn fetch<T: serde::de::DeserializeOwned>(self) -> Result<T, ServiceError> {
        self.send().await?.error_for_status().await?.json().await
    }

    /// Sends the request and waits for the head of the answer. `.await` on the builder does the same.
    ///
    /// # Errors
    /// [`ServiceError`] when there is no answer; an answer with an error status is `Ok`, see
    /// [`Response::error_for_status`].
    ///
    /// # Cancel safety
    /// Dropping it gives up the call and the connection in use; the request may have been processed.
    pub async fn send(self) -> Result<Response, ServiceError> {
        let handle = self.handle.clone();
        let (draft, body) = self.finish()?;
        let response = handle.call(draft, body).await?;
        let core = handle.core();
        Ok(Response::new(
            response,
            &core.service,
            core.max_response_size,
        ))
    }

    /// Asks for server-sent events: a stream that connects again by itself and goes on where it was.
    ///
    /// ```no_run
    /// # async fn follow(client: trunkline_http::EnhancedHttpClient) -> Result<(), trunkline_http::ServiceError> {
    /// let mut events = client.get("/orders/events").events()?;
    /// while let Some(event) = events.next().await {
    ///     let event = event?;
    ///     println!("{} {}", event.event, event.data);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What is wrong with a part of the request; nothing is sent yet.
    pub fn events(self) -> Result<EventStream, ServiceError> {
        let handle = self.handle.clone();
        let (draft, body) = self.finish()?;
        Ok(EventStream::new(&handle, *draft, body)?)
    }

    fn finish(mut self) -> Result<(Box<Draft>, Body)> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        self.draft.uri = uri(self.path)?;
        Ok((self.draft, self.body))
    }

    /// Takes all that a call may ask for, but keeps the operation and the endpoint that it is known to be.
    pub(crate) fn options(mut self, options: CallOptions) -> Self {
        let known = std::mem::take(&mut self.draft.options);
        self.draft.options = options;
        let now = &mut self.draft.options;
        now.keep_key(&known);
        now.operation = now.operation.or(known.operation);
        now.endpoint = now.endpoint.take().or(known.endpoint);
        now.open_end |= known.open_end;
        now.whole |= known.whole;
        self
    }

    /// Says which method of an interface makes the call, and which endpoint it leads to.
    pub(crate) fn of_operation(mut self, operation: &'static str, endpoint: &Arc<str>) -> Self {
        let options = &mut self.draft.options;
        options.operation = Some(operation);
        options.endpoint.get_or_insert_with(|| Arc::clone(endpoint));
        self
    }

    /// Sets a header unless it is set.
    pub(crate) fn default_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.draft.headers.entry(name).or_insert(value);
        self
    }

    pub(crate) fn open_end(self) -> Self {
        self.option(CallOptions::with_open_end)
    }

    /// Reads the answer of a success within the attempt.
    pub(crate) fn whole(mut self) -> Self {
        self.draft.options.whole = true;
        self
    }

    /// Replaces the path.
    pub(crate) fn at(mut self, path: String) -> Self {
        self.path = path;
        self
    }

    pub(crate) fn option(mut self, change: impl FnOnce(CallOptions) -> CallOptions) -> Self {
        self.draft.options = change(std::mem::take(&mut self.draft.options));
        self
    }

    fn refuse(&mut self, what: &'static str, error: impl Into<http::Error>) {
        self.wrong
            .get_or_insert_with(|| Error::invalid(what).with_source(error.into()));
    }
}

impl<'a> IntoFuture for RequestBuilder<'a> {
    type Output = Result<Response, ServiceError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Takes a path and query as they are, but for what can never stand in a URL.
fn uri(path: String) -> Result<Uri> {
    let wrong = |error| Error::invalid("the path cannot stand in a URL").with_source(error);
    let clean = path.bytes().all(|byte| CLEAN[usize::from(byte)]);
    let path = if clean {
        path
    } else {
        utf8_percent_encode(&path, UNSAFE).to_string()
    };
    if path.starts_with('/') || has_scheme(&path) {
        return Uri::from_maybe_shared(bytes::Bytes::from(path)).map_err(wrong);
    }
    let path = format!("/{path}");
    Uri::from_maybe_shared(bytes::Bytes::from(path)).map_err(wrong)
}

/// Whether it is a whole URL: elsewhere, such as in a query, `://` says nothing.
fn has_scheme(path: &str) -> bool {
    path.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// Bytes that stay as they are; looked up for each byte of each path.
const CLEAN: [bool; 256] = {
    let mut clean = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        clean[byte as usize] = !matches!(
            byte,
            b'"' | b'<' | b'>' | b'`' | b'\\' | b'^' | b'{' | b'|' | b'}'
        );
        byte += 1;
    }
    clean
};
