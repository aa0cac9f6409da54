//! One GraphQL request on its way.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use trunkline_core::{Context, Error, Result};

use super::GraphQlClient;
use super::answer::{self, GraphQlResponse};
use super::document::{self, Kind};
use super::persisted::{self, Said};
use crate::client::IDEMPOTENCY_KEY;
use crate::error::ServiceError;
use crate::options::CallOptions;
use crate::response::Response;

/// The type of answers whose status says how the request fared; others are GraphQL only if they say so in the body.
const ANSWER: &str = "application/graphql-response+json";

/// What is understood, best first.
const ACCEPTED: &str = "application/graphql-response+json, application/json;q=0.9";

/// A GraphQL request to be sent.
#[must_use = "a request is sent by `send` or `fetch`"]
pub struct GraphQlRequest {
    client: GraphQlClient,
    document: Arc<str>,
    operation: Option<String>,
    variables: Map<String, Value>,
    headers: HeaderMap,
    options: CallOptions,
    wrong: Option<Error>,
}

impl fmt::Debug for GraphQlRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphQlRequest")
            .field("client", &self.client)
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

/// What is to be sent, settled.
struct Settled {
    client: GraphQlClient,
    document: Arc<str>,
    /// As the caller named it.
    operation: Option<String>,
    variables: Map<String, Value>,
    headers: HeaderMap,
    options: CallOptions,
    is_query: bool,
}

/// What of the document travels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Document,
    Hash,
    Both,
}

impl GraphQlRequest {
    pub(super) fn new(client: GraphQlClient, document: Arc<str>) -> Self {
        Self {
            client,
            document,
            operation: None,
            variables: Map::new(),
            headers: HeaderMap::new(),
            options: CallOptions::default(),
            wrong: None,
        }
    }

    /// Says which operation of the document is asked for, where it has several.
    pub fn operation(mut self, name: impl Into<String>) -> Self {
        self.operation = Some(name.into());
        self
    }

    /// Sets a variable.
    pub fn variable(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => drop(self.variables.insert(name.into(), value)),
            Err(error) => self.refuse("a variable cannot be written as JSON", error),
        }
        self
    }

    /// Sets the fields of a value as variables.
    pub fn variables(mut self, variables: impl Serialize) -> Self {
        match serde_json::to_value(variables) {
            Ok(Value::Object(all)) => self.variables.extend(all),
            Ok(Value::Null) => {}
            Ok(_) => {
                let wrong = || Error::invalid("GraphQL: variables are a mapping from names");
                self.wrong.get_or_insert_with(wrong);
            }
            Err(error) => self.refuse("the variables cannot be written as JSON", error),
        }
        self
    }

    /// Sets a header.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: Into<http::Error>,
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        let name = name.try_into().map_err(Into::into);
        match name.and_then(|name| Ok((name, value.try_into().map_err(Into::into)?))) {
            Ok((name, value)) => drop(self.headers.insert(name, value)),
            Err(error) => self.refuse("a header cannot be sent", error),
        }
        self
    }

    /// Sends an `Idempotency-Key`, which is what makes a repetition of a mutation safe.
    pub fn idempotency_key(self, key: impl AsRef<str>) -> Self {
        self.header(IDEMPOTENCY_KEY, key.as_ref())
    }

    /// Limits the whole call, the sending of a document that the service did not know included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Sets the number of attempts, the first one included.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.max_attempts = Some(attempts);
        self
    }

    /// Names the endpoint whose policy, circuit and measures apply. Default: by the operation, `QUERY /graphql/User`.
    pub fn endpoint(mut self, endpoint: impl Into<Arc<str>>) -> Self {
        self.options.endpoint = Some(endpoint.into());
        self
    }

    /// Uses a context in place of that of the running scope.
    pub fn context(mut self, context: Context) -> Self {
        self.options.context = Some(context);
        self
    }

    /// Sends the request and reads the data; any error that the service tells is an error.
    ///
    /// # Errors
    /// As [`GraphQlRequest::send`] and [`GraphQlResponse::into_result`].
    ///
    /// # Cancel safety
    /// As [`GraphQlRequest::send`].
    pub async fn fetch<T: DeserializeOwned>(self) -> Result<T, ServiceError> {
        self.send().await?.into_result()
    }

    /// Sends the request and reads the answer: data, errors, or both.
    ///
    /// # Errors
    /// `Validation` when the document has not the one operation that is asked for, when a part cannot be sent, or when the
    /// answer has not the form that it should have, with the JSON path (`data.user.name`), unless the service tells
    /// errors, which are told in its place; `Other` with `Unsupported` for a subscription; else as
    /// [`RequestBuilder::send`](crate::RequestBuilder::send) and [`Response::error_for_status`].
    ///
    /// # Cancel safety
    /// Dropping it gives up the call; the request may have been processed.
    pub async fn send<T: DeserializeOwned>(self) -> Result<GraphQlResponse<T>, ServiceError> {
        let began = Instant::now();
        let settled = self.settle()?;
        let form = match settled.client.sends_hashes() {
            // A key stands for one request: whoever keeps answers by it would keep that a hash was not known.
            true if !settled.headers.contains_key(IDEMPOTENCY_KEY) => Form::Hash,
            _ => Form::Document,
        };
        let (mut service, mut bytes) = settled.ask(form, None).await?;
        if form == Form::Hash
            && let Ok(told) = serde_json::from_slice::<GraphQlResponse<IgnoredAny>>(&bytes)
            && let Some(said) = persisted::said(&told.errors)
        {
            let next = match said {
                Said::NotFound => Form::Both,
                Said::NotSupported => {
                    settled.client.keeps_none.store(true, Ordering::Relaxed);
                    Form::Document
                }
            };
            // Nothing was carried out; both requests together have the time of one call.
            let left = settled.total().saturating_sub(began.elapsed());
            (service, bytes) = settled.ask(next, Some(left)).await?;
        }
        Ok(answer::read(&service, &bytes)?)
    }

    fn settle(self) -> Result<Settled> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let asked = document::choose(&self.document, self.operation.as_deref())?;
        let (is_query, word) = match asked.kind {
            Kind::Query => (true, "QUERY"),
            Kind::Mutation => (false, "MUTATION"),
            Kind::Subscription => {
                let wrong = "GraphQL: subscriptions need a connection that stays; ask by a query";
                return Err(Error::unsupported(wrong));
            }
        };
        let path = &self.client.path;
        let mut options = self.options;
        options.endpoint.get_or_insert_with(|| {
            let name = asked.name.unwrap_or_default();
            let separator = if name.is_empty() { "" } else { "/" };
            format!("{word} {path}{separator}{name}").into()
        });
        if is_query {
            options.idempotent = Some(true);
        }
        let mut headers = self.headers;
        let accepted = HeaderValue::from_static(ACCEPTED);
        headers.entry(ACCEPT).or_insert(accepted);
        Ok(Settled {
            client: self.client,
            document: self.document,
            operation: self.operation,
            variables: self.variables,
            headers,
            options,
            is_query,
        })
    }

    fn refuse(&mut self, what: &'static str, error: impl Into<trunkline_core::BoxError>) {
        let wrong = || Error::invalid(format!("GraphQL: {what}")).with_source(error);
        self.wrong.get_or_insert_with(wrong);
    }
}

impl Settled {
    /// The limit of the whole call.
    fn total(&self) -> Duration {
        let own = self.options.timeout;
        own.unwrap_or_else(|| self.client.client.total(self.options.endpoint.as_deref()))
    }

    /// Sends it once, and reads the answer that is one of GraphQL.
    async fn ask(
        &self,
        form: Form,
        left: Option<Duration>,
    ) -> Result<(Arc<str>, Bytes), ServiceError> {
        let mut options = self.options.clone();
        options.timeout = left.or(options.timeout);
        let by_get = self.client.by_get && self.is_query && form != Form::Both;
        let parts = self.parts(form);
        let client = &self.client.client;
        let mut request = client
            .request(
                if by_get { Method::GET } else { Method::POST },
                &*self.client.path,
            )
            .headers(self.headers.clone());
        request = match by_get {
            true => {
                // In a query, what is no text is JSON.
                let written = |value: &Value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                parts.iter().fold(request, |request, (name, value)| {
                    request.param(name, written(value))
                })
            }
            false => request.json(&parts),
        };
        let response = request.options(options).send().await?;
        read(response).await
    }

    fn parts(&self, form: Form) -> Map<String, Value> {
        let mut parts = Map::new();
        if form != Form::Hash {
            parts.insert("query".to_owned(), Value::from(&*self.document));
        }
        if let Some(operation) = &self.operation {
            parts.insert("operationName".to_owned(), operation.as_str().into());
        }
        if !self.variables.is_empty() {
            parts.insert("variables".to_owned(), self.variables.clone().into());
        }
        if form != Form::Document {
            let hash = persisted::hash(&self.document);
            let extensions = json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } });
            parts.insert("extensions".to_owned(), extensions);
        }
        parts
    }
}

/// Reads the body of an answer. One with an error status is an answer of GraphQL where it says so by its type, or where a
/// refusal tells errors.
async fn read(response: Response) -> Result<(Arc<str>, Bytes), ServiceError> {
    let service = Arc::clone(response.service());
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok((service, response.bytes().await?));
    }
    let content_type = response.header(CONTENT_TYPE.as_str()).unwrap_or_default();
    let content_type = content_type.to_ascii_lowercase();
    let is_answer = content_type.starts_with(ANSWER);
    let may_be_one = status.is_client_error() && content_type.starts_with("application/json");
    if !is_answer && !may_be_one {
        response.error_for_status().await?;
        return Err(unreachable_status(status));
    }
    let retried = response.headers().clone();
    let bytes = response.bytes().await?;
    if answer::tells_errors(&bytes) {
        return Ok((service, bytes));
    }
    let mut again = http::Response::new(crate::Body::from(bytes));
    *again.status_mut() = status;
    *again.headers_mut() = retried;
    Response::new(again, &service, usize::MAX)
        .error_for_status()
        .await?;
    Err(unreachable_status(status))
}

/// An error status was no error.
fn unreachable_status(status: StatusCode) -> ServiceError {
    Error::internal(format!("the status {status} was taken for an error")).into()
}
