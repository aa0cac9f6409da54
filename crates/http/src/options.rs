//! What one call asks for, over the settings of its client.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Uri};
use trunkline_core::Context;

use crate::body::Body;
#[cfg(feature = "cache")]
use crate::cache::CallCache;
use crate::coding::ContentCoding;
use crate::middleware::Hooks;

/// What one call asks for, over the settings of its client. Put it into the extensions of a request that goes through
/// the client as a tower service; [`RequestBuilder`](crate::RequestBuilder) has a method for each.
///
/// ```
/// use std::time::Duration;
/// use trunkline_http::CallOptions;
///
/// let options = CallOptions::default().with_timeout(Duration::from_secs(2)).without_retry();
/// assert_eq!(options.max_attempts, Some(1));
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// In place of the context of the running scope.
    pub context: Option<Context>,
    /// Limit of the whole call.
    pub timeout: Option<Duration>,
    /// Limit of one attempt.
    pub request_timeout: Option<Duration>,
    /// Attempts altogether, the first one included.
    pub max_attempts: Option<u32>,
    /// Whether a second time does no harm. Default: as the method says, or an `Idempotency-Key`.
    pub idempotent: Option<bool>,
    /// The endpoint, such as `GET /users/{id}`. Default: found by the path.
    pub endpoint: Option<Arc<str>>,
    /// The method of an interface that makes the call: `Users::get_user`. Default: none does.
    pub operation: Option<&'static str>,
    /// Whether the body of the answer may go on beyond the limit of the whole call, for as long as it moves; the limit is
    /// that of the answer's head then. Default: no.
    pub open_end: bool,
    /// Versions of the service that are asked, the preferred one first, in place of those of the settings. One alone is
    /// asked for and nothing else; an empty list names none. Default: as the settings say.
    pub versions: Option<Arc<[Arc<str>]>>,
    /// Whom the call is about, such as a user or a session: where the service is balanced by `consistent_hash`, calls with the
    /// same key go to the same instance. Default: nobody.
    pub affinity: Option<Arc<str>>,
    /// How the body is compressed on its way, whatever its size; the service has to understand it. Default: as
    /// `compression.request` says.
    pub compress: Option<ContentCoding>,
    /// What the call asks of the cache. Default: as its endpoint is set.
    #[cfg(feature = "cache")]
    pub cache: Option<Box<CallCache>>,
    /// The client's middleware around attempts.
    pub(crate) around: Option<Hooks>,
    /// The answer has no end: no limit of its size applies, but those of its parts.
    pub(crate) endless: bool,
    /// The answer is read whole by who asked: that it breaks off is a failure of the attempt.
    pub(crate) whole: bool,
    /// Counts the attempts that were sent, for who asks.
    pub(crate) sent: Option<Arc<AtomicU32>>,
}

impl CallOptions {
    /// Uses a context in place of that of the running scope.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    /// Sets the limit of the whole call.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the limit of one attempt.
    #[must_use]
    pub const fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// Sets the number of attempts, the first one included.
    #[must_use]
    pub const fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Makes one attempt only.
    #[must_use]
    pub const fn without_retry(self) -> Self {
        self.with_max_attempts(1)
    }

    /// Says whether a second time does no harm.
    #[must_use]
    pub const fn with_idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// Lets the body of the answer go on beyond the limit of the whole call, for as long as it moves.
    #[must_use]
    pub const fn with_open_end(mut self) -> Self {
        self.open_end = true;
        self
    }

    /// Asks for one version of the service and no other.
    #[must_use]
    pub fn with_version(self, version: impl Into<Arc<str>>) -> Self {
        self.with_versions([version])
    }

    /// Asks for these versions of the service, the preferred one first.
    #[must_use]
    pub fn with_versions<V: Into<Arc<str>>>(
        mut self,
        versions: impl IntoIterator<Item = V>,
    ) -> Self {
        self.versions = Some(versions.into_iter().map(Into::into).collect());
        self
    }

    /// Says whom the call is about.
    #[must_use]
    pub fn with_affinity(mut self, key: impl Into<Arc<str>>) -> Self {
        self.affinity = Some(key.into());
        self
    }

    /// Compresses the body on its way.
    #[must_use]
    pub const fn with_compress(mut self, coding: ContentCoding) -> Self {
        self.compress = Some(coding);
        self
    }

    /// Sets what the call asks of the cache.
    #[cfg(feature = "cache")]
    #[must_use]
    pub fn with_cache(mut self, cache: CallCache) -> Self {
        self.cache = Some(Box::new(cache));
        self
    }

    /// Takes the key under which an answer is kept from what is known of the call, unless it has one: what an interface's
    /// method keeps is cleared by that key.
    #[cfg(feature = "cache")]
    pub(crate) fn keep_key(&mut self, known: &Self) {
        let Some(known) = &known.cache else { return };
        match &mut self.cache {
            Some(cache) => cache.key = cache.key.take().or_else(|| known.key.clone()),
            None => self.cache = Some(known.clone()),
        }
    }

    /// There are no answers that are kept.
    #[cfg(not(feature = "cache"))]
    pub(crate) const fn keep_key(&self, _: &Self) {}

    /// Names the endpoint.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<Arc<str>>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }
}

/// The head of a request on its way through a client, and what the call asks for. Kept in a box: it is handed on many
/// times before it is sent.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) options: CallOptions,
}

impl Draft {
    pub(crate) fn new(method: Method) -> Box<Self> {
        Box::new(Self {
            method,
            uri: Uri::default(),
            headers: HeaderMap::new(),
            options: CallOptions::default(),
        })
    }

    /// Takes a request apart that comes through the tower of the user's layers.
    pub(crate) fn of(request: Request<Body>) -> (Box<Self>, Body) {
        let (mut parts, body) = request.into_parts();
        let draft = Self {
            options: parts.extensions.remove().unwrap_or_default(),
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
        };
        (Box::new(draft), body)
    }

    /// The other way round.
    pub(crate) fn into_request(self, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request.extensions_mut().insert(self.options);
        request
    }
}
