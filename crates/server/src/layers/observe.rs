//! One log line and the metrics of every request.

use std::collections::HashMap;
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

/// The route that a response belongs to, where one handler serves many: put it into the response's extensions. It must
/// come from configuration, never from the path of a request.
#[derive(Clone, Debug)]
pub struct RouteTemplate(
    /// Such as `/api/v1/users`.
    pub Arc<str>,
);

/// By template, then by method.
type Routes = HashMap<Box<str>, Vec<(Method, RouteMetrics)>>;

/// Writes one log line a request (target `trunkline::access`) and measures it by method, route template and status.
/// The duration is that until the head of the response.
#[derive(Clone, Debug)]
pub struct ObserveLayer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    metrics: HttpServerMetrics,
    routes: RwLock<Routes>,
}

impl ObserveLayer {
    /// Measures into these metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let metrics = metrics.http_server();
        Self(Arc::new(Shared {
            metrics,
            routes: RwLock::default(),
        }))
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
            shared: Arc::clone(&self.0),
        }
    }
}

/// A service whose requests are logged and measured.
#[derive(Clone, Debug)]
pub struct ObserveService<S> {
    inner: S,
    shared: Arc<Shared>,
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
        let running = Running {
            shared: Arc::clone(&self.shared),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            matched: request.extensions().get::<MatchedPath>().cloned(),
            named: None,
            context: request
                .extensions()
                .get::<Context>()
                .cloned()
                .or_else(Context::current),
            start: Instant::now(),
            status: CLIENT_GONE,
            _active: self.shared.metrics.active(),
        };
        let future = self.inner.call(request);
        Box::pin(async move {
            // Named whole, so that the whole of it is dropped with this future.
            let mut running = running;
            let result = future.await;
            running.status = 500;
            if let Ok(response) = &result {
                running.status = response.status().as_u16();
                running.named = response.extensions().get::<RouteTemplate>().cloned();
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
        let route = self.matched.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
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
