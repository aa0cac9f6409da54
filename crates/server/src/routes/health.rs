//! How the service is, whether it lives, whether traffic may come.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use trunkline_core::{Health, Status};

use crate::extract::Json;

/// `<path>` answers the health document, 503 when a required component is unhealthy; `<path>/live` answers 200 as long
/// as the process does; `<path>/ready` answers 503 with the reasons while no traffic should come.
///
/// The path must begin with `/` and have no parameters.
///
/// ```
/// use trunkline_core::Health;
/// use trunkline_server::routes::health_routes;
///
/// let health = Health::default();
/// let router: axum::Router = health_routes("/health", &health);
/// # let _ = router;
/// ```
///
/// # Panics
/// When axum does not take the path.
pub fn health_routes(path: &str, health: &Health) -> Router {
    let (document, readiness) = (health.clone(), health.clone());
    let base = path.trim_end_matches('/');
    let root = if base.is_empty() { "/" } else { base };
    Router::new()
        .route(root, get(async move || whole(&document)))
        .route(
            &format!("{base}/live"),
            get(async || answer(true, serde_json::json!({"status": "alive"}))),
        )
        .route(
            &format!("{base}/ready"),
            get(async move || ready(&readiness)),
        )
}

fn whole(health: &Health) -> Response {
    let document = health.document();
    answer(document.overall_status != Status::Unhealthy, document)
}

fn ready(health: &Health) -> Response {
    let readiness = health.readiness();
    answer(readiness.ready, readiness)
}

fn answer(good: bool, document: impl Serialize) -> Response {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    // An answer of a moment ago is worse than none.
    let fresh = HeaderValue::from_static("no-store");
    (status, [(CACHE_CONTROL, fresh)], Json(document)).into_response()
}
