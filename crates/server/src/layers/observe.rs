//! One log line and the metrics of every request.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context as TaskContext, Poll};

use axum::extract::MatchedPath;
use http::{Method, Request, Response};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::names::target;
use trunkline_core::{BoxFuture, Context};
use trunkline_telemetry::Metrics;
use trunkline_telemetry::metrics::{ActiveGuard, HttpServerMetrics, RouteMetrics};

/// The route of a request that none matched: raw paths are unbounded.
const UNMATCHED: &str = "unmatched";

/// The status that is logged when the client went away before the answer was ready, as nginx calls it.
const CLIENT_GONE: u16 = 499;

/// The route that a response belongs to, where one handler serves many: put it into the response's extensions, or give
/// it to [`ObserveLayer::with_templates`]. It must come from configuration, never from the path of a request.
#[derive(Clone, Debug)]
pub struct RouteTemplate(
    /// Such as `/api/v1/users`.
    pub Arc<str>,
);

/// By template, then by method.
type Routes = HashMap<Box<str>, Vec<(Method, RouteMetrics)>>;

/// Writes one log line a request (target `trunkline::access`) and measures it by method, route template and status.
/// The duration is that until the head of the response.
#[derive(Clone)]
pub struct ObserveLayer {
    shared: Arc<Shared>,
    template_of: Option<Arc<TemplateOf>>,
}

pub(crate) type TemplateOf = dyn Fn(&str) -> Option<RouteTemplate> + Send + Sync;

#[derive(Debug)]
struct Shared {
    metrics: HttpServerMetrics,
    routes: RwLock<Routes>,
}

impl fmt::Debug for ObserveLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveLayer")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl ObserveLayer {
    /// Measures into these metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let metrics = metrics.http_server();
        Self {
            shared: Arc::new(Shared {
                metrics,
                routes: RwLock::default(),
            }),
            template_of: None,
        }
    }

    /// Names the route of a path where one handler serves many, so that requests which never reach the handler or are
    /// dropped there have their route too.
    #[must_use]
    pub fn with_templates(
        self,
        template_of: impl Fn(&str) -> Option<RouteTemplate> + Send + Sync + 'static,
    ) -> Self {
        self.with_template_of(Some(Arc::new(template_of)))
    }

    pub(crate) fn with_template_of(mut self, template_of: Option<Arc<TemplateOf>>) -> Self {
        self.template_of = template_of;
        self
    }
}

impl Shared {
    fn route(&self, method: &Method, template: &str) -> RouteMetrics {
        let known = |routes: &Routes| {
            let methods = routes.get(template)?;
            let found = methods.iter().find(|(known, _)| known == method)?;
            Some(found.1.clone())
        };
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = known(&routes) {
            return route;
        }
        drop(routes);
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = known(&routes) {
            return route;
        }
        let route = self.metrics.route(method.as_str(), template);
        let methods = routes.entry(template.into()).or_default();
        methods.push((method.clone(), route.clone()));
        route
    }
}

/// Clients may invent methods without end; they are one.
fn bounded(method: &Method) -> Method {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    if KNOWN.contains(method) {
        return method.clone();
    }
    Method::from_bytes(b"_OTHER").unwrap_or(Method::TRACE)
}

impl<S> Layer<S> for ObserveLayer {
    type Service = ObserveService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ObserveService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose requests are logged and measured.
#[derive(Clone, Debug)]
pub struct ObserveService<S> {
    inner: S,
    layer: ObserveLayer,
}

impl<S, B, R> Service<Request<B>> for ObserveService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let ObserveLayer {
            shared,
            template_of,
        } = &self.layer;
        let template_of = template_of.as_ref();
        let running = Running {
            shared: Arc::clone(shared),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            matched: request.extensions().get::<MatchedPath>().cloned(),
            named: template_of.and_then(|template_of| template_of(request.uri().path())),
            context: request
                .extensions()
                .get::<Context>()
                .cloned()
                .or_else(Context::current),
            start: Instant::now(),
            status: CLIENT_GONE,
            _active: shared.metrics.active(),
        };
        let future = self.inner.call(request);
        Box::pin(async move {
            // Named whole, so that the whole of it is dropped with this future.
            let mut running = running;
            let result = future.await;
            running.status = 500;
            if let Ok(response) = &result {
                running.status = response.status().as_u16();
                if let Some(named) = response.extensions().get::<RouteTemplate>() {
                    running.named = Some(named.clone());
                }
            }
            result
        })
    }
}

/// Reports when it is dropped, so that a request whose client went away is reported too.
struct Running {
    shared: Arc<Shared>,
    method: Method,
    path: String,
    matched: Option<MatchedPath>,
    named: Option<RouteTemplate>,
    context: Option<Context>,
    start: Instant,
    status: u16,
    _active: ActiveGuard,
}

impl Drop for Running {
    fn drop(&mut self) {
        let elapsed = self.start.elapsed();
        let route = match (&self.named, &self.matched) {
            (Some(named), _) => &*named.0,
            (None, Some(matched)) => matched.as_str(),
            (None, None) => UNMATCHED,
        };
        self.shared
            .route(&bounded(&self.method), route)
            .served(self.status, elapsed);
        let duration_ms = elapsed.as_micros() as f64 / 1000.0;
        let identity = self.context.as_ref().and_then(Context::identity);
        let caller = identity.map(|identity| identity.service.as_str());
        let log = || {
            tracing::info!(
                target: target::ACCESS, method = %self.method, route, path = self.path, status = self.status,
                duration_ms, caller, "request"
            );
        };
        match &self.context {
            Some(context) => context.sync_scope(log),
            None => log(),
        }
    }
}
