//! The routes of an app and the layers around them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::middleware::map_response;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use tower_service::Service;
use trunkline_core::{Error, Result};

use super::builder::Plan;
use crate::admission::Admission;
use crate::layers::{
    BodyLimitLayer, CatchPanicLayer, ContextLayer, DeadlineLayer, InFlightLayer, ObserveLayer,
};
use crate::problem::explain_empty;
use crate::routes::{health_routes, metrics_routes, publish_routes};

pub(super) fn assemble(plan: &Plan) -> Result<Router> {
    let layers = Layers::of(plan)?;
    // Outside the limits: a service that is full must still say how it is.
    let mut app = health_routes(&plan.config.health_path, &plan.health);
    if plan.metrics.is_enabled() {
        app = app.merge(metrics_routes(&plan.config.metrics_path, &plan.metrics));
    }
    if plan.config.publish.enabled {
        let brokers = plan.brokers.clone();
        let brokers =
            brokers.ok_or_else(|| Error::config("server.publish: there are no brokers"))?;
        let routes = publish_routes(&plan.config.publish, brokers, plan.propagation.clone())?;
        app = app.merge(layers.around(routes));
    }
    let app = app.layer(map_response(async |response: Response| {
        explain_empty(response)
    }));
    Ok(app.fallback_service(layers.around(plan.router.clone())))
}

struct Layers {
    context: ContextLayer,
    observe: ObserveLayer,
    admission: Admission,
    in_flight: InFlightLayer,
    body_limit: BodyLimitLayer,
}

impl Layers {
    fn of(plan: &Plan) -> Result<Self> {
        let config = &plan.config;
        let admission = Admission::new(plan.name.as_str(), config, &plan.metrics);
        Ok(Self {
            admission: admission.map_err(|invalid| {
                Error::config(format!("server: {invalid}")).with_source(invalid)
            })?,
            context: ContextLayer::new(plan.propagation.clone())
                .with_timeout(config.request_timeout)
                .with_trust_baggage(config.trust_baggage),
            observe: ObserveLayer::new(&plan.metrics).with_template_of(plan.template_of.clone()),
            in_flight: InFlightLayer::new(config.max_in_flight),
            body_limit: BodyLimitLayer::new(config.body_limit.bytes()),
        })
    }

    /// The last one is the outermost.
    fn around(&self, router: Router) -> Router {
        let Admission { rate_limit, shed } = &self.admission;
        let mut router = router
            .layer(map_response(async |response: Response| {
                explain_empty(response)
            }))
            .layer(DefaultBodyLimit::disable())
            .layer(DeadlineLayer)
            .layer(self.body_limit);
        // Inside the bound that is fixed: what that refuses says nothing about how long requests take.
        if let Some(shed) = shed {
            router = router.layer(shed.clone());
        }
        router = router.layer(self.in_flight.clone());
        if let Some(rate_limit) = rate_limit {
            router = router.layer(rate_limit.clone());
        }
        router
            .layer(CatchPanicLayer)
            .layer(self.observe.clone())
            .layer(self.context.clone())
    }
}

/// Tells handlers who the client is, as axum's `ConnectInfo<SocketAddr>`.
#[derive(Clone)]
pub(super) struct WithPeer {
    router: Router,
    peer: SocketAddr,
}

impl WithPeer {
    pub(super) fn new(router: Router, peer: SocketAddr) -> Self {
        Self { router, peer }
    }
}

impl Service<Request<Incoming>> for WithPeer {
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request<Incoming>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Incoming>>::poll_ready(&mut self.router, cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.router.call(request)
    }
}
