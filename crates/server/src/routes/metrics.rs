//! The metrics, for a scraper.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use trunkline_telemetry::{Format, Metrics};

use crate::ProblemResponse;

/// The metrics as Prometheus text, or as OpenMetrics where the request prefers it.
///
/// The path must begin with `/` and have no parameters.
///
/// # Panics
/// When axum does not take the path.
pub fn metrics_routes(path: &str, metrics: &Metrics) -> Router {
    let metrics = metrics.clone();
    Router::new().route(
        path,
        get(async move |headers: HeaderMap| text(&metrics, &headers)),
    )
}

fn text(metrics: &Metrics, headers: &HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::negotiate(accept);
    match metrics.render(format) {
        Ok(text) => (
            [(
                CONTENT_TYPE,
                HeaderValue::from_static(format.content_type()),
            )],
            text,
        )
            .into_response(),
        Err(error) => ProblemResponse::from(error).into_response(),
    }
}
