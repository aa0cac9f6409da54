//! A call of an interface's method, to be awaited.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use trunkline_core::{BoxFuture, Context, Error, Problem};

use super::answer::{Answer, Refusal, recast};
use crate::body::Progress;
use crate::error::ServiceError;
use crate::options::CallOptions;
use crate::request::RequestBuilder;
use crate::response::Response;

type Kinds<K, E, B> = fn() -> (K, E, B);
type Instead<T, E> = fn(E) -> Result<T, E>;

/// A call of a method that has not been sent: `.await` sends it. What is set here applies to this call alone and wins
/// over configuration and attributes.
///
/// `K` is the kind of answer, `E` the method's error, `B` what an answer with an error status holds. What they have to be
/// is asked for where a call is sent and nowhere else, so that the compiler says of a wrong one once what is wrong.
#[must_use = "a call is made when it is awaited"]
pub struct Call<'c, K, E = ServiceError, B = Problem> {
    request: Result<RequestBuilder<'c>, Error>,
    /// An [`Instead`] of the output and the error.
    instead: Option<Box<dyn Any + Send + Sync>>,
    kind: PhantomData<Kinds<K, E, B>>,
}

impl<K, E, B> fmt::Debug for Call<'_, K, E, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl<'c, K, E, B> Call<'c, K, E, B> {
    pub(super) fn new(request: Result<RequestBuilder<'c>, Error>) -> Self {
        Self {
            request,
            instead: None,
            kind: PhantomData,
        }
    }

    /// Limits the whole call.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.change(|request| request.timeout(timeout))
    }

    /// Limits each attempt.
    pub fn request_timeout(self, timeout: Duration) -> Self {
        self.change(|request| request.request_timeout(timeout))
    }

    /// Makes one attempt only.
    pub fn no_retry(self) -> Self {
        self.change(RequestBuilder::no_retry)
    }

    /// Sets the number of attempts, the first one included.
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.change(|request| request.max_attempts(attempts))
    }

    /// Says whether a second time does no harm, whatever the method says.
    pub fn idempotent(self, idempotent: bool) -> Self {
        self.change(|request| request.idempotent(idempotent))
    }

    /// Asks for one version of the service and no other, named where `versions.by` of the settings says.
    pub fn version(self, version: impl Into<Arc<str>>) -> Self {
        self.change(|request| request.version(version))
    }

    /// Asks for these versions of the service, the preferred one first, in place of those of the settings.
    pub fn versions<V: Into<Arc<str>>>(self, versions: impl IntoIterator<Item = V>) -> Self {
        self.change(|request| request.versions(versions))
    }

    /// Sends this `Idempotency-Key`, which makes a repetition safe, also one of a later call that has the same.
    pub fn idempotency_key(self, key: impl AsRef<str>) -> Self {
        self.change(|request| request.idempotency_key(key))
    }

    /// Sends a header more.
    pub fn header<N, V>(self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: Into<http::Error>,
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        self.change(|request| request.header(name, value))
    }

    /// Sends a token: `Authorization: Bearer …`, kept out of every log.
    pub fn bearer(self, token: impl AsRef<str>) -> Self {
        self.change(|request| request.bearer(token))
    }

    /// Uses a context in place of that of the running scope.
    pub fn context(self, context: Context) -> Self {
        self.change(|request| request.context(context))
    }

    /// Takes all that one call may ask for from elsewhere, in place of what was set before.
    pub fn options(self, options: CallOptions) -> Self {
        self.change(|request| request.options(options))
    }

    /// Is told how much of the body has passed, whenever a piece of it is handed to the connection.
    pub fn on_progress(self, tell: impl FnMut(Progress) + Send + Unpin + 'static) -> Self {
        self.change(|request| request.on_progress(tell))
    }

    fn change(mut self, change: impl FnOnce(RequestBuilder<'c>) -> RequestBuilder<'c>) -> Self {
        self.request = self.request.map(change);
        self
    }
}

#[cfg(feature = "cache")]
impl<K, E, B> Call<'_, K, E, B> {
    /// Asks the other side whatever the cache holds, and keeps the answer.
    pub fn force_refresh(self) -> Self {
        self.change(RequestBuilder::force_refresh)
    }

    /// Neither looks into the cache nor keeps the answer.
    pub fn no_cache(self) -> Self {
        self.change(RequestBuilder::no_cache)
    }

    /// Keeps a successful answer for so long.
    pub fn cache_ttl(self, ttl: Duration) -> Self {
        self.change(|request| request.cache_ttl(ttl))
    }

    /// Keeps the answer under this key, by which it can be cleared; only where it has a `ttl`.
    #[doc(alias = "key_func")]
    pub fn cache_key(self, key: impl Into<Arc<str>>) -> Self {
        self.change(|request| request.cache_key(key))
    }

    /// Clears the answer together with others of this tag.
    pub fn cache_tag(self, tag: impl Into<String>) -> Self {
        self.change(|request| request.cache_tag(tag))
    }
}

impl<K: Answer, E, B: Refusal> Call<'_, K, E, B> {
    /// Answers by a function, which is told the cause, when the call has failed for good.
    pub fn or_else(mut self, instead: fn(E) -> Result<K::Output, E>) -> Self
    where
        E: 'static,
    {
        self.instead = Some(Box::new(instead));
        self
    }

    /// Sends the request and gives the answer as it came, whatever its status.
    ///
    /// # Errors
    /// Why there is no answer, or why the request cannot be sent.
    ///
    /// # Cancel safety
    /// As [`RequestBuilder::send`].
    pub async fn response(self) -> Result<Response, ServiceError<B>> {
        let request = self.request?;
        let request = match K::OPEN_END {
            true => request.open_end(),
            false => request,
        };
        request.send().await.map_err(recast)
    }

    /// Sends the request and reads the answer. `.await` on the call does the same.
    ///
    /// # Errors
    /// Why there is no answer, `Status` for one with an error status, `Validation` for one, or for a request, that does
    /// not have the form that it has to have; after the method's fallback, if it has one.
    ///
    /// # Cancel safety
    /// As [`RequestBuilder::send`].
    pub async fn send(self) -> Result<K::Output, E>
    where
        E: From<ServiceError<B>> + 'static,
    {
        settle(self.outcome().await)
    }

    /// The first half of [`Call::send`], which asks nothing of the error. Generated code calls the halves one by one, each
    /// where the type stands that it asks something of.
    #[doc(hidden)]
    pub async fn outcome(mut self) -> Outcome<K::Output, B> {
        let instead = self.instead.take();
        if K::WHOLE {
            self.request = self.request.map(RequestBuilder::whole);
        }
        let result = match self.response().await {
            Ok(response) => K::read::<B>(response).await,
            Err(error) => Err(error),
        };
        Outcome { result, instead }
    }
}

/// What came of a call, before its fallback.
#[doc(hidden)]
#[derive(Debug)]
pub struct Outcome<T, B>
where
    B: fmt::Debug + fmt::Display + Send + Sync + 'static,
{
    result: Result<T, ServiceError<B>>,
    instead: Option<Box<dyn Any + Send + Sync>>,
}

/// The second half of [`Call::send`].
///
/// # Errors
/// As [`Call::send`].
#[doc(hidden)]
pub fn settle<T, E, B>(outcome: Outcome<T, B>) -> Result<T, E>
where
    T: 'static,
    E: From<ServiceError<B>> + 'static,
    B: fmt::Debug + fmt::Display + Send + Sync + 'static,
{
    let instead = outcome
        .instead
        .as_ref()
        .and_then(|instead| instead.downcast_ref::<Instead<T, E>>());
    match (outcome.result, instead) {
        (Ok(answer), _) => Ok(answer),
        (Err(error), None) => Err(error.into()),
        (Err(error), Some(instead)) => instead(error.into()),
    }
}

impl<'c, K, E, B> IntoFuture for Call<'c, K, E, B>
where
    K: Answer + 'c,
    E: From<ServiceError<B>> + Send + 'static,
    B: Refusal,
{
    type Output = Result<K::Output, E>;
    type IntoFuture = BoxFuture<'c, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
