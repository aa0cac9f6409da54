//! Single calls by the name of a service.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use trunkline_core::{BoxFuture, Context, Error, Result, task};

use super::ServiceSdk;
use super::report::{ErrorContext, Handler, tell};
use super::result::ServiceResult;
use crate::body::Body;
use crate::error::ServiceError;
use crate::request::RequestBuilder;
use crate::response::Response;

/// What both forms of a call share.
pub(super) struct Sending {
    sdk: Result<ServiceSdk>,
    service: String,
    method: Method,
    path: String,
    /// Changes of the request, in order. It is made when the call is: then its method is known, and the service.
    changes: Vec<Change>,
}

type Change = Box<dyn FnOnce(RequestBuilder<'static>) -> RequestBuilder<'static> + Send>;

impl Sending {
    pub(super) fn new(sdk: Result<ServiceSdk>, service: &str, method: Method, path: &str) -> Self {
        Self {
            sdk,
            service: service.to_owned(),
            method,
            path: path.to_owned(),
            changes: Vec::new(),
        }
    }

    fn change(
        &mut self,
        change: impl FnOnce(RequestBuilder<'static>) -> RequestBuilder<'static> + Send + 'static,
    ) {
        self.changes.push(Box::new(change));
    }

    /// A value as JSON; it is written now, as it may be borrowed.
    fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        match serde_json::to_vec(value) {
            Ok(text) => self.change(|request| {
                let json = HeaderValue::from_static("application/json");
                let request = request.default_header(http::header::CONTENT_TYPE, json);
                request.body(text)
            }),
            Err(error) => {
                let wrong = "the body cannot be written as JSON";
                self.fail(Error::invalid(wrong).with_source(error));
            }
        }
    }

    fn params<T: Serialize + ?Sized>(&mut self, params: &T) {
        match serde_json::to_value(params) {
            Ok(params) => self.change(move |request| request.params(&params)),
            Err(error) => {
                self.fail(Error::invalid("the parameters cannot be written").with_source(error));
            }
        }
    }

    fn fail(&mut self, error: Error) {
        if self.sdk.is_ok() {
            self.sdk = Err(error);
        }
    }

    async fn send(self) -> Result<Answer, ServiceError> {
        let sdk = self.sdk?;
        let client = sdk.client(&self.service)?;
        let request = client.into_request(self.method.clone(), &self.path);
        let request = self
            .changes
            .into_iter()
            .fold(request, |request, change| change(request));
        let response = request.whole().send().await?;
        Ok(Answer {
            status: response.status(),
            handlers: sdk.handlers(),
            response,
        })
    }
}

/// An answer whose body is still to be read.
struct Answer {
    status: StatusCode,
    handlers: Arc<[Handler]>,
    response: Response,
}

impl Answer {
    /// Reads the body. That it cannot be read is told to the handlers here: the answer itself was none of their business.
    async fn read<T: DeserializeOwned>(self) -> Result<T, ServiceError> {
        // Told of already, as far as its status is concerned.
        let mut response = self.response.error_for_status().await?;
        let call = response.extensions_mut().remove::<ErrorContext>();
        let error = match decode(response).await {
            Ok(data) => return Ok(data),
            Err(error) => error,
        };
        match call {
            Some(call) => Err(tell(&self.handlers, error, call).await),
            None => Err(error),
        }
    }
}

/// Reads a body; none at all is `null`, as `204 No Content` has it.
async fn decode<T: DeserializeOwned>(response: Response) -> Result<T, ServiceError> {
    let service = Arc::clone(response.service());
    let mut bytes = response.bytes().await?;
    if bytes.is_empty() {
        bytes = Bytes::from_static(b"null");
    }
    let body = http::Response::new(Body::from(bytes));
    Response::new(body, &service, usize::MAX).json().await
}

macro_rules! asking {
    ($call:ident) => {
        impl<T> $call<T> {
            /// Adds a parameter to the query. Booleans are written as `true` and `false`.
            pub fn param(mut self, name: &str, value: impl fmt::Display) -> Self {
                let (name, value) = (name.to_owned(), value.to_string());
                self.sending
                    .change(move |request| request.param(&name, value));
                self
            }

            /// Adds the fields of a value to the query: lists repeat the name, what is absent is left out.
            pub fn params<P: Serialize + ?Sized>(mut self, params: &P) -> Self {
                self.sending.params(params);
                self
            }

            /// Sets a header.
            pub fn header<N, V>(mut self, name: N, value: V) -> Self
            where
                N: TryInto<HeaderName> + Send + 'static,
                N::Error: Into<http::Error>,
                V: TryInto<HeaderValue> + Send + 'static,
                V::Error: Into<http::Error>,
            {
                self.sending
                    .change(move |request| request.header(name, value));
                self
            }

            /// Sends a token: `Authorization: Bearer …`, kept out of every log.
            pub fn bearer(mut self, token: impl Into<String>) -> Self {
                let token = token.into();
                self.sending.change(move |request| request.bearer(token));
                self
            }

            /// Sends a value as JSON.
            #[doc(alias = "data")]
            pub fn json<P: Serialize + ?Sized>(mut self, value: &P) -> Self {
                self.sending.json(value);
                self
            }

            /// Sends a body as it is, without a content type.
            pub fn body(mut self, body: impl Into<Body>) -> Self {
                let body = body.into();
                self.sending.change(move |request| request.body(body));
                self
            }

            /// Sends an `Idempotency-Key`, which is what makes a repetition of POST and PATCH safe.
            pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
                let key = key.into();
                self.sending
                    .change(move |request| request.idempotency_key(key));
                self
            }

            /// Limits the whole call.
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.sending.change(move |request| request.timeout(timeout));
                self
            }

            /// Sets the number of attempts, the first one included.
            #[doc(alias = "max_attempts")]
            pub fn retry_attempts(mut self, attempts: u32) -> Self {
                self.sending
                    .change(move |request| request.max_attempts(attempts));
                self
            }

            /// Asks for one version of the service and no other.
            pub fn version(mut self, version: impl Into<Arc<str>>) -> Self {
                let version = version.into();
                self.sending.change(move |request| request.version(version));
                self
            }

            /// Names the endpoint whose policy, circuit and measures apply, such as `GET /users/{id}`.
            pub fn endpoint(mut self, endpoint: impl Into<Arc<str>>) -> Self {
                let endpoint = endpoint.into();
                self.sending
                    .change(move |request| request.endpoint(endpoint));
                self
            }

            /// Uses a context in place of that of the running scope.
            pub fn context(mut self, context: Context) -> Self {
                self.sending.change(move |request| request.context(context));
                self
            }
        }

        impl<T> fmt::Debug for $call<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($call))
                    .field("service", &self.sending.service)
                    .field("method", &self.sending.method)
                    .field("path", &self.sending.path)
                    .finish_non_exhaustive()
            }
        }
    };
}

asking!(ServiceCall);
asking!(ServiceFetch);

/// A call whose outcome is a [`ServiceResult`]; `.await` makes it. It never answers `Err`: a panic of a middleware is a
/// failure like any other.
#[must_use = "a call is made by `.await`"]
pub struct ServiceCall<T = Value> {
    sending: Sending,
    data: PhantomData<fn() -> T>,
}

impl ServiceCall {
    pub(super) fn new(sending: Sending) -> Self {
        Self {
            sending,
            data: PhantomData,
        }
    }

    /// A call for which there is no SDK: it fails with the reason.
    pub fn without_sdk(service: &str, path: &str, reason: Error) -> Self {
        Self::new(Sending::new(Err(reason), service, Method::GET, path))
    }

    /// Reads the answer as a type of one's own in place of any JSON.
    pub fn typed<T: DeserializeOwned>(self) -> ServiceCall<T> {
        ServiceCall {
            sending: self.sending,
            data: PhantomData,
        }
    }
}

impl<T> ServiceCall<T> {
    /// Sets the method. Default GET.
    pub fn method(mut self, method: Method) -> Self {
        self.sending.method = method;
        self
    }
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for ServiceCall<T> {
    type Output = ServiceResult<T>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let sending = self.sending;
        Box::pin(async move {
            let called = async move {
                let answer = match sending.send().await {
                    Ok(answer) => answer,
                    Err(error) => return ServiceResult::failed(error),
                };
                let status = answer.status;
                match answer.read().await {
                    Ok(data) => ServiceResult::succeeded(data, Some(status)),
                    Err(error) => {
                        let mut result = ServiceResult::failed(error);
                        // One that cannot be read has a status all the same.
                        result.status_code = Some(status);
                        result
                    }
                }
            };
            // In a box of its own, as it is moved on its way there.
            match task::catch_panic(Box::pin(called)).await {
                Ok(result) => result,
                Err(panic) => ServiceResult::failed(panic.into()),
            }
        })
    }
}

/// A call whose outcome is the data of the answer; `.await` makes it.
#[must_use = "a call is made by `.await`"]
pub struct ServiceFetch<T> {
    sending: Sending,
    data: PhantomData<fn() -> T>,
}

impl<T> ServiceFetch<T> {
    pub(super) fn new(sending: Sending) -> Self {
        Self {
            sending,
            data: PhantomData,
        }
    }

    pub(super) fn sends<P: Serialize + ?Sized>(mut self, data: &P) -> Self {
        self.sending.json(data);
        self
    }
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for ServiceFetch<T> {
    type Output = Result<T, ServiceError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.sending.send().await?.read().await })
    }
}
