//! A repeated request is answered with the first answer instead of being done twice.

mod execute;
mod key;
mod stored;

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Method, Request};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::BoxFuture;
use trunkline_core::task::Scope;
use trunkline_messaging::inbox::AnyInbox;

use crate::{IdempotencyConfig, ProblemResponse};

/// Honours `Idempotency-Key` on POST and PATCH (IETF draft `idempotency-key-header`).
///
/// The first request with a key runs; its answer is kept in the store, durably if the store is. A repetition gets that
/// answer with `Idempotency-Replayed: true`, 409 with `Retry-After` while the first one runs, or 422 when it is another
/// request under the same key. Only final answers are kept: after 408, 425, 429 or a 5xx, and when the handler panics,
/// the key is given back and the request may be sent again.
///
/// What has begun is done to its end, in a task of the layer: a client that leaves and a deadline that passes neither
/// stop the handler nor free the key, and the answer is kept for the repetition. Only a stop of the service does:
/// [`IdempotencyLayer::shutdown`] waits for the handlers and cuts off those that are not in time.
///
/// The answer is sent after it is stored. If the process dies between what the handler did and that, or cuts the
/// handler off, the key comes free after [`IdempotencyConfig::reservation`]; a handler that cannot bear this must write
/// its effect and the key in one transaction itself.
///
/// ```
/// use axum::{Router, routing::post};
/// use trunkline_messaging::inbox::AnyInbox;
/// use trunkline_server::layers::IdempotencyLayer;
///
/// fn router(inbox: AnyInbox) -> Router {
///     let once = IdempotencyLayer::new(inbox, "payments").required();
///     Router::new().route("/payments", post(async || "charged")).route_layer(once)
/// }
/// # let _ = router;
/// ```
#[derive(Clone)]
pub struct IdempotencyLayer(Arc<Settings>);

type ScopeOf = dyn Fn(&Parts) -> String + Send + Sync;

#[derive(Clone)]
struct Settings {
    inbox: AnyInbox,
    scope: String,
    scope_of: Option<Arc<ScopeOf>>,
    required: bool,
    config: IdempotencyConfig,
    body_limit: usize,
    tasks: Scope,
}

impl std::fmt::Debug for IdempotencyLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdempotencyLayer")
            .field("scope", &self.0.scope)
            .field("required", &self.0.required)
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

impl IdempotencyLayer {
    /// Keeps answers in this store. Keys of different scopes are different keys; the name of the service is a good one.
    #[must_use]
    pub fn new(inbox: AnyInbox, scope: impl Into<String>) -> Self {
        Self(Arc::new(Settings {
            inbox,
            scope: scope.into(),
            scope_of: None,
            required: false,
            config: IdempotencyConfig::default(),
            body_limit: 2 * 1024 * 1024,
            tasks: Scope::new(),
        }))
    }

    /// Refuses requests without a key with 400.
    #[must_use]
    pub fn required(self) -> Self {
        self.edit(|settings| settings.required = true)
    }

    /// Sets how long and how much is kept.
    #[must_use]
    pub fn with_config(self, config: IdempotencyConfig) -> Self {
        self.edit(|settings| settings.config = config)
    }

    /// Sets the largest body of a request, in bytes; it is held to be recognised. Default 2 MiB.
    #[must_use]
    pub fn with_body_limit(self, bytes: usize) -> Self {
        self.edit(|settings| settings.body_limit = bytes)
    }

    /// Adds something of the request to the scope, such as the user who is logged in: without it whoever knows a key
    /// and the request can read the answer.
    #[must_use]
    pub fn scoped_by(self, scope_of: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Self {
        self.edit(|settings| settings.scope_of = Some(Arc::new(scope_of)))
    }

    /// Waits for what goes on although its client is gone; returns how much had to be cut off at the deadline. Call it
    /// when the server has drained: a manager's own layers are drained by it.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn shutdown(&self, deadline: Instant) -> usize {
        self.0.tasks.shutdown(deadline).await
    }

    fn edit(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl Settings {
    fn scope(&self, parts: &Parts) -> String {
        match &self.scope_of {
            Some(scope_of) => format!("{}/{}", self.scope, scope_of(parts)),
            None => self.scope.clone(),
        }
    }

    /// How often a claim is renewed while its handler runs.
    fn renewal(&self) -> Duration {
        (self.config.reservation / 3).max(Duration::from_millis(1))
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService {
            inner,
            settings: Arc::clone(&self.0),
        }
    }
}

/// A service that does a thing once although it is asked for twice.
#[derive(Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> std::fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdempotencyService").finish_non_exhaustive()
    }
}

impl<S> Service<Request<Body>> for IdempotencyService<S>
where
    S: Service<Request<Body>, Response = Response> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !matches!(*request.method(), Method::POST | Method::PATCH) {
            return Box::pin(self.inner.call(request));
        }
        let (parts, body) = request.into_parts();
        let key = match key::key_of(&parts) {
            Ok(Some(key)) => key,
            Ok(None) if self.settings.required => {
                return refuse(ProblemResponse::bad_request(
                    "this request needs an Idempotency-Key, so that repeating it does no harm",
                ));
            }
            Ok(None) => return Box::pin(self.inner.call(Request::from_parts(parts, body))),
            Err(problem) => return refuse(problem),
        };
        // The one that is ready is called; its clone takes its place.
        let spare = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, spare);
        let settings = Arc::clone(&self.settings);
        Box::pin(execute::once(settings, ready, key, parts, body))
    }
}

fn refuse<E: Send + 'static>(problem: ProblemResponse) -> BoxFuture<'static, Result<Response, E>> {
    Box::pin(async move { Ok(problem.into_response()) })
}
