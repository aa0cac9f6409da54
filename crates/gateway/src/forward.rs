//! A request on its way through the gateway.

use std::net::SocketAddr;

use axum::body::Body as AxumBody;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body::Body as _;
use tower_service::Service as _;
use trunkline_core::{Baggage, Context};
use trunkline_http::{Body, CallOptions};
use trunkline_server::{PassedOn, ProblemResponse};

use crate::failure::problem_of;
use crate::gateway::Shared;
use crate::path::climbs;
use crate::table::{Lookup, Route};
use crate::upload::Upload;

/// Finds the service, asks it, and passes its answer on.
pub(crate) async fn forward(shared: &Shared, request: Request<AxumBody>) -> Response {
    if let Some(problem) = refusal(&request) {
        return problem.into_response();
    }
    let path = request.uri().path();
    let route = match shared.table.lookup(request.method(), path) {
        Lookup::Found(route) => route,
        Lookup::OtherMethods(methods) => return method_not_allowed(&methods),
        Lookup::Unknown => {
            return ProblemResponse::not_found("no service answers below this path")
                .into_response();
        }
    };
    let mut response = through(shared, route, request).await;
    response.extensions_mut().insert(route.template.clone());
    response
}

/// What is not passed on, whatever the route.
fn refusal(request: &Request<AxumBody>) -> Option<ProblemResponse> {
    if *request.method() == Method::CONNECT {
        let detail = "this gateway opens no tunnels";
        return Some(ProblemResponse::new(StatusCode::NOT_IMPLEMENTED, detail));
    }
    // RFC 9112, section 3.2. With several, everybody on the way may believe another one.
    let hosts = request.headers().get_all(HOST).iter().count();
    let missing = hosts == 0 && request.version() == Version::HTTP_11;
    if hosts > 1 || missing {
        let detail = "the request needs one Host header";
        return Some(ProblemResponse::bad_request(detail));
    }
    climbs(request.uri().path())
        .then(|| ProblemResponse::bad_request("the path has `.` or `..` segments"))
}

async fn through(shared: &Shared, route: &Route, request: Request<AxumBody>) -> Response {
    let (mut parts, body) = request.into_parts();
    let peer = parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0);
    if shared.headers.onward(&mut parts, peer).is_err() {
        return ProblemResponse::new(
            StatusCode::LOOP_DETECTED,
            format!("{} leads back to this gateway", route.service),
        )
        .into_response();
    }
    let context = parts.extensions.get::<Context>().cloned();
    let mut context = context.unwrap_or_else(Context::current_or_new);
    if !shared.trust_baggage {
        // Also here: a router of one's own may have read it.
        context = context.with_baggage(Baggage::default());
    }
    let options = CallOptions::default().with_context(context).with_open_end();
    let upload = Upload::default();
    let body = if body.is_end_stream() {
        Body::empty()
    } else {
        upload.watch(body)
    };
    let mut onward = Request::new(body);
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = path_only(parts.uri);
    *onward.headers_mut() = parts.headers;
    onward.extensions_mut().insert(options);

    let mut client = shared.clients[route.slot].clone();
    match client.call(onward).await {
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            // It was not asked to.
            ProblemResponse::new(
                StatusCode::BAD_GATEWAY,
                format!("{} gave no sound answer", route.service),
            )
            .into_response()
        }
        Ok(answer) => {
            let mut response = answer.map(AxumBody::new);
            shared.headers.back(response.headers_mut());
            response.extensions_mut().insert(PassedOn);
            response
        }
        // The client has logged it, with service, address and causes.
        Err(error) => match upload.problem() {
            Some(problem) => problem.into_response(),
            None => problem_of(&route.service, &error).into_response(),
        },
    }
}

/// HTTP/2 and requests in absolute form name a host in their URI: it is not the service's.
fn path_only(uri: Uri) -> Uri {
    match uri.into_parts().path_and_query {
        Some(path) => Uri::from(path),
        None => Uri::from(PathAndQuery::from_static("/")),
    }
}

fn method_not_allowed(methods: &[Method]) -> Response {
    let allowed: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let problem = ProblemResponse::new(status, "the path is known, for other methods");
    let mut response = problem.into_response();
    if let Ok(allowed) = HeaderValue::try_from(allowed.join(", ")) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}
