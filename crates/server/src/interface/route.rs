//! Routes of an interface.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use http::Method;

use super::input::Input;

/// Adds the route of a method.
///
/// # Panics
/// As axum's `route`, when the path is there already for this method; the attribute has seen to it that it is not.
pub fn route<F, Fut>(router: Router, method: Method, path: &str, handle: F) -> Router
where
    F: Fn(Input) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response> + Send + 'static,
{
    let Ok(filter) = MethodFilter::try_from(method) else {
        return router;
    };
    let handler = move |request: Request| {
        let handle = handle.clone();
        async move {
            match Input::of(request).await {
                Ok(input) => handle(input).await,
                Err(refused) => refused.into_response(),
            }
        }
    };
    router.route(path, on(filter, handler))
}
