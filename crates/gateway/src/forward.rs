//! A request on its way through the gateway.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::extract::ConnectInfo;
use axum::response::IntoResponse as _;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use tokio::time::Instant;
use trunkline_core::Context;
use trunkline_core::names::header::IDEMPOTENCY_KEY;
use trunkline_core::names::target;
use trunkline_http::{Body, Limits};
use trunkline_resilience::Call;
use trunkline_server::ProblemResponse;

use crate::attempt::Attempts;
use crate::failure::{climbs, has_deadline, problem_of};
use crate::gateway::Shared;
use crate::headers;
use crate::judge::Judge;
use crate::table::{Lookup, Route};

/// Most of a streamed body that is kept so that the request can be sent again.
const KEPT_FOR_REPETITION: usize = 64 * 1024;

/// Finds the service, asks it, and passes its answer on.
pub(crate) async fn forward(
    shared: &Shared,
    request: Request<axum::body::Body>,
) -> axum::response::Response {
    if climbs(request.uri().path()) {
        return ProblemResponse::bad_request("the path has `.` or `..` segments").into_response();
    }
    match shared.routes.lookup(request.method(), request.uri().path()) {
        Lookup::Found(route) => through(shared, route, request).await,
        Lookup::OtherMethods(methods) => method_not_allowed(&methods),
        Lookup::Unknown => {
            ProblemResponse::not_found("no service answers below this path").into_response()
        }
    }
}

async fn through(
    shared: &Shared,
    route: &Route,
    request: Request<axum::body::Body>,
) -> axum::response::Response {
    let context = Context::current_or_new();
    let (mut parts, body) = request.into_parts();
    let limits = limits(shared, &parts, &context);
    let peer = parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0);
    headers::end_hop(&mut parts.headers);
    headers::tell_origin(&mut parts.headers, peer);
    let policy = shared
        .upstreams
        .policy(&route.service, &parts.method, parts.uri.path());
    let settings = policy.settings();
    let attempts = Attempts {
        transport: &shared.transport,
        propagation: &shared.propagation,
        instances: shared.instances(&route.service),
        context: &context,
        limits: limits
            .with_connection(settings.timeout.connection)
            .with_read(settings.timeout.read)
            .with_pool(settings.timeout.pool),
        body: Mutex::new(Some(Body::new(body).replayable(KEPT_FOR_REPETITION))),
        parts: &parts,
        tried: Mutex::default(),
    };
    let call = Call::new(&context).repeatable(is_repeatable(&parts));
    let (attempts, began) = (&attempts, Instant::now());
    let answer = policy
        .run_with(call, &Judge(attempts), |attempt| attempts.run(attempt))
        .await;
    let metrics = shared.metrics(&route.service);
    match answer {
        Ok(response) => {
            metrics.answered(response.status().as_u16(), began.elapsed());
            pass_on(response)
        }
        Err(error) => {
            metrics.failed(error.kind(), began.elapsed());
            tracing::warn!(
                target: target::CALL, service = %route.service, method = %parts.method, url = %parts.uri.path(),
                message = %error.report(), "no answer to pass on"
            );
            problem_of(&route.service, error).into_response()
        }
    }
}

/// A body may stream for as long as it moves, unless the client said until when it waits.
fn limits(shared: &Shared, parts: &Parts, context: &Context) -> Limits {
    let asked = has_deadline(&parts.headers, shared.propagation.deadline_header());
    match context.deadline().filter(|_| asked) {
        Some(deadline) => Limits::default().with_deadline(deadline),
        None => Limits::default(),
    }
}

fn is_repeatable(parts: &Parts) -> bool {
    parts.method.is_idempotent() || parts.headers.contains_key(IDEMPOTENCY_KEY)
}

fn pass_on(response: Response<Body>) -> axum::response::Response {
    let (mut parts, body) = response.into_parts();
    headers::end_hop(&mut parts.headers);
    Response::from_parts(parts, axum::body::Body::new(body))
}

fn method_not_allowed(methods: &[Method]) -> axum::response::Response {
    let allowed: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let status = http::StatusCode::METHOD_NOT_ALLOWED;
    let problem = ProblemResponse::new(status, "the path is known, for other methods");
    let mut response = problem.into_response();
    if let Ok(allowed) = HeaderValue::try_from(allowed.join(", ")) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}
