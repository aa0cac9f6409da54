//! One request, to be sent as often as the policy asks for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use tokio::time::Instant;
use trunkline_core::{Context, Error, Result};

use super::inject::Injector;
use crate::body::Body;
use crate::options::{CallOptions, Draft};
use crate::origin::Origin;
use crate::redirect::{HARMLESS, Step};

/// The name of [`trunkline_core::names::header::IDEMPOTENCY_KEY`], as header maps want it.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Headers that an attempt adds to most requests: three of the context, the service's name, the host. With no more a map
/// that starts empty stays in what the allocator keeps at hand for the next one.
const ADDED: usize = 5;

/// What every attempt of a call sends.
pub(crate) struct Outgoing<'a> {
    draft: &'a Draft,
    path: PathAndQuery,
    pub(crate) context: &'a Context,
    /// Taken by the first attempt if it cannot be copied.
    body: Mutex<Option<Body>>,
    /// A second time does no harm.
    pub(crate) idempotent: bool,
    /// What names the version of the service that is asked, where one is.
    named: Option<Box<NamedVersion>>,
    /// The answer is decompressed, as this client asked for a coding that whoever reads it did not.
    pub(crate) decodes: bool,
    /// Headers that ask whether what is kept still holds.
    questions: Questions,
}

/// A version of the service, as one request names it.
#[derive(Clone, Debug)]
pub(crate) struct NamedVersion {
    pub(crate) version: Arc<str>,
    pub(crate) path: PathAndQuery,
    pub(crate) header: Option<(HeaderName, HeaderValue)>,
}

/// How a request is sent, beyond what its draft says.
pub(crate) struct Dressed {
    pub(crate) path: PathAndQuery,
    /// A second time does no harm.
    pub(crate) idempotent: bool,
    /// This client asked for a coding that whoever reads the answer did not.
    pub(crate) decodes: bool,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(
        draft: &'a Draft,
        dressed: Dressed,
        body: Body,
        context: &'a Context,
    ) -> Self {
        Self {
            draft,
            path: dressed.path,
            context,
            body: Mutex::new(Some(body)),
            idempotent: dressed.idempotent,
            named: None,
            decodes: dressed.decodes,
            questions: Questions::default(),
        }
    }

    /// The same request to one version of the service; `None` when the body has passed.
    pub(crate) fn to_version(&self, named: NamedVersion) -> Option<Self> {
        let body = self.body().as_ref().and_then(Body::try_clone)?;
        Some(Self {
            draft: self.draft,
            path: named.path.clone(),
            context: self.context,
            body: Mutex::new(Some(body)),
            idempotent: self.idempotent,
            named: Some(Box::new(named)),
            decodes: self.decodes,
            questions: Questions::default(),
        })
    }

    /// The version that is asked.
    pub(crate) fn version(&self) -> Option<&Arc<str>> {
        self.named.as_ref().map(|named| &named.version)
    }

    #[cfg_attr(not(feature = "cache"), expect(dead_code, reason = "for the cache"))]
    pub(crate) fn draft(&self) -> &'a Draft {
        self.draft
    }

    /// Path and query as they are sent.
    pub(crate) fn path(&self) -> &PathAndQuery {
        &self.path
    }

    /// The headers of the request itself.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.draft.headers
    }

    /// Sends these headers with every attempt, or none any more.
    #[cfg_attr(not(feature = "cache"), expect(dead_code, reason = "for the cache"))]
    pub(crate) fn ask_whether(&self, headers: Option<HeaderMap>) {
        self.questions.set(headers);
    }

    pub(crate) fn options(&self) -> &'a CallOptions {
        &self.draft.options
    }

    pub(crate) fn method(&self) -> &'a Method {
        &self.draft.method
    }

    /// Whether the body can be sent on several connections at the same time: a stream has but one rest.
    pub(crate) fn is_whole(&self) -> bool {
        self.body().as_ref().is_some_and(|body| !body.is_stream())
    }

    /// The path as the caller wrote it.
    pub(crate) fn written_path(&self) -> &str {
        self.draft.uri.path()
    }

    /// Whether the body can be sent once more.
    pub(crate) fn can_repeat(&self) -> bool {
        self.body().as_ref().is_some_and(Body::can_repeat)
    }

    /// Whether the body can be sent once more, asked by who may do so after a pause: an answer may have come early and the
    /// body be on its way still, and until the decision has fallen it must not pass.
    pub(crate) fn will_repeat(&self) -> bool {
        let body = self.body();
        let body = body.as_ref().filter(|body| body.can_repeat());
        body.inspect(|body| body.pause()).is_some()
    }

    /// Whether it can be sent once more and a second time does no harm.
    pub(crate) fn can_repeat_harmlessly(&self) -> bool {
        self.idempotent && self.can_repeat()
    }

    /// The request of the next attempt, to a place whose host it may name. Most bring no headers of their own: all that theirs
    /// say is known before.
    pub(crate) fn request_to(
        &self,
        injector: &Injector,
        left: Duration,
        origin: &Origin,
    ) -> Result<Box<Request<Body>>> {
        let plain =
            self.draft.headers.is_empty() && self.named.is_none() && !self.questions.are_asked();
        let headers = match plain {
            true => injector.headers(self.context, left, origin.host_header()),
            false => None,
        };
        match headers {
            Some(headers) => Ok(self.with_headers(self.next_body()?, headers)),
            None => self.request(injector, Some(left)),
        }
    }

    fn with_headers(&self, body: Body, headers: HeaderMap) -> Box<Request<Body>> {
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = self.draft.method.clone();
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.headers_mut() = headers;
        request
    }

    /// The request of the next attempt, for which so much time is left.
    pub(crate) fn request(
        &self,
        injector: &Injector,
        left: Option<Duration>,
    ) -> Result<Box<Request<Body>>> {
        let body = self.next_body()?;
        let own = &self.draft.headers;
        let mut headers = HeaderMap::with_capacity(own.len() + ADDED);
        if !own.is_empty() {
            headers.extend(own.clone());
        }
        if let Some((name, value)) = self.named.as_ref().and_then(|named| named.header.as_ref()) {
            headers.insert(name, value.clone());
        }
        self.questions.write(&mut headers);
        injector.inject(self.context, left, &mut headers);
        Ok(self.with_headers(body, headers))
    }

    /// The request, as it goes to another service of ours: with the context, but with nothing that says to the first one who
    /// asks.
    pub(crate) fn to_another(
        &self,
        injector: &Injector,
        deadline: Instant,
    ) -> Result<Box<Request<Body>>> {
        let own = &self.draft.headers;
        let mut headers: HeaderMap = own
            .iter()
            .filter(|(name, _)| HARMLESS.contains(name) || **name == IDEMPOTENCY_KEY)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some((name, value)) = self.named.as_ref().and_then(|named| named.header.as_ref()) {
            headers.insert(name, value.clone());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        injector.inject(self.context, Some(left), &mut headers);
        let mut request = Box::new(Request::new(self.next_body()?));
        *request.method_mut() = self.draft.method.clone();
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// The request, as it goes on where a redirect leads. Nothing of the context leaves the origin it was meant for.
    pub(crate) fn redirected(
        &self,
        injector: &Injector,
        deadline: Instant,
        step: &Step,
    ) -> Result<Box<Request<Body>>> {
        let body = if step.without_body {
            Body::empty()
        } else {
            self.next_body()?
        };
        let mut headers = step.headers(&self.draft.headers);
        if !step.crossed {
            if let Some((name, value)) = self.named.as_ref().and_then(|named| named.header.as_ref())
            {
                headers.insert(name, value.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            injector.inject(self.context, Some(left), &mut headers);
        }
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = step.method.clone();
        *request.uri_mut() = Uri::from(step.path.clone());
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn next_body(&self) -> Result<Body> {
        let mut body = self.body();
        let same = body.as_ref().and_then(Body::try_clone);
        // A stream that was to be repeated and has passed is of no use, not even its rest.
        let whole = |body: &mut Body| !body.is_spent();
        same.or_else(|| body.take_if(whole))
            .ok_or_else(|| Error::internal("the body has passed and cannot be sent again"))
    }

    fn body(&self) -> MutexGuard<'_, Option<Body>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Headers that ask whether what is kept still holds. Whoever does not ask pays no lock.
#[derive(Default)]
struct Questions {
    asked: AtomicBool,
    headers: Mutex<Option<Box<HeaderMap>>>,
}

impl Questions {
    fn set(&self, headers: Option<HeaderMap>) {
        self.asked.store(headers.is_some(), Ordering::Relaxed);
        *self.lock() = headers.map(Box::new);
    }

    fn are_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn write(&self, into: &mut HeaderMap) {
        if self.are_asked()
            && let Some(headers) = &*self.lock()
        {
            into.extend(HeaderMap::clone(headers));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<HeaderMap>>> {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outgoing<'_> {
    /// Nothing is sent any more: what is under way goes on.
    fn drop(&mut self) {
        if let Some(body) = &*self.body() {
            body.resume();
        }
    }
}
