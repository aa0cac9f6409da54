//! The request as a middleware sees it.

use std::fmt;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use trunkline_core::{Context, Error, Result};

use crate::body::Body;
use crate::client::Core;
use crate::options::CallOptions;
use crate::response::Response;

/// What is known about a call beside its request.
#[derive(Clone)]
pub(crate) struct About {
    pub(crate) service: Arc<str>,
    pub(crate) endpoint: Arc<str>,
    pub(crate) operation: Option<&'static str>,
    pub(crate) attempt: Option<u32>,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) context: Context,
    /// Bytes of an answer that may be read into memory.
    pub(crate) limit: usize,
}

impl About {
    /// Of a call that comes through the layers of a client.
    pub(super) fn call(core: &Core, request: &Request<Body>) -> Self {
        let options = request.extensions().get::<CallOptions>();
        let named = options.and_then(|options| options.endpoint.clone());
        let context = options.and_then(|options| options.context.clone());
        Self {
            service: Arc::clone(&core.service),
            endpoint: named
                .unwrap_or_else(|| core.endpoint_name(request.method(), request.uri().path())),
            operation: options.and_then(|options| options.operation),
            attempt: None,
            version: None,
            context: context.unwrap_or_else(|| core.current_context()),
            limit: core.max_response_size,
        }
    }
}

/// A request on its way to a service, and what is known about the call.
///
/// ```
/// use trunkline_http::{MiddlewareResult, Next, ServiceRequest};
///
/// async fn signed(mut request: ServiceRequest, next: Next) -> MiddlewareResult {
///     if request.service() == "payment-service" {
///         request.bearer("token")?;
///     }
///     next.run(request).await
/// }
/// # let _ = signed;
/// ```
pub struct ServiceRequest {
    about: About,
    inner: Request<Body>,
}

impl fmt::Debug for ServiceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceRequest")
            .field("service", &self.about.service)
            .field("endpoint", &self.about.endpoint)
            .field("attempt", &self.about.attempt)
            .field("method", self.method())
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl ServiceRequest {
    pub(super) fn new(about: About, inner: Request<Body>) -> Self {
        Self { about, inner }
    }

    pub(super) fn into_parts(self) -> (About, Request<Body>) {
        (self.about, self.inner)
    }

    /// The service that is called.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.about.service
    }

    /// The endpoint that the call belongs to, such as `GET /users/{id}`; `*` where no template fits.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.about.endpoint
    }

    /// The method of a typed interface that makes the call, such as `Users::get_user`.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.about.operation
    }

    /// The number of the attempt, from 1, for a middleware around attempts; around calls there is none.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        self.about.attempt
    }

    /// The version of the service that the attempt asks for, where it names one; around calls there is none.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.about.version.as_deref()
    }

    /// The context of the call.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.about.context
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        self.inner.method()
    }

    /// Where it leads: for a middleware around calls the path as the caller wrote it, around attempts as it is sent.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        self.inner.uri()
    }

    /// The path of [`ServiceRequest::uri`], without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.inner.uri().path()
    }

    /// The headers. Around calls those of the context are not among them yet: they are written for each attempt.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// The headers, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.inner.headers_mut()
    }

    /// Sets a header.
    ///
    /// # Errors
    /// `Invalid` when name or value cannot be sent; the value, which may be secret, is not shown.
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<()> {
        let key = HeaderName::try_from(name).map_err(|error| {
            Error::invalid(format!("`{name}` is no name of a header")).with_source(error)
        })?;
        let value = HeaderValue::try_from(value).map_err(|error| {
            Error::invalid(format!("the value of the header `{name}` cannot be sent"))
                .with_source(error)
        })?;
        self.headers_mut().insert(key, value);
        Ok(())
    }

    /// Sends a token: `Authorization: Bearer …`, kept out of every log.
    ///
    /// # Errors
    /// `Invalid` when it cannot stand in a header.
    pub fn bearer(&mut self, token: impl AsRef<str>) -> Result<()> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.as_ref()))
            .map_err(|_| Error::invalid("the token cannot be sent in a header"))?;
        value.set_sensitive(true);
        self.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }

    /// What the call asks for over the settings of the client. Around attempts a change has no effect any more.
    pub fn options_mut(&mut self) -> &mut CallOptions {
        self.inner.extensions_mut().get_or_insert_default()
    }

    /// The request as `http` knows it.
    #[must_use]
    pub fn inner(&self) -> &Request<Body> {
        &self.inner
    }

    /// The same, to be changed: its body, its method, its URI.
    pub fn inner_mut(&mut self) -> &mut Request<Body> {
        &mut self.inner
    }

    /// An answer in place of the service's.
    #[must_use]
    pub fn respond(&self, answer: http::Response<impl Into<Body>>) -> Response {
        Response::new(
            answer.map(Into::into),
            &self.about.service,
            self.about.limit,
        )
    }
}
